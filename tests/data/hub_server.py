"""A small Hub on a free port of this machine: enough of its HTTP interface for uploading, listing and downloading.

Models, data sets and spaces; public and private; tokens; git commits as whole states; large files by LFS. Faults can be
ordered for any request. It keeps everything in memory, and checks what a real one checks: rights, hashes, parents.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

from hub_answers import LARGE_SUFFIXES, HubAnswers

TYPES = ("model", "dataset", "space")


@dataclass
class Account:
    """Who a token belongs to, and what it may do."""

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and namespace in (self.name, *self.organizations)


@dataclass
class Repository:
    """Commits are whole states: (hash, files by path); the last one is main."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    large: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    operations: list[list[str]] = field(default_factory=list)
    """What each upload did, in its order: "+path" or "-path"."""

    def add_commit(self, files: dict[str, bytes], message: str) -> str:
        text = f"{len(self.commits)}{message}{sorted(files)}{[hashlib.sha256(files[path]).digest() for path in files]}"
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), files))
        self.messages.append(message)
        return self.commits[-1][0]

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass
class Fault:
    """An answer in place of the right one.

    Status 0 closes the connection without any, in the middle of what is sent; `done` does first what was asked.
    """

    method: str
    path: re.Pattern[str]
    status: int
    left: int
    message: str
    headers: dict[str, str]
    done: bool = False


class HubServer:
    """The Hub's state, and the server on it."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        handler = type("Handler", (HubAnswers,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the environment of a child process whose Hub this is, with nothing of this machine's own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        settings = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            # The chunk store is another service; without it, large files go by LFS.
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        return kept | settings | ({"HF_TOKEN": token} if token else {})

    def create(self, repo_type: str, repo_id: str, *, private: bool = False) -> Repository:
        assert repo_type in TYPES
        made = self.repositories[repo_type, repo_id] = Repository(private)
        made.add_commit({".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit")
        return made

    def put(self, repo_type: str, repo_id: str, folder: Path, *, private: bool = False) -> str:
        """Commit a folder as it is, without any upload; return the commit."""
        repository = self.repositories.get((repo_type, repo_id)) or self.create(repo_type, repo_id, private=private)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        repository.large |= {path for path in files if path.endswith(LARGE_SUFFIXES)}
        return repository.add_commit(files, "put")

    def files(self, repo_type: str, repo_id: str) -> dict[str, bytes]:
        """Return the files of the last commit."""
        return self.repositories[repo_type, repo_id].commits[-1][1]

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        *,
        times: int = 1,
        message: str = "",
        done: bool = False,
        **headers: str,
    ) -> None:
        """Answer the next `times` requests whose method and path (a regular expression) fit with an error."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(method, re.compile(path), status, times, message, named, done))

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.left and fault.method == method and fault.path.search(path):
                    fault.left -= 1
                    return fault
        return None

    def reset(self) -> None:
        """Forget everything but the accounts."""
        for stored in (self.repositories, self.blobs, self.requests, self.faults):
            stored.clear()


@contextmanager
def running_hub(**accounts: Account) -> Iterator[HubServer]:
    """Run a server whose tokens are the names of `accounts`."""
    hub = HubServer()
    hub.accounts.update(accounts)
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
