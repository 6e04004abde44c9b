"""How every script starts and how it fails: one sentence on standard error and exit code 2 for bad input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm import tqdm

from s4mim_hf.errors import InputError


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit: 0 (or what `main` returns), 2 for `InputError`, 130 when interrupted.

    Under `accelerate launch` the launcher adds its own lines after ours and exits with 1.
    """
    try:
        code = main() or 0
    except InputError as error:
        # On a line of its own where a progress bar stands half drawn.
        tqdm.write(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; what was saved before stays", file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)


def join_processes(timeout: timedelta | None = None) -> PartialState:
    """Return which of how many processes this is, whether they have accelerators or only CPUs.

    Args:
        timeout: how long one waits for the others before it gives up; None: as torch has it.
    """
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    # Of processes without an accelerator PartialState would make so many that are alone, each with all of the work.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not (alone or torch.accelerator.is_available())
    return PartialState(cpu=cpu, **({} if timeout is None else {"timeout": timeout}))
