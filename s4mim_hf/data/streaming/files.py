"""The bytes of a shard, wherever it lies: a local file, or ranges of a remote one that survive a failing network."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import fsspec

from s4mim_hf.errors import InputError
from s4mim_hf.hub_access import LOG_IN

if TYPE_CHECKING:
    from s4mim_hf.data.streaming.shards import Shard

T = TypeVar("T")

# Seconds before another try: a minute without network ends no run, and a wrong address is said soon.
PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, 8, 16, 32)
SHORT_PAUSES: tuple[float, ...] = (0.5, 1)
# Bytes that one request asks for; a reader holds about twice as many.
BLOCK = 4 * 2**20
_MAY_PASS = (408, 425, 429)


def is_remote(url: str) -> bool:
    """Say whether `url` is no path on this machine."""
    return "://" in url


def open_shard(shard: Shard) -> BinaryIO:
    """Open a shard for reading and seeking.

    Raises:
        InputError: (here or while reading) it cannot be read, for a remote one after several tries.
    """
    if is_remote(shard.url):
        return _RemoteFile(shard.url, shard.size)  # type: ignore[return-value]
    try:
        return open(shard.url, "rb")
    except OSError as error:
        raise InputError(f"{shard.url} cannot be read: {error.strerror}; see that it is there and readable") from None


def retried(action: Callable[[], T], url: str, pauses: Sequence[float] | None = None) -> T:
    """Return what `action` gives, trying again after pauses where a transfer fails in a way that may pass.

    Args:
        action: reads from `url`.
        url: named in the error.
        pauses: seconds before each further try; None: `PAUSES`.

    Raises:
        FileNotFoundError: there is nothing at `url`.
        InputError: it still cannot be read, or never will be.
    """
    for tries, pause in enumerate([*(PAUSES if pauses is None else pauses), None], start=1):
        try:
            return action()
        # The libraries behind fsspec have no error in common: each of theirs is a transfer that failed.
        except Exception as error:
            # fsspec calls whatever a look-up on the web or the Hub ends with a missing file; its cause tells.
            cause = (error.__cause__ or error) if isinstance(error, FileNotFoundError) else error
            status = _status(cause)
            if status == 404 or (status is None and isinstance(cause, FileNotFoundError)):
                raise FileNotFoundError(url) from None
            if pause is None or _is_final(cause, status):
                text = " ".join(str(cause).split())[:160]
                private = f" (a private data set: {LOG_IN})" if url.startswith("hf://") and status in (401, 403) else ""
                raise InputError(
                    f"{url} cannot be read ({type(cause).__name__}{': ' if text else ''}{text}; tries: {tries}); check "
                    f"the address, the access to it{private} and the connection, then run again, with --resume where a "
                    "run was under way"
                ) from None
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of aiohttp, requests, httpx or the Hub's client carries."""
    found = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _is_final(error: BaseException, status: int | None) -> bool:
    if status is not None:
        return 400 <= status < 500 and status not in _MAY_PASS
    # ValueError: among others that the server sends whole files where a part is asked for.
    return isinstance(error, (PermissionError, ValueError))


class _RemoteFile(io.RawIOBase):
    """Reads ranges of a remote file of known size, each with further tries, and gives no byte less than asked for."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._position = url, size, 0
        self._file: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size < 0 else min(size, left)
        try:
            data = retried(lambda: self._fetch(wanted), self._url) if wanted else b""
        except FileNotFoundError:
            raise InputError(f"{self._url} is no longer there; put it back, then go on with --resume") from None
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file = None
        super().close()

    def _fetch(self, wanted: int) -> bytes:
        try:
            if self._file is None:
                filesystem, path = fsspec.core.url_to_fs(self._url)
                self._file = filesystem.open(path, block_size=BLOCK, cache_type="readahead", size=self._size)
            self._file.seek(self._position)
            data: bytes = self._file.read(wanted)
            if len(data) != wanted:
                raise ConnectionError(f"{len(data)} of {wanted} bytes came")
            return data
        except Exception:
            # A new connection for the next try.
            self._file = None
            raise
