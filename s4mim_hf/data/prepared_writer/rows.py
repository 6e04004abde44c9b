"""What the writer is given, and what it tells of what it has written.

K is the number of classes; W, H are a picture's width and height as a viewer shows it (EXIF orientation applied).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.prepared.record import SplitStatistics


@dataclass(frozen=True, slots=True)
class Row:
    """One image as it is stored.

    Attributes:
        id: the image's id.
        image: the bytes of the picture file.
        file_name: the picture file's name, for its suffix.
        label: the bytes of the 8-bit PNG class map, H x W; None in the unlabelled split.
        width: W.
        height: H.
        pixels: how many pixels of the label each class 0 .. K-1 has, and then how many are ignored (K + 1 numbers);
            None where there is no label.
    """

    id: str
    image: bytes
    file_name: str
    label: bytes | None = None
    width: int = 0
    height: int = 0
    pixels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Description:
    """What is written beside the rows.

    Attributes:
        name: what the data set is called.
        title: its name in prose, for the card.
        classes: class names in the order of their ids.
        palette: a colour for each.
        ignore_index: the id of ignored pixels in the written labels.
        protocol: how the data is evaluated.
        note: licence and citation, for the card.
        origin: how the splits were made: source form, seed, amounts asked for, where validation is from.
        max_side: the longest side that a stored picture may have; None: pictures are stored as they were.
        made_by: the command that wrote it.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    ignore_index: int
    protocol: str
    note: str
    origin: Mapping[str, Any]
    max_side: int | None = None
    made_by: str = "scripts/prepare_data.py"

    @property
    def protocol_as_stored(self) -> str:
        """How the data is evaluated: "original size" is not that of pictures that were shrunk."""
        if self.max_side is None:
            return self.protocol
        return f"{self.protocol}; pictures above {self.max_side} pixels a side were shrunk to that"


@dataclass(frozen=True)
class Written:
    """What a prepared folder holds.

    Attributes:
        split_hash: sha256 over the ids of each split.
        splits: statistics by split, for each split that is not empty.
    """

    split_hash: str
    splits: Mapping[str, SplitStatistics]
