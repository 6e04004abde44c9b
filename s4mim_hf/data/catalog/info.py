"""What is known of a data set before any file of it is read, and the colours of those that have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Color = tuple[int, int, int]


@dataclass(frozen=True)
class LabelStatistics:
    """How often each class occurs, counted once over real files.

    Attributes:
        counted: what was counted, in words.
        images: how many label maps that were.
        pixels: pixels of class 0 .. K-1, then of ignored ones.
        images_with: label maps that hold class 0 .. K-1, then those that hold ignored pixels.
    """

    counted: str
    images: int
    pixels: tuple[int, ...]
    images_with: tuple[int, ...]

    def shares(self) -> tuple[float, ...]:
        """Return the share of each class 0 .. K-1 in the pixels that are not ignored; they sum to 1."""
        labeled = sum(self.pixels[:-1])
        return tuple(count / labeled for count in self.pixels[:-1])


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before any file of it is read.

    Attributes:
        name: the name on the command line and of the recipe.
        title: the name in prose.
        classes: class names; class k is id k of the prepared masks.
        palette: the usual colour of each class, (R, G, B) in 0 .. 255.
        protocol: how published numbers are measured, in words.
        note: licence and citation.
        reference: where classes, ids and protocol are from.
        published_counts: how many images each published split has.
        statistics: how often each class occurs, where it could be counted; None: nobody of this project has.
        ignore_index: the id of pixels that no loss and no score counts.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    protocol: str
    note: str
    reference: str
    published_counts: Mapping[str, int] = field(default_factory=dict)
    statistics: LabelStatistics | None = None
    ignore_index: int = 255

    def __post_init__(self) -> None:
        assert len(self.classes) == len(self.palette), "one colour per class"
        if self.statistics is not None:
            expected = len(self.classes) + 1
            assert len(self.statistics.pixels) == len(self.statistics.images_with) == expected, "one count per class"

    def count_notes(self, found: Mapping[str, int]) -> list[str]:
        """Return a sentence for each split of `found` that has another number of images than the published one.

        Args:
            found: images by the name of their split; names that are not in `published_counts` are passed over.
        """
        return [
            f"{split} has {count} images where the published {self.title} has {self.published_counts[split]}; "
            "is a part of it missing?"
            for split, count in found.items()
            if count != self.published_counts.get(split, count)
        ]


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Return Pascal VOC's colours for ids 0 .. num_classes-1 (class 0 is black).

    The bits of the id are dealt to R, G, B in turn, filling each channel from its highest bit.

    Raises:
        ValueError: `num_classes` is not in 0 .. 256, where colours would repeat.
    """
    if not 0 <= num_classes <= 256:
        raise ValueError(f"there are 256 distinct colours, but {num_classes} classes were asked for")
    palette = []
    for class_id in range(num_classes):
        red = green = blue = 0
        for position in range(8):
            bits = class_id >> (3 * position)
            red |= (bits & 1) << (7 - position)
            green |= ((bits >> 1) & 1) << (7 - position)
            blue |= ((bits >> 2) & 1) << (7 - position)
        palette.append((red, green, blue))
    return tuple(palette)
