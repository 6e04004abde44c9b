"""How every script starts and how it fails: one sentence on standard error and exit code 2 for bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

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
