"""One process at a time in a folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from s4mim_hf.errors import InputError

LOCK_FILE = ".lock"
"""The usual name of the lock in a folder that one process holds."""

_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


@contextmanager
def only_one(lock_file: Path, refusal: str, *, keep: bool = False) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends; on a file system without locks, hold nothing.

    Args:
        lock_file: made where it is absent; its folder exists.
        refusal: what to say where another process holds the lock.
        keep: leave the file there afterwards.

    Raises:
        InputError: another process holds the lock.
        OSError: the file cannot be made.
    """
    # A marker file in place of a lock would outlive a process that was killed.
    lock = filelock.FileLock(lock_file, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(refusal) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS_HERE:
            raise
        yield
        return
    try:
        yield
    finally:
        _release(lock, lock_file, keep)


def _release(lock: filelock.BaseFileLock, lock_file: Path, keep: bool) -> None:
    if not keep:
        # While it is held: whoever opened it before finds out by its inode, and tries again. Windows deletes no file
        # that is open, but the lock deletes it there itself.
        with suppress(OSError):
            lock_file.unlink(missing_ok=True)
    lock.release()
    if keep:
        with suppress(OSError):
            lock_file.touch()
