"""Look through all masks of a source once, in threads: which classes each holds, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from s4mim_hf.data.prepared_writer.reading import rows_in_order
from s4mim_hf.data.samples import read_checked_label
from s4mim_hf.data.sources.base import IGNORE_INDEX, Item, Source
from s4mim_hf.data.splits import ClassPresence
from s4mim_hf.errors import InputError, some


def scan_presence(source: Source, items: Sequence[Item]) -> ClassPresence:
    """Decode the labels of `items` and return which classes each holds; no picture is decoded, but for its size.

    Args:
        source: where the items are from; its classes are known.
        items: images with labels, sorted by id.

    Raises:
        InputError: some labels cannot be used; all have been looked at.
    """
    assert source.classes is not None
    presence = ClassPresence.empty([item.id for item in items], len(source.classes.names))

    def held(split: str, index: int) -> np.ndarray:
        item = items[index]
        _, counts = read_checked_label(source, item, source.read_image(item), presence.classes)
        return np.flatnonzero(counts[:-1])

    positions = (("", index) for index in range(len(items)))
    with tqdm(total=len(items), desc="reading masks", unit="mask", disable=None) as progress:
        for index, (_, ids) in enumerate(rows_in_order(held, {"": presence.ids}, positions, progress.update)):
            presence.put(index, ids.tolist())
    return presence


def no_classes(source: Source, items: Sequence[Item], where: str) -> InputError:
    """Return the error for masks whose classes nobody names: it says which ids they hold.

    Args:
        source: where the items are from.
        items: images with labels.
        where: the source, in words.

    Raises:
        InputError: some labels cannot be read.
    """
    found: set[int] = set()

    def held(split: str, index: int) -> np.ndarray:
        return np.unique(source.read_label(items[index]))

    positions = (("", index) for index in range(len(items)))
    with tqdm(total=len(items), desc="reading masks", unit="mask", disable=None) as progress:
        for _, ids in rows_in_order(held, {"": [item.id for item in items]}, positions, progress.update):
            found.update(ids.tolist())
    known = sorted(found - {IGNORE_INDEX})
    listed = some(map(str, known), 12) if known else f"none but {IGNORE_INDEX}"
    return InputError(
        f"nothing names the classes of {where} (no classes.json, no --classes); the masks hold the ids {listed} "
        f"({IGNORE_INDEX} is ignored): name the classes 0 to {known[-1] if known else 'K-1'} with --classes a,b,c"
    )
