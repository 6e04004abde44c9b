"""How every script starts and how it fails: one sentence on standard error and exit code 2 for bad input."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from safetensors import SafetensorError
from tqdm import tqdm

from s4mim_hf.errors import DISK_IS_FULL, InputError

# Beside a full disk no fault of ours, whatever file it was; any other error of the system is one.
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit: 0 (or what `main` returns), 2 for `InputError`, 130 when interrupted.

    A full accelerator and a disk that is full or may not be written are no faults of ours either: 2, and a sentence.
    Under `accelerate launch` the launcher adds its own lines after ours and exits with 1.
    """
    try:
        code = main() or 0
    except InputError as error:
        code = _refuse(str(error))
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        code = _refuse(
            f"the accelerator's memory is full ({reason}); use smaller crops, batches or windows, or "
            "mixed_precision=bf16; what was saved before stays"
        )
    except (OSError, SafetensorError) as error:
        refusal = _reason_of_the_disk(error)
        if refusal is None:
            raise
        code = _refuse(f"{refusal}, and run again; what was saved before stays")
    except KeyboardInterrupt:
        print("interrupted; what was saved before stays", file=sys.stderr, flush=True)
        code = 130
    _leave_processes(failed=code != 0)
    sys.exit(code)


def _leave_processes(failed: bool) -> None:
    # gloo's threads that outlive the interpreter abort it now and then ("terminate called without an active
    # exception"), upon which the launcher kills the processes that are still at work. NCCL in contrast waits here for
    # what the others, who know of no failure, still expect of this process.
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    if not failed or torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _refuse(sentence: str) -> int:
    # On a line of its own where a progress bar stands half drawn.
    tqdm.write(f"error: {sentence}", file=sys.stderr)
    return 2


def _reason_of_the_disk(error: OSError | SafetensorError) -> str | None:
    """Return what is wrong with the disk and what to do, None where it is something else."""
    if isinstance(error, SafetensorError):
        # Its only word of the system's error is the text.
        return f"{error}; make room or name another folder" if "(os error " in str(error) else None
    what = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    if error.errno in DISK_IS_FULL:
        return f"{what}; make room or name another folder"
    return f"{what}; correct its rights or name another place" if error.errno in _NOT_ALLOWED else None


def join_processes(timeout: timedelta | None = None) -> PartialState:
    """Return which of how many processes this is, whether they have accelerators or only CPUs.

    Args:
        timeout: how long one waits for the others before it gives up; None: as torch has it.
    """
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    # Of processes without an accelerator PartialState would make so many that are alone, each with all of the work.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not (alone or torch.accelerator.is_available())
    return PartialState(cpu=cpu, **({} if timeout is None else {"timeout": timeout}))
