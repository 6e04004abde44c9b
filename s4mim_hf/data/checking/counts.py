"""Count what was seen of a split's images; per image only its id, a hash of 16 bytes, its look and its size are kept.

K is the number of classes; W, H are a picture's width and height.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping

import numpy as np

from s4mim_hf.data.checking.pictures import Facts
from s4mim_hf.data.prepared import SplitStatistics
from s4mim_hf.data.prepared_writer.reading import Problem
from s4mim_hf.data.sources.base import IGNORE_INDEX

# A label is nearly constant where one id has this share of its pixels.
CONSTANT_SHARE = 0.99
DIGEST_BYTES = 16

Size = tuple[int, int]
"""(W, H)."""


class SplitNumbers:
    """One split in numbers, to which images are added one at a time.

    Args:
        classes: K; None where the classes are not known, and 0 .. 254 are taken.

    Attributes:
        images: how many there are.
        masks: how many labels can be used.
        ids: of the images that have bytes.
        digests: 16 bytes for each of `ids`; see `Facts.digest`.
        looks: for each of `ids`; see `Facts.look`.
        pixels: labelled pixels of each id that is found, the ignored one too.
        images_with: how many labels hold each id.
        kinds: how many pictures have each format and mode.
        failures: images that training cannot use, by the kind of problem.
        constant: images whose label is of (nearly) one id.
        ignored_masks: images of whose label every pixel is ignored.
        odd: images whose labels hold ids that are no class's.
        dark: 16-bit pictures that are nearly black once they are scaled to 8 bits.
        doubtful: images of which nobody can tell whether the label is turned.
    """

    def __init__(self, classes: int | None) -> None:
        self._classes = IGNORE_INDEX if classes is None else classes
        self.images = self.masks = 0
        self.ids: list[str] = []
        self.digests = bytearray()
        self.looks = array("Q")
        self._widths, self._heights = array("I"), array("I")
        self.pixels: Counter[int] = Counter()
        self.images_with: Counter[int] = Counter()
        self.kinds: Counter[str] = Counter()
        self.failures: dict[str, Problem] = {}
        self.constant, self.ignored_masks, self.odd = Problem(), Problem(), Problem()
        self.dark, self.doubtful = Problem(), Problem()

    def add(self, image_id: str, facts: Facts) -> None:
        """Count one image."""
        self.images += 1
        for kind, detail in facts.problems:
            self.failures.setdefault(kind, Problem()).add(f"{image_id} ({detail})" if detail else image_id)
        if facts.digest is not None:
            self.ids.append(image_id)
            self.digests += facts.digest
            self.looks.append(facts.look)
        if facts.size is not None:
            self.kinds[facts.kind] += 1
            self._widths.append(facts.size[0])
            self._heights.append(facts.size[1])
        _note(self.dark, image_id, facts.dark)
        _note(self.doubtful, image_id, facts.doubtful)
        if facts.pixels is not None:
            self._add_label(image_id, facts.pixels)

    def _add_label(self, image_id: str, pixels: Mapping[int, int]) -> None:
        self.masks += 1
        self.pixels.update(pixels)
        self.images_with.update(pixels.keys())
        _note(self.constant, image_id, max(pixels.values()) >= CONSTANT_SHARE * sum(pixels.values()))
        _note(self.ignored_masks, image_id, set(pixels) == {IGNORE_INDEX})
        _note(self.odd, image_id, any(self.is_odd(class_id) for class_id in pixels))

    def is_odd(self, class_id: int) -> bool:
        """Return whether an id is neither a class's nor the ignored one."""
        return not 0 <= class_id < self._classes and class_id != IGNORE_INDEX

    @property
    def decoded(self) -> int:
        """How many pictures can be decoded."""
        return len(self._widths)

    @property
    def labeled_pixels(self) -> int:
        """How many pixels of labels are not ignored."""
        return self.pixels.total() - self.ignored_pixels

    @property
    def ignored_pixels(self) -> int:
        """How many pixels of labels are ignored."""
        return self.pixels[IGNORE_INDEX]

    @property
    def ignored_share(self) -> float:
        """The share of the labels' pixels that are ignored, 0 .. 1; 0 where there are none."""
        return self.ignored_pixels / max(1, self.pixels.total())

    @property
    def classes_found(self) -> list[int]:
        """The ids that the labels hold, without the ignored one and those that are no class's."""
        return sorted(class_id for class_id in self.pixels if class_id != IGNORE_INDEX and not self.is_odd(class_id))

    @property
    def odd_ids(self) -> list[int]:
        """The ids that the labels hold and that are no class's; -1 and 65536 stand for all below and above."""
        return sorted(class_id for class_id in self.pixels if self.is_odd(class_id))

    def share(self, class_id: int) -> float:
        """Return a class's share of the pixels that are not ignored, 0 .. 1."""
        return self.pixels[class_id] / max(1, self.labeled_pixels)

    def sizes(self, *quantiles: float) -> list[Size]:
        """Return the sizes at some quantiles (0 .. 1) of the pictures in the order of their pixels; none of none."""
        if not self.decoded:
            return []
        widths, heights = self.widths, self.heights
        order = np.lexsort((widths, widths * heights))
        places = [order[round(quantile * (len(order) - 1))] for quantile in quantiles]
        return [(int(widths[place]), int(heights[place])) for place in places]

    @property
    def widths(self) -> np.ndarray:
        """W of each decoded picture, int64."""
        return np.array(self._widths, dtype=np.int64)

    @property
    def heights(self) -> np.ndarray:
        """H of each decoded picture, int64."""
        return np.array(self._heights, dtype=np.int64)

    @property
    def long_sides(self) -> np.ndarray:
        """The longer of W and H of each decoded picture, int64."""
        return np.maximum(self.widths, self.heights)

    def statistics(self, classes: int) -> SplitStatistics:
        """Return the numbers as splits.json has them.

        Args:
            classes: K.
        """
        smallest, largest = self.sizes(0, 1) or [(0, 0), (0, 0)]
        pixels, images_with = (
            [counts[class_id] for class_id in range(classes)] for counts in (self.pixels, self.images_with)
        )
        return SplitStatistics(self.images, smallest, largest, pixels, images_with, self.ignored_pixels)


def _note(group: Problem, image_id: str, concerned: bool) -> None:
    if concerned:
        group.add(image_id)
