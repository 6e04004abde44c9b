"""A folder is one process's at a time, whatever becomes of that process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s4mim_hf.errors import InputError
from s4mim_hf.locking import only_one

HOLD = """
import sys
from pathlib import Path
from s4mim_hf.locking import only_one

with only_one(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(lock_file: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_until_the_holder_ends_however_it_ends(tmp_path: Path) -> None:
    with hold(tmp_path / ".lock") as holder:
        with pytest.raises(InputError, match=r"^busy here$"), only_one(tmp_path / ".lock", "busy here"):
            pass
        holder.kill()
    assert (tmp_path / ".lock").exists()
    with only_one(tmp_path / ".lock", "busy here"):
        pass


@pytest.mark.parametrize("keep", [False, True])
def test_the_file_stays_where_it_is_to(tmp_path: Path, keep: bool) -> None:
    with only_one(tmp_path / ".lock", "busy", keep=keep):
        assert (tmp_path / ".lock").exists()
    assert (tmp_path / ".lock").exists() is keep


def test_what_is_raised_inside_comes_out(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), only_one(tmp_path / ".lock", "busy"):
        raise OSError(errno.ENOSPC, "disk")
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP])
def test_a_file_system_without_locks_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    entered = []
    with only_one(tmp_path / ".lock", "busy"), only_one(tmp_path / ".lock", "busy"):
        entered.append(True)
    assert entered


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((FileExistsError, NotADirectoryError)), only_one(tmp_path / "file" / ".lock", "busy"):
        pass
