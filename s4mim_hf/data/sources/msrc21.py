"""MSRC-21: the original database, whose masks are colours, or a folder with masks of ids.

MSRC_ObjCategImageDatabase_v2/Images/ID.bmp              591 pictures, ID such as 1_1_s
MSRC_ObjCategImageDatabase_v2/GroundTruth/ID_GT.bmp      colours: 21 classes; void, horse and mountain are ignored
TextonBoostSplits/{Train,Validation,Test}.txt            the published split, one ID.bmp a line; an archive of its own

or images/ and masks/ with ids, as `folder` has them. Without the lists the original has no validation images of its
own, and --validation chooses some. With them those of Test.txt are left out; lists of a split of your own may do
without Test.txt, and what they do not name is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.catalog.msrc21 import VOID_COLORS
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Item, Listing, Source
from s4mim_hf.data.sources.color_table import ColorTable, read_color_map
from s4mim_hf.data.sources.folder import open_catalog_folder, require_labels
from s4mim_hf.data.sources.pairs import paired_items
from s4mim_hf.data.splits import read_id_list, without_suffix
from s4mim_hf.errors import InputError, some

_INFO = CATALOG["msrc21"]
_FOLDER = "MSRC_ObjCategImageDatabase_v2"
_LISTS = "TextonBoostSplits"
_CLASSES = Classes(_INFO.classes, _INFO.palette)
_COLORS = ColorTable(
    _CLASSES,
    {
        **{color: class_id for class_id, color in enumerate(_INFO.palette)},
        **dict.fromkeys(VOID_COLORS.values(), IGNORE_INDEX),
    },
)


class Msrc21Source(Source):
    """The original database.

    Args:
        root: the folder with Images/ and GroundTruth/.
        lists: the folder with the published split, or None.
        name: what the data set is called.
    """

    def __init__(self, root: Path, lists: Path | None, name: str) -> None:
        self.root = root
        self.lists = lists
        self.name = name
        self.title = _INFO.title
        self.classes = _CLASSES
        self.protocol = "whole image at original size, mean IoU over 21 classes, void pixels (255) ignored"
        self.note = _INFO.note

    def listing(self) -> Listing:
        """Find the images; see `Source.listing`.

        Raises:
            InputError: GroundTruth/ is missing, a mask has no image, or a list is missing or names an unknown image.
        """
        found = paired_items(self.root / "Images", self.root / "GroundTruth", _FOLDER, ending="_GT")
        notes = [f"{self.root} is the original MSRC; horse and mountain are ignored, as in all 21-class numbers"]
        notes += _INFO.count_notes({"images": len(found)})
        if self.lists is None:
            notes.append(f"there is no {_LISTS} beside it, so validation is no published split")
            return Listing(found, notes=notes)
        items = {item.id: item for item in found}
        parts = {part: self._listed(part, items) for part in ("Train", "Validation")}
        if (self.lists / "Test.txt").is_file():
            parts["Test"] = self._listed("Test", items)
            notes += _INFO.count_notes({f"{part}.txt": len(listed) for part, listed in parts.items()})
            notes.append(
                f"the {len(parts['Test'])} images of Test.txt are left out; published numbers are measured on them"
            )
        else:
            left_out = len(items) - sum(map(len, parts.values()))
            notes.append(f"{self.lists} has no Test.txt, so this is no published split; {left_out} images are left out")
        require_labels(parts["Validation"], "Validation.txt")
        return Listing(parts["Train"], parts["Validation"], notes=notes)

    def read_label(self, item: Item) -> np.ndarray:
        """Read a mask's colours as ids; see `Source.read_label`."""
        assert isinstance(item.label, Path)
        return read_color_map(item.label, _COLORS)

    def _listed(self, part: str, items: dict[str, Item]) -> list[Item]:
        assert self.lists is not None
        path = self.lists / f"{part}.txt"
        named = sorted(without_suffix(entry) for entry in read_id_list(path))
        _require_known(named, items, path)
        return [items[each] for each in named]


def open_msrc21(options: PrepareOptions) -> Source:
    """Open MSRC-21: the original database, or a folder with images/ and masks/.

    Raises:
        InputError: it is neither.
    """
    folder = options.folder()
    for root in (folder, folder / _FOLDER):
        if (root / "GroundTruth").is_dir():
            places = (root / _LISTS, root.parent / _LISTS)
            lists = next((place for place in places if (place / "Train.txt").is_file()), None)
            return Msrc21Source(root, lists, options.name or _INFO.name)
    if (folder / "images").is_dir():
        return open_catalog_folder(options)
    raise InputError(
        f"{folder} is no form of MSRC-21 that is known; expected {_FOLDER} (Images/ and GroundTruth/), or images/ and "
        "masks/ of class ids"
    )


def _require_known(ids: Iterable[str], items: dict[str, Item], path: Path) -> None:
    unknown = [each for each in ids if each not in items]
    if unknown:
        raise InputError(f"{path} names {len(unknown)} images that are not in Images/: {some(unknown)}")
