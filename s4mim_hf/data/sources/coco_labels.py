"""COCO's labels in the three forms in which people have them.

H, W: height and width of a label map.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog.coco import COCO, COCO_STUFF, STUFF_CLASSES
from s4mim_hf.data.catalog.info import DatasetInfo
from s4mim_hf.data.sources.base import Reference
from s4mim_hf.data.sources.coco_instances import InstancesFile
from s4mim_hf.data.sources.folder import require_folder
from s4mim_hf.data.sources.id_tables import IdTable
from s4mim_hf.data.sources.reading import read_class_map
from s4mim_hf.errors import InputError, some

TRAIN, VAL = "train2017", "val2017"
# A file holds category id - 1.
_STUFF = IdTable(
    {category - 1: class_id for category, class_id in STUFF_CLASSES.items()},
    "those of the 171 categories of COCO-Stuff (category id - 1)",
)


def image_id(split: str, name: str) -> str:
    """Return the id of the picture of this name: "train2017/000000000009"."""
    return f"{split}/{name.rsplit('.', 1)[0]}"


class Labels(ABC):
    """Labels in one form.

    Attributes:
        info: the classes that they are of.
        description: what they are and how they are read, after "labels are".
    """

    info: DatasetInfo
    description: str

    @abstractmethod
    def find(self, names: Mapping[str, Sequence[str]]) -> dict[str, Reference]:
        """Return where the label is of each image that has one, by the image's id.

        Args:
            names: the file names of the pictures by split, train2017 and val2017.

        Raises:
            InputError: the labels cannot be read, or some have no image.
        """

    @abstractmethod
    def read(self, label: Reference) -> np.ndarray:
        """Return the label map, int64 (H, W), as `Source.read_label` does."""

    def depends_on(self) -> Sequence[Path]:
        """Return files that labels are in and that no label names; see `Source.depends_on`."""
        return ()


class StuffMaps(Labels):
    """PNGs of things and stuff: category id - 1, which has gaps, and 255.

    Args:
        folder: the folder that holds train2017/ and val2017/.
    """

    info = COCO_STUFF

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = f"PNGs of {folder}, whose ids 0 to 181 become the 171 classes of COCO-Stuff"

    def find(self, names: Mapping[str, Sequence[str]]) -> dict[str, Reference]:
        """Pair PNGs and pictures of a split by their names."""
        found: dict[str, Reference] = {}
        for split, pictures in names.items():
            found |= _paired(self.folder / split, {image_id(split, name): name for name in pictures})
        return found

    def read(self, label: Reference) -> np.ndarray:
        """Read a PNG and close the gaps."""
        assert isinstance(label, Path)
        return _STUFF.apply(read_class_map(label))


class Masks(Labels):
    """PNGs of both splits in one folder, of classes 0 .. 80 and 255.

    Args:
        folder: the folder.
    """

    info = COCO

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = f"PNGs of {folder}, with the ids 0 to 80 of the 81 classes"

    def find(self, names: Mapping[str, Sequence[str]]) -> dict[str, Reference]:
        """Pair PNGs and pictures of all splits by their names."""
        return _paired(self.folder, {image_id(split, name): name for split, listed in names.items() for name in listed})

    def read(self, label: Reference) -> np.ndarray:
        """Read a PNG."""
        assert isinstance(label, Path)
        return read_class_map(label)


class Instances(Labels):
    """Class maps drawn from the instances files of COCO's annotations.

    Args:
        path: the file of train2017; that of val2017 lies beside it and has the same name but for the split.
    """

    info = COCO

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = (
            f"drawn from {path} (crowds first, then the largest instances; images without any are background)"
        )
        self._files: list[InstancesFile] = []

    def find(self, names: Mapping[str, Sequence[str]]) -> dict[str, Reference]:
        """Read the files; a label is the number of its image, counted through both files."""
        found: dict[str, Reference] = {}
        self._files = []
        for split, pictures in names.items():
            path = self.path.with_name(self.path.name.replace(TRAIN, split))
            if split != TRAIN and (path == self.path or not path.is_file()):
                expected = path.name if path != self.path else f"instances_{split}.json"
                raise InputError(
                    f"there are images in {split}/, but no {expected} beside {self.path}; add it (both files are in "
                    f"annotations_trainval2017.zip), or take {split}/ away"
                )
            file = InstancesFile(path)
            missing = file.rows.keys() - set(pictures)
            if missing:
                raise InputError(
                    f"{path} lists {len(missing)} images that are not in {split}/: {some(sorted(missing))}; unpack all "
                    f"of {split}.zip, or give a file of your images with --annotations"
                )
            start = sum(len(each.rows) for each in self._files)
            found |= {image_id(split, name): start + row for name, row in file.rows.items()}
            self._files.append(file)
        return found

    def read(self, label: Reference) -> np.ndarray:
        """Draw the class map of an image."""
        assert isinstance(label, int)
        row = label
        for file in self._files:
            if row < len(file.rows):
                return file.read(row)
            row -= len(file.rows)
        raise AssertionError(f"no file has the image {label}")

    def depends_on(self) -> Sequence[Path]:
        """Return the files that `find` has read."""
        return [file.path for file in self._files]


def _paired(folder: Path, pictures: Mapping[str, str]) -> dict[str, Reference]:
    """Return the PNG of each picture that has one, by the picture's id.

    Args:
        folder: where the PNGs are.
        pictures: file names by id.

    Raises:
        InputError: there is no such folder, or a PNG has no picture.
    """
    require_folder(folder, "labels are expected there")
    # Tools that make PNGs of training ids leave them beside the published ones.
    names = {name for name in os.listdir(folder) if name.endswith(".png") and not name.startswith(".")}
    names = {name for name in names if not name.endswith("_labelTrainIds.png")}
    wanted = {each: f"{name.rsplit('.', 1)[0]}.png" for each, name in pictures.items()}
    without_image = sorted(names - set(wanted.values()))
    if without_image:
        raise InputError(
            f"{len(without_image)} labels of {folder} have no image: {some(without_image)}; unpack all images, or take "
            "them out"
        )
    return {each: folder / name for each, name in wanted.items() if name in names}
