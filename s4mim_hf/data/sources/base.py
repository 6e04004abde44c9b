"""What a source of raw data is: a list of images, how to read one, and how to read its label map.

A source knows one published or usual layout. It chooses no splits beyond those that the layout itself has, writes
nothing, and opens no picture until it is asked for one.

H, W: a picture's height and width. Label maps hold class ids 0 .. K-1 and 255 where a pixel is ignored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.splits import without_suffix

IGNORE_INDEX = 255
# A file, or the number of a row of a table or of a record in an annotation file.
Reference = Path | int


class Item:
    """One image, and its label where it has one.

    Kept as text, because there may be hundreds of thousands: a `Path` takes five times the memory.

    Args:
        image_id: unique in its source, with forward slashes and without suffix, such as "train/0016E5_07959".
        image: where the picture is; a text is the path of a file.
        label: where its label is, likewise; None: it has none.

    Attributes:
        id: as given.
    """

    __slots__ = ("_image", "_label", "id")

    def __init__(self, image_id: str, image: Reference | str, label: Reference | str | None = None) -> None:
        self.id = image_id
        self._image, self._label = (str(each) if isinstance(each, Path) else each for each in (image, label))

    @property
    def image(self) -> Reference:
        """Where the picture is."""
        assert self._image is not None
        return Path(self._image) if isinstance(self._image, str) else self._image

    @property
    def label(self) -> Reference | None:
        """Where its label is; None: it has none."""
        return Path(self._label) if isinstance(self._label, str) else self._label


@dataclass(frozen=True)
class Listing:
    """The images of a source.

    Attributes:
        training: all images that are not kept for validation, sorted by id.
        validation: the images of the layout's own validation split, all with labels; None where it has none.
        labelable: ids of the training images that a labelled draw may choose; None: all that have a label.
        notes: what a person should know, in sentences.
    """

    training: Sequence[Item]
    validation: Sequence[Item] | None = None
    labelable: frozenset[str] | None = None
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Classes:
    """Class names in the order of their ids 0 .. K-1, and their colours where they are known."""

    names: tuple[str, ...]
    palette: tuple[Color, ...] | None = None


class SampleError(ValueError):
    """A picture or label that cannot be used.

    Args:
        kind: the problem, which follows "images" or "masks": "masks have another size than their image".
        detail: what is special about this file, as "640x480 for a picture of 480x640"; may be empty.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


class Source(ABC):
    """One form in which images and labels lie.

    Attributes:
        name: what the data set is called unless --name says otherwise.
        title: its name in prose, for the data card.
        classes: the classes; None where nothing names them (the ids found are then named in the error).
        protocol: how the data is evaluated, in words.
        note: licence and citation, or an empty text.
    """

    name: str
    title: str
    classes: Classes | None
    protocol: str
    note: str = ""

    @abstractmethod
    def listing(self) -> Listing:
        """Find the images. Opens no picture.

        Raises:
            InputError: a folder or file of the layout is missing, two images share an id, or there are none.
        """

    @abstractmethod
    def read_label(self, item: Item) -> np.ndarray:
        """Return an item's label map as its file has it: int64 (H, W), class ids 0 .. K-1 and 255 = ignored.

        An id that is no class's stays as it is; whoever calls refuses it, naming the file. EXIF orientation of the
        *picture* is not applied here (`s4mim_hf.data.sources.reading.upright_label` does that).

        Raises:
            SampleError: the label cannot be read.
        """

    def read_image(self, item: Item) -> bytes:
        """Return the bytes of the original picture file.

        Raises:
            SampleError: there is no such file, or it cannot be read.
        """
        try:
            return Path(item.image).read_bytes() if isinstance(item.image, Path) else self._no_file(item)
        except OSError as error:
            raise SampleError("images cannot be read", error.strerror or str(error)) from None

    def file_name(self, item: Item) -> str:
        """Return the picture file's name, for its suffix."""
        return item.image.name if isinstance(item.image, Path) else f"{item.id.rsplit('/', 1)[-1]}.png"

    def depends_on(self) -> Sequence[Path]:
        """Return files that no item names and that change what the items are: an interrupted call starts anew then."""
        return ()

    def id_of_entry(self, entry: str) -> str:
        """Return what an entry of an id list means here: an id, the end of one, or a path that ends in one.

        Args:
            entry: a line of the list, or IMAGE of "IMAGE MASK". Sources whose ids are shorter than their files' names
                cut the rest off: "leftImg8bit/train/ulm/ulm_0_leftImg8bit.png" is "ulm/ulm_0" in Cityscapes.
        """
        return without_suffix(entry)

    def _no_file(self, item: Item) -> bytes:
        raise NotImplementedError(f"{type(self).__name__} has an image that is no file ({item.id})")
