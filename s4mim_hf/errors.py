"""What a user did that cannot be carried out, said in one sentence."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The system's errors that mean: there is no room for what is written."""


class InputError(ValueError):
    """Bad input from a person: a file, a folder, a key or a value.

    The message is the whole explanation: it names the file or key, the value found, what was expected and what to do.
    Scripts print it without a traceback and exit with code 2 (`s4mim_hf.command_line.run`). A bug of ours is never
    raised as this.
    """


def nearest(value: str, choices: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the choice most like `value`, or an empty string where none is alike."""
    found = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def some(items: Iterable[str], limit: int = 3) -> str:
    """Name the first few of `items` and the count of the rest: `"a, b, c and 7 more"`."""
    names = list(items)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def check_names(names: Iterable[str]) -> None:
    """Refuse names of files that are no text: tables of images hold UTF-8, and old archives other encodings.

    Raises:
        InputError: a name was no UTF-8 on the disk.
    """
    bad = [repr(name) for name in names if not _is_text(name)]
    if bad:
        raise InputError(f"{len(bad)} file names are no UTF-8, but of another encoding: {some(bad)}; rename them")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
