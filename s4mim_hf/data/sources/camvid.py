"""CamVid in the three forms that are about, always with SegNet's split and 11 classes.

SegNet's copy, 480x360       train/ID.png trainannot/ID.png (0 .. 10, 11 = void), val/, test/; train.txt ... list them
the original, 960x720        701_StillsRaw_full/ID.png LabeledApproved_full/ID_L.png (32 colours)
a plain folder               images/{train,val}/ID.jpg masks/{train,val}/ID.png (0 .. 10, 255 = void)

An image's id is train/ID or val/ID in all of them, so that one draw labels the same frames in each. The original has no
split; SegNet's lists cut it by sequence and frame, which `split_of` does: test is all of Seq05VD and 0001TP from frame
8550 on, val is 0016E5 from frame 7959 to 8159 (15 pictures a second, where all else has one), train is the rest.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.catalog.camvid import ORIGINAL_CLASSES
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Item, Listing, Source
from s4mim_hf.data.sources.color_table import ColorTable, read_color_map
from s4mim_hf.data.sources.folder import open_catalog_folder, require_labels
from s4mim_hf.data.sources.pairs import paired_items
from s4mim_hf.data.sources.reading import read_class_map
from s4mim_hf.errors import InputError

_INFO = CATALOG["camvid"]
_SPLITS = ("train", "val", "test")
_SEGNET_VOID = 11
_ORIGINAL_IMAGES = "701_StillsRaw_full"
# The archive of labels has no folder of its own; this is its name, and what tutorials call the folder.
_ORIGINAL_LABELS = ("LabeledApproved_full", "labels")
_CLASSES = Classes(_INFO.classes, _INFO.palette)
_ORIGINAL_COLORS = ColorTable(
    _CLASSES,
    {
        color: IGNORE_INDEX if group is None else _INFO.classes.index(group)
        for color, group in ORIGINAL_CLASSES.values()
    },
)
_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")


class _PublishedCamvid(Source):
    """A published form: train and val of SegNet's split are used, test is left out.

    Args:
        root: the folder of the form.
        name: what the data set is called.
    """

    title = _INFO.title
    form: str

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.classes = _CLASSES
        self.protocol = _INFO.protocol
        self.note = _INFO.note

    @abstractmethod
    def find(self) -> dict[str, Sequence[Item]]:
        """Return the items of train, val and test."""

    def listing(self) -> Listing:
        """Find the images of train and val; see `Source.listing`.

        Raises:
            InputError: a folder is missing or empty, an image of val has no label, or a file is no frame of CamVid.
        """
        found = self.find()
        for split in ("train", "val"):
            if not found[split]:
                raise InputError(f"{self.root} has no images of CamVid's {split}; unpack the data set again")
        require_labels(found["val"], "CamVid's val")
        counts = {split: len(found[split]) for split in _SPLITS}
        left_out = f"the {counts['test']} images of test are left out; many published numbers are measured on them"
        notes = [f"{self.root} is {self.form}", *_INFO.count_notes(counts), left_out]
        return Listing(found["train"], found["val"], notes=notes)


class SegNetCamvid(_PublishedCamvid):
    """The copy in SegNet's tutorial, at half the size."""

    form = "SegNet's copy of CamVid (480x360); its id 11, void, is ignored"

    def find(self) -> dict[str, Sequence[Item]]:
        """Return the items by the folders that they are in."""
        return {
            split: paired_items(self.root / split, self.root / f"{split}annot", "SegNet's copy of CamVid", f"{split}/")
            for split in _SPLITS
        }

    def read_label(self, item: Item) -> np.ndarray:
        """Read ids, 11 as ignored; see `Source.read_label`."""
        assert isinstance(item.label, Path)
        ids = read_class_map(item.label)
        return np.where(ids == _SEGNET_VOID, IGNORE_INDEX, ids)


class OriginalCamvid(_PublishedCamvid):
    """All 701 labelled frames as they were published."""

    title = "CamVid (SegNet's split, 960x720, 11 classes of 32)"
    form = "the original CamVid (960x720); its 32 classes are grouped into 11, its frames split as SegNet's lists are"

    def find(self) -> dict[str, Sequence[Item]]:
        """Return the items by their sequences and frames."""
        labels = next((self.root / each for each in _ORIGINAL_LABELS if (self.root / each).is_dir()), None)
        if labels is None:
            raise InputError(
                f"{self.root} has {_ORIGINAL_IMAGES}/ but no {_ORIGINAL_LABELS[0]}/ with the labels (ID_L.png); "
                f"unpack {_ORIGINAL_LABELS[0]}.zip there"
            )
        found: dict[str, list[Item]] = {split: [] for split in _SPLITS}
        for item in paired_items(self.root / _ORIGINAL_IMAGES, labels, "the original CamVid", ending="_L"):
            split = split_of(item.id)
            found[split].append(Item(f"{split}/{item.id}", item.image, item.label))
        return {**found}

    def read_label(self, item: Item) -> np.ndarray:
        """Read colours as ids of the 11 classes; see `Source.read_label`."""
        assert isinstance(item.label, Path)
        return read_color_map(item.label, _ORIGINAL_COLORS)


def open_camvid(options: PrepareOptions) -> Source:
    """Open CamVid, whichever form --source has.

    Raises:
        InputError: it has none of the three.
    """
    folder, name = options.folder(), options.name or _INFO.name
    for root in (folder, folder / "CamVid"):
        if (root / "trainannot").is_dir():
            return SegNetCamvid(root, name)
        if (root / _ORIGINAL_IMAGES).is_dir():
            return OriginalCamvid(root, name)
    if (folder / "images").is_dir():
        return open_catalog_folder(options)
    raise InputError(
        f"{folder} is no form of CamVid that is known; expected SegNet's train/ and trainannot/, the original's "
        f"{_ORIGINAL_IMAGES}/ and {_ORIGINAL_LABELS[0]}/, or images/ and masks/"
    )


def split_of(frame: str) -> str:
    """Return "train", "val" or "test" for a frame such as "0016E5_07959".

    Raises:
        InputError: no sequence of CamVid has such a frame.
    """
    match = _FRAME.fullmatch(frame)
    if match is None:
        raise InputError(f"{frame!r} is no frame of CamVid, such as 0016E5_07959; take the file away")
    sequence, number = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= number <= 8159 else "train"
