"""A web server of one folder that serves parts of files, and fails when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Serves `folder`.

    Attributes:
        requests: (method, path, first byte, one after the last) of each request so far.
        fail: called with the number of GET requests before this one; gives "" to answer, a status to answer with that,
            "drop" to end the connection, "short" to end it in the middle of the content, or "whole" to send all of the
            file whatever part was asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: list[tuple[str, str, int, int]] = []
        self.fail: Callable[[int], str] = lambda number: ""

    @property
    def url(self) -> str:
        """Where the folder is."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def gets(self) -> int:
        """How many GET requests came so far."""
        return sum(method == "GET" for method, *_ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: RangeServer

    def do_HEAD(self) -> None:
        self._answer(b"" if (content := self._content()) is None else content, body=False)

    def do_GET(self) -> None:
        self._answer(b"" if (content := self._content()) is None else content, body=True)

    def _content(self) -> bytes | None:
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        return path.read_bytes() if path.is_file() else None

    def _answer(self, content: bytes, body: bool) -> None:
        first, end = 0, len(content)
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start, _, last = asked.removeprefix("bytes=").partition("-")
            first, end = int(start), min(int(last) + 1, end)
        how = self.server.fail(self.server.gets) if body else ""
        self.server.requests.append((self.command, self.path, first, end))
        if self._content() is None or how.isdecimal():
            self.send_error(int(how) if how else 404)
            return
        if how == "drop":
            self.close_connection = True
            self.connection.close()
            return
        partial = bool(asked) and how != "whole"
        part = content[first:end] if partial else content
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self.wfile.write(part[: len(part) // 2] if how == "short" else part)
            self.close_connection = how == "short"

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
    """Serve a folder while the block runs."""
    with RangeServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
