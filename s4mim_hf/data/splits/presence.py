"""Which classes each of many images holds, one bit for each.

N images, K classes; an image holds a class where at least one pixel of its label is of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassPresence:
    """The classes of N images.

    Attributes:
        ids: of the images, sorted.
        bits: uint8 (N, ceil(K / 8)); the bit of class k is bit 7 - k % 8 of byte k // 8, as `np.packbits` has it.
        classes: K.
    """

    ids: Sequence[str]
    bits: np.ndarray
    classes: int

    @classmethod
    def empty(cls, ids: Sequence[str], classes: int) -> ClassPresence:
        """Return the presence of no class in any image; `put` fills it in."""
        return cls(ids, np.zeros((len(ids), (classes + 7) // 8), np.uint8), classes)

    def put(self, row: int, ids: Iterable[int]) -> None:
        """Write down which class ids an image holds; 255 and other ids that are no class's are left out."""
        held = np.zeros(self.classes, bool)
        held[[class_id for class_id in ids if 0 <= class_id < self.classes]] = True
        self.bits[row] = np.packbits(held)

    def holds(self, class_id: int) -> np.ndarray:
        """Return which images hold a class, bool (N)."""
        return (self.bits[:, class_id // 8] >> (7 - class_id % 8) & 1).astype(bool)

    def of(self, row: int) -> np.ndarray:
        """Return the classes of one image, sorted ids."""
        return np.flatnonzero(np.unpackbits(self.bits[row], count=self.classes))

    def among(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return which classes some of these images hold, bool (K)."""
        together = np.bitwise_or.reduce(self.bits[np.asarray(rows, int)], axis=0)
        return np.unpackbits(together, count=self.classes).astype(bool)

    def select(self, ids: Iterable[str]) -> ClassPresence:
        """Return the presence in some of the images only.

        Raises:
            KeyError: one of `ids` is not among the images.
        """
        chosen = sorted(ids)
        rows = {image_id: row for row, image_id in enumerate(self.ids)}
        return ClassPresence(chosen, self.bits[[rows[image_id] for image_id in chosen]], self.classes)

    def merge(self, groups: Sequence[str]) -> ClassPresence:
        """Return the presence in whole groups; an image's group has its place in `groups` (N names)."""
        names = sorted(set(groups))
        number = {name: row for row, name in enumerate(names)}
        bits = np.zeros((len(names), self.bits.shape[1]), np.uint8)
        np.bitwise_or.at(bits, [number[name] for name in groups], self.bits)
        return ClassPresence(names, bits, self.classes)
