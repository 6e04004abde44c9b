"""One process at a time in a folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from s4mim_hf.errors import InputError

LOCK_FILE = ".lock"
"""The usual name of the lock in a folder that one process holds."""

_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextmanager
def only_one(lock_file: Path, refusal: str, *, keep: bool = False) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends; on a file system without locks, hold nothing.

    Args:
        lock_file: made where it is absent; its folder exists.
        refusal: what to say where another process holds the lock.
        keep: leave the file there afterwards (on Windows it goes all the same).

    Raises:
        InputError: another process holds the lock.
        OSError: the file cannot be made.
    """
    lock = filelock.FileLock(lock_file, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(refusal) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        yield
        return
    try:
        yield
    finally:
        if not keep:
            # While it is held: whoever opened it before finds out by its inode, and tries again.
            lock_file.unlink(missing_ok=True)
        lock.release()
