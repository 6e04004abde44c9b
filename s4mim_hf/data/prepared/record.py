"""What a prepared folder is made of, and what its splits.json says of it.

README.md                              data card, whose header names the splits
classes.json                           {"id2label", "ignore_index", "palette"}
splits.json                            ids of each split, their hash, how they were made, statistics, a hash per shard
data/SPLIT-00000-of-00001.parquet      columns id, image, label; the unlabelled split has no label

K is the number of classes; W, H are a picture's width and height as a viewer shows it (EXIF orientation applied).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import datasets

SPLITS = ("labeled", "unlabeled", "validation")
# Folders of this version that were written before there were statistics and hashes lack them, and are read without.
FORMAT_VERSION = 1
SYNTHETIC = "synthetic"
SYNTHETIC_PROTOCOL = "whole image at original size, mean IoU over all classes, outlines (255) ignored"

Size = tuple[int, int]
"""(W, H)."""


def features_of(split: str, decode: bool = False) -> datasets.Features:
    """Return the columns of a split; the unlabelled one has no label.

    Args:
        split: "labeled", "unlabeled" or "validation".
        decode: whether rows give pictures or their undecoded bytes.
    """
    columns = {"id": datasets.Value("string"), "image": datasets.Image(decode=decode)}
    if split != "unlabeled":
        columns["label"] = datasets.Image(decode=decode)
    return datasets.Features(columns)


@dataclass
class SplitStatistics:
    """One split in numbers.

    Attributes:
        images: how many.
        smallest: size of the image with the fewest pixels; (0, 0) where there are no images.
        largest: of the one with the most.
        pixels: labelled pixels of each class 0 .. K-1; zeros where nothing is labelled.
        images_with: how many images hold each class.
        ignored: pixels of labels that are ignored.
    """

    images: int = 0
    smallest: Size = (0, 0)
    largest: Size = (0, 0)
    pixels: list[int] = field(default_factory=list)
    images_with: list[int] = field(default_factory=list)
    ignored: int = 0

    @classmethod
    def empty(cls, classes: int) -> SplitStatistics:
        """Return the statistics of no image, for K `classes`."""
        return cls(pixels=[0] * classes, images_with=[0] * classes)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SplitStatistics:
        """Return what `to_dict` gave."""
        smallest, largest = ((int(content[key][0]), int(content[key][1])) for key in ("smallest", "largest"))
        pixels, images_with = ([int(count) for count in content[key]] for key in ("pixels", "images_with"))
        return cls(int(content["images"]), smallest, largest, pixels, images_with, int(content["ignored"]))

    def to_dict(self) -> dict[str, Any]:
        """Return everything in a form that JSON can say."""
        return asdict(self)

    def add(self, size: Size, pixels: Sequence[int] | None) -> None:
        """Count one image.

        Args:
            size: (W, H).
            pixels: of each class 0 .. K-1, and then those ignored (K + 1 numbers); None: it has no label.
        """
        counts = list(pixels) if pixels is not None else [0] * (len(self.pixels) + 1)
        held = [int(count > 0) for count in counts[:-1]]
        self.merge(SplitStatistics(1, size, size, counts[:-1], held, counts[-1]))

    def merge(self, other: SplitStatistics) -> None:
        """Count all that `other` has counted, of as many classes."""
        if other.images:
            sizes = [other.smallest, other.largest, *([self.smallest, self.largest] if self.images else [])]
            self.smallest, *_, self.largest = sorted(sizes, key=lambda size: (size[0] * size[1], size))
        self.images += other.images
        self.pixels = [ours + theirs for ours, theirs in zip(self.pixels, other.pixels, strict=True)]
        self.images_with = [ours + theirs for ours, theirs in zip(self.images_with, other.images_with, strict=True)]
        self.ignored += other.ignored

    @property
    def ids(self) -> frozenset[int]:
        """The classes that some label holds."""
        return frozenset(class_id for class_id, count in enumerate(self.pixels) if count)


@dataclass(frozen=True)
class ShardRecord:
    """One parquet file as it was written.

    Attributes:
        file: its path in the prepared folder.
        rows: how many images it has.
        bytes: its size.
        sha256: of its content, in hex.
    """

    file: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ShardRecord:
        """Return what splits.json says of a shard."""
        return cls(str(content["file"]), int(content["rows"]), int(content["bytes"]), str(content["sha256"]))

    def to_dict(self) -> dict[str, Any]:
        """Return everything in a form that JSON can say."""
        return asdict(self)
