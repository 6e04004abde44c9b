"""COCO 2017 with labels in one of three forms.

SOURCE/train2017/*.jpg, val2017/*.jpg            the pictures, or the same below SOURCE/images/
SOURCE/unlabeled2017/*.jpg                       pictures without labels, where they are there

stuff: SOURCE/stuffthingmaps/{train2017,val2017}/*.png, or the same below annotations/: things and stuff, 171 classes
instances: SOURCE/annotations/instances_{train2017,val2017}.json: 80 things and background, drawn by `coco_instances`
masks: SOURCE/masks/*.png of both splits: class ids 0 .. 80, as semi-supervised work (UniMatch) distributes them

An image's id is "train2017/000000000009".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import Classes, Item, Listing, Reference, Source
from s4mim_hf.data.sources.coco_labels import TRAIN, VAL, Instances, Labels, Masks, StuffMaps, image_id
from s4mim_hf.data.sources.folder import require_folder, require_labels
from s4mim_hf.errors import InputError, some

UNLABELED, TEST = "unlabeled2017", "test2017"
_STUFF_FOLDERS = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations")


class CocoSource(Source):
    """COCO's images of 2017 with labels of one form.

    Args:
        folder: what the user gave.
        name: what the data set is called; None: as the classes are.
        labels: the labels.
    """

    def __init__(self, folder: Path, name: str | None, labels: Labels) -> None:
        self.folder = folder
        self.labels = labels
        self.name = name or labels.info.name
        self.title = labels.info.title
        self.classes = Classes(labels.info.classes, labels.info.palette)
        self.protocol = labels.info.protocol
        self.note = labels.info.note

    def listing(self) -> Listing:
        """Find the images and labels; see `Source.listing`.

        Raises:
            InputError: train2017/ is missing or empty, no image has a label, a label has no image, an image of val2017/
                has no label, or the annotations cannot be read.
        """
        root = _image_root(self.folder)
        splits = [split for split in (TRAIN, VAL) if split == TRAIN or (root / split).is_dir()]
        names = {split: _pictures(root / split) for split in splits}
        labels = self.labels.find(names)
        items = {split: _items(root, split, names[split], labels) for split in splits}
        if not labels.keys() & {item.id for item in items[TRAIN]}:
            raise InputError(f"no image of {root / TRAIN} has a label; labels are {self.labels.description}")
        require_labels(items.get(VAL, []), str(root / VAL))
        unlabeled = _items(root, UNLABELED, _pictures(root / UNLABELED), {}) if (root / UNLABELED).is_dir() else []
        return Listing([*items[TRAIN], *unlabeled], items.get(VAL), notes=self._notes(root, items, unlabeled))

    def read_label(self, item: Item) -> np.ndarray:
        """Read or draw an item's label; see `Source.read_label`."""
        assert item.label is not None
        return self.labels.read(item.label)

    def depends_on(self) -> Sequence[Path]:
        """Return the instances files, where labels are drawn from them; see `Source.depends_on`."""
        return self.labels.depends_on()

    def _notes(self, root: Path, items: Mapping[str, Sequence[Item]], unlabeled: Sequence[Item]) -> list[str]:
        """Say which labels are read, which images have none, and what is left out."""
        notes = [f"labels are {self.labels.description}"]
        bare = [item.id for item in items[TRAIN] if item.label is None]
        if bare:
            notes.append(f"{len(bare)} of {len(items[TRAIN])} images of {TRAIN} have no label: {some(bare)}")
        if unlabeled:
            notes.append(
                f"{len(unlabeled)} images of {UNLABELED} are added without labels; published splits have none of them: "
                "keep them out with --unlabeled-ids"
            )
        if (root / TEST).is_dir():
            notes.append(f"{TEST} is left out; its labels are not published")
        return notes + self.labels.info.count_notes({split: len(listed) for split, listed in items.items()})


def open_coco(options: PrepareOptions) -> Source:
    """Open COCO with the labels that --annotations names, or else those that are there.

    Raises:
        InputError: the folder is missing, or has no labels or several forms of them.
    """
    folder = options.folder()
    require_folder(_image_root(folder) / TRAIN, f"--source of 'coco' holds {TRAIN}/, {VAL}/ and labels")
    if options.annotations is not None:
        return CocoSource(folder, options.name, _labels_at(options.annotations))
    found = [
        *(StuffMaps(folder / name) for name in _STUFF_FOLDERS if (folder / name / TRAIN).is_dir()),
        *(Instances(path) for path in [folder / "annotations" / f"instances_{TRAIN}.json"] if path.is_file()),
        *(Masks(folder / name) for name in ["masks"] if (folder / name).is_dir()),
    ]
    if not found:
        raise InputError(
            f"{folder} has no labels that are known: stuffthingmaps/{TRAIN}/ (171 classes), "
            f"annotations/instances_{TRAIN}.json (81 classes) or masks/ (81 classes); unpack one of them there, or "
            "give it with --annotations"
        )
    if len(found) > 1:
        forms = "; ".join(labels.description for labels in found)
        raise InputError(f"{folder} has labels of {len(found)} forms ({forms}); choose one with --annotations PATH")
    return CocoSource(folder, options.name, found[0])


def _labels_at(path: Path) -> Labels:
    """Return the labels that --annotations names: an instances file, or a folder of PNGs or of instances files."""
    instances = path / f"instances_{TRAIN}.json"
    if path.is_file():
        return Instances(path)
    if (path / TRAIN).is_dir():
        return StuffMaps(path)
    if instances.is_file():
        return Instances(instances)
    if path.is_dir() and any(name.endswith(".png") for name in os.listdir(path)):
        return Masks(path)
    found = "holds none of them" if path.is_dir() else "does not exist"
    raise InputError(
        f"--annotations of 'coco' is instances_{TRAIN}.json, a folder with {TRAIN}/ of PNGs of things and stuff, or a "
        f"folder of masks of 81 classes, but {path} {found}"
    )


def _image_root(folder: Path) -> Path:
    """Return the folder that holds train2017/: `folder`, or images/ in it."""
    return folder / "images" if (folder / "images" / TRAIN).is_dir() else folder


def _pictures(folder: Path) -> list[str]:
    """Return the names of the pictures of a split, sorted."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".jpg") and not name.startswith("."))
    if not names:
        raise InputError(f"there are no images in {folder}; expected names such as 000000000009.jpg")
    return names


def _items(root: Path, split: str, names: Iterable[str], labels: Mapping[str, Reference]) -> list[Item]:
    return [Item(image_id(split, name), root / split / name, labels.get(image_id(split, name))) for name in names]
