"""Turn the ids of a data set's masks into one's own: {"old id": new id, or the name of a class, or null}."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, SampleError
from s4mim_hf.data.sources.class_names import checked_classes
from s4mim_hf.errors import InputError, nearest, some

_EXPECTED = 'a label map is JSON such as {"0": null, "7": "road", "8": "road"} or {"0": 255, "7": 0, "8": 0}'
_UNLISTED = -1
_LARGEST = 2**16 - 1


@dataclass(frozen=True)
class LabelMap:
    """New ids of old ids.

    Attributes:
        ids: the new id of each old one; 255 is ignored, and stays so where it is not listed.
        names: the classes in the order of their new ids; None where nothing names them.
    """

    ids: dict[int, int]
    names: tuple[str, ...] | None

    @cached_property
    def _table(self) -> np.ndarray:
        """The new id of each old id, and -1 for those that are not listed, which the last entry stands for too."""
        table = np.full(max(*self.ids, IGNORE_INDEX) + 2, _UNLISTED, np.int64)
        table[IGNORE_INDEX] = IGNORE_INDEX
        table[list(self.ids)] = list(self.ids.values())
        return table

    def apply(self, label: np.ndarray) -> np.ndarray:
        """Return the new ids of a label map (H, W), int64.

        Raises:
            SampleError: it has ids that are not listed.
        """
        last = len(self._table) - 1
        # Below 0 is as far outside as above.
        mapped = self._table[np.where(label < 0, last, label.clip(max=last))]
        if mapped.min(initial=0) == _UNLISTED:
            odd = np.unique(label[mapped == _UNLISTED]).tolist()
            raise SampleError(
                "masks hold ids that the label map does not list; list them, with null for what is to be ignored",
                some(map(str, odd), 8),
            )
        return mapped


def read_label_map(path: Path, classes: Sequence[str] | None, old_names: Mapping[int, str]) -> LabelMap:
    """Read a label map.

    Args:
        path: the file.
        classes: the classes in the order of their new ids, where they are given.
        old_names: what the data set calls its ids, for classes that have just one of them.

    Raises:
        InputError: the file is missing or no label map, or names what is no class.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"the label map {path} cannot be read: {error}; {_EXPECTED}") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"the label map {path} holds no object; {_EXPECTED}")
    # 255 means ignored among names too.
    pairs = {
        _old_id(path, key): None if type(value) is int and value == IGNORE_INDEX else value
        for key, value in content.items()
    }
    used = [value for value in pairs.values() if value is not None]
    if all(isinstance(value, str) for value in used):
        return _by_names(path, pairs, classes)
    if all(type(value) is int for value in used):
        return _by_ids(path, pairs, classes, old_names)
    odd = next(value for value in used if not isinstance(value, str))
    raise InputError(f"the label map {path} has {odd!r} among other values; {_EXPECTED}, but not a mixture")


def _old_id(path: Path, key: str) -> int:
    if not key.strip().isdecimal() or int(key) > _LARGEST:
        raise InputError(f"the label map {path} has the key {key!r}, which is no id of a mask; {_EXPECTED}")
    return int(key)


def _by_names(path: Path, pairs: Mapping[int, Any], classes: Sequence[str] | None) -> LabelMap:
    """Number the names as `classes` does, or in the order of their first old ids."""
    named = [pairs[old].strip() for old in sorted(pairs) if pairs[old] is not None]
    if classes is None:
        checked, _ = checked_classes(list(dict.fromkeys(named)), IGNORE_INDEX, str(path))
        classes = checked.names
    unknown = sorted(set(named) - set(classes))
    if unknown:
        raise InputError(
            f"the label map {path} names {some(unknown)}, which is no class of --classes{nearest(unknown[0], classes)}"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    ids = {old: IGNORE_INDEX if name is None else numbers[name.strip()] for old, name in pairs.items()}
    return LabelMap(ids, tuple(classes))


def _by_ids(
    path: Path, pairs: Mapping[int, Any], classes: Sequence[str] | None, old_names: Mapping[int, str]
) -> LabelMap:
    """Take the new ids as they are; names are `classes`, or what the data set calls the old ids."""
    ids = {old: IGNORE_INDEX if new is None else int(new) for old, new in pairs.items()}
    new_ids = sorted(set(ids.values()) - {IGNORE_INDEX})
    count = len(classes) if classes is not None else len(new_ids)
    if not new_ids or new_ids[0] < 0 or new_ids[-1] >= count:
        found = f"{new_ids[0]} to {new_ids[-1]}" if new_ids else "none"
        raise InputError(
            f"the new ids of the label map {path} are {found}, but must be 0 to {max(count - 1, 0)} "
            f"({count} {'classes' if classes is not None else 'different ids'}), or {IGNORE_INDEX} or null to ignore"
        )
    if classes is not None:
        return LabelMap(ids, tuple(classes))
    sources = [[old for old in sorted(ids) if ids[old] == new] for new in new_ids]
    names = [old_names.get(olds[0]) if len(olds) == 1 else None for olds in sources]
    known = None if None in names else checked_classes(names, IGNORE_INDEX, str(path))[0]
    return LabelMap(ids, _names(known))


def _names(classes: Classes | None) -> tuple[str, ...] | None:
    return None if classes is None else classes.names
