"""Names of classes as people write them: read from classes.json or the command line, and checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes
from s4mim_hf.errors import InputError, some


def read_classes(path: Path) -> tuple[Classes, int] | None:
    """Read the class names and the ignore id of a classes.json; None where there is no such file.

    Raises:
        InputError: the file cannot be read, or names no valid classes.
    """
    if not path.exists():
        return None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON file that can be read: {error}") from None
    if isinstance(content, list):
        return checked_classes(content, IGNORE_INDEX, str(path))
    if not isinstance(content, dict) or not isinstance(content.get("id2label"), dict):
        raise InputError(f'{path} holds neither a list of names nor {{"id2label": {{"0": NAME, ...}}}}')
    id2label = content["id2label"]
    expected = {str(class_id) for class_id in range(len(id2label))}
    if set(id2label) != expected:
        odd = some(sorted(set(id2label) - expected) or sorted(expected - set(id2label)))
        raise InputError(f"{path}: id2label must have the ids 0 to {len(id2label) - 1}, one name each; see {odd}")
    names = [id2label[str(class_id)] for class_id in range(len(id2label))]
    return checked_classes(names, content.get("ignore_index", IGNORE_INDEX), str(path))


def checked_classes(names: Sequence[Any], ignore_index: Any, where: str) -> tuple[Classes, int]:
    """Check class names and the ignore id, and return both.

    Raises:
        InputError: a name is no text, is empty or doubled, there are none or more than 255, or the ignore id is a
            class's.
    """
    bad = [repr(name) for name in names if not isinstance(name, str) or not name.strip()]
    if bad:
        raise InputError(f"{where}: class names are texts of at least one letter, but {some(bad)} is found")
    stripped = [name.strip() for name in names]
    doubled = sorted({name for name in stripped if stripped.count(name) > 1})
    if doubled:
        raise InputError(f"{where} names {some(doubled)} more than once; every class needs a name of its own")
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise InputError(f"{where} names {len(names)} classes; 1 to {IGNORE_INDEX} fit in an 8-bit class map")
    if not isinstance(ignore_index, int) or isinstance(ignore_index, bool) or 0 <= ignore_index < len(names):
        raise InputError(
            f"{where}: ignore_index is {ignore_index!r}, but must be a whole number that is no class's id "
            f"(0 to {len(names) - 1}); {IGNORE_INDEX} is usual"
        )
    return Classes(tuple(stripped)), ignore_index


def agreed_classes(given: Classes, where: str, written: Classes, path: Path) -> Classes:
    """Return `given`, once the classes that a file has written are the same.

    Raises:
        InputError: says where the two differ.
    """
    if given.names != written.names:
        pairs = zip(given.names, written.names, strict=False)
        first = next((f"{ours!r} and {theirs!r}" for ours, theirs in pairs if ours != theirs), "their number")
        raise InputError(
            f"{where} ({len(given.names)}) are not those of {path} ({len(written.names)}), they differ in {first}; "
            "correct one of them"
        )
    return given
