"""Cityscapes as its archives unpack, or with the training ids that semi-supervised work distributes.

SOURCE/leftImg8bit/{train,val}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png     the pictures
SOURCE/gtFine/{train,val}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png      ids 0 .. 33, of which 19 are classes
SOURCE/gtFine/{train,val}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelTrainIds.png ids 0 .. 18, and 255
SOURCE/leftImg8bit/train_extra/CITY/...                                     pictures without fine labels

An image's id is "CITY/CITY_SEQUENCE_FRAME". For --group-by, "^[^/]+" keeps a city on one side, and
"^(.*)_[0-9]+$" a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog.cityscapes import CITYSCAPES, TRAIN_IDS
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Item, Listing, Source
from s4mim_hf.data.sources.folder import require_folder, require_labels
from s4mim_hf.data.sources.id_tables import IdTable
from s4mim_hf.data.sources.reading import read_class_map
from s4mim_hf.errors import InputError, some

_IMAGE = "_leftImg8bit.png"
_ALL_IDS = "_gtFine_labelIds.png"
_TRAIN_IDS = "_gtFine_labelTrainIds.png"
_LAYOUT = "--source is the folder that holds leftImg8bit/ and gtFine/"
_CLASSES = IdTable(
    {label_id: IGNORE_INDEX if train_id is None else train_id for label_id, train_id in enumerate(TRAIN_IDS)},
    f"0 to {len(TRAIN_IDS) - 1} (labelIds files)",
)


class CityscapesSource(Source):
    """Fine labels of train and val; the images of train_extra, where they are there, without labels.

    The images of test are left out: their labels are not published (gtFine/test holds empty ones).

    Args:
        folder: the folder that holds leftImg8bit/ and gtFine/.
        name: what the data set is called.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.title = CITYSCAPES.title
        self.classes = Classes(CITYSCAPES.classes, CITYSCAPES.palette)
        self.protocol = CITYSCAPES.protocol
        self.note = CITYSCAPES.note

    def listing(self) -> Listing:
        """Find the images and labels; see `Source.listing`.

        Raises:
            InputError: a folder is missing, there are no images or no labels, a label has no image, an image of val
                has no label, or two images have the same id.
        """
        pictures, labels = self.folder / "leftImg8bit", self.folder / "gtFine"
        for folder in (pictures, labels, pictures / "train", labels / "train"):
            require_folder(folder, _LAYOUT)
        training = self._split("train")
        if all(item.label is None for item in training):
            raise _no_labels(labels / "train")
        validation = self._split("val") if (pictures / "val").is_dir() else None
        require_labels(validation or [], str(pictures / "val"))
        extra = [Item(image_id, path) for image_id, path in _by_id(pictures / "train_extra", _IMAGE).items()]
        _require_distinct([*training, *(validation or []), *extra])
        notes = self._notes(training, validation, len(extra))
        return Listing(sorted([*training, *extra], key=lambda item: item.id), validation, notes=notes)

    def read_label(self, item: Item) -> np.ndarray:
        """Read an item's label, and take the 34 ids to the 19 classes; see `Source.read_label`."""
        assert isinstance(item.label, Path)
        ids = read_class_map(item.label)
        return ids if item.label.name.endswith(_TRAIN_IDS) else _CLASSES.apply(ids)

    def id_of_entry(self, entry: str) -> str:
        """Return the id that a path of leftImg8bit/ means; see `Source.id_of_entry`."""
        return super().id_of_entry(entry).removesuffix(_IMAGE.removesuffix(".png"))

    def _split(self, split: str) -> list[Item]:
        """Return the images of a split by id, with the labels that they have: of all 34 ids where there are both."""
        images = _by_id(self.folder / "leftImg8bit" / split, _IMAGE)
        if not images:
            where = self.folder / "leftImg8bit" / split
            raise InputError(f"there are no images in {where}; expected CITY/NAME{_IMAGE} below it")
        ground_truth = self.folder / "gtFine" / split
        labels = {**_by_id(ground_truth, _TRAIN_IDS), **_by_id(ground_truth, _ALL_IDS)}
        without_image = sorted(set(labels) - set(images))
        if without_image:
            raise InputError(
                f"{len(without_image)} labels of {ground_truth} have no image: {some(without_image)}; unpack all of "
                f"leftImg8bit/{split}, or take them out"
            )
        return [Item(image_id, images[image_id], labels.get(image_id)) for image_id in sorted(images)]

    def _notes(self, training: list[Item], validation: list[Item] | None, extra: int) -> list[str]:
        """Say which labels are read, which images have none, and what is left out."""
        labels = [item.label for item in [*training, *(validation or [])] if isinstance(item.label, Path)]
        all_ids = sum(label.name.endswith(_ALL_IDS) for label in labels)
        notes = []
        if all_ids:
            notes.append(f"{all_ids} labels are read from labelIds files, whose 34 ids become the 19 classes")
        if all_ids < len(labels):
            notes.append(f"{len(labels) - all_ids} labels are read from labelTrainIds files")
        bare = [item.id for item in training if item.label is None]
        if bare:
            notes.append(f"{len(bare)} of {len(training)} images of train have no label: {some(bare)}")
        if extra:
            notes.append(
                f"{extra} images of leftImg8bit/train_extra are added without labels; published splits have none of "
                "them: keep them out with --unlabeled-ids"
            )
        test = len(_by_id(self.folder / "leftImg8bit" / "test", _IMAGE))
        if test:
            notes.append(f"{test} images of leftImg8bit/test are left out; their labels are not published")
        found = {"train": len(training)} | ({} if validation is None else {"val": len(validation)})
        return [*notes, *CITYSCAPES.count_notes(found)]


def open_cityscapes(options: PrepareOptions) -> Source:
    """Open Cityscapes.

    Raises:
        InputError: the folder is missing.
    """
    return CityscapesSource(options.folder(), options.name or CITYSCAPES.name)


def _by_id(folder: Path, ending: str) -> Mapping[str, Path]:
    """Return the files CITY/NAME + `ending` of a split by their id CITY/NAME; none where there is no such folder."""
    if not folder.is_dir():
        return {}
    cities = [city for city in folder.iterdir() if city.is_dir() and not city.name.startswith(".")]
    return {
        f"{city.name}/{path.name.removesuffix(ending)}": path
        for city in cities
        for path in city.iterdir()
        if path.name.endswith(ending) and not path.name.startswith(".")
    }


def _require_distinct(items: list[Item]) -> None:
    """Refuse an image that is in two splits."""
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(item.id, item)
        if other is not item:
            raise InputError(f"{other.image} and {item.image} are both {item.id!r}; keep one of them")


def _no_labels(folder: Path) -> InputError:
    return InputError(
        f"no image of train has a label in {folder}; expected CITY/NAME{_ALL_IDS} (gtFine_trainvaltest.zip) or "
        f"CITY/NAME{_TRAIN_IDS} below it"
    )
