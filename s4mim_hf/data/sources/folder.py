"""A folder of one's own: pictures, class maps beside them, and the names of the classes.

SOURCE/images/...         pictures, in subfolders or not; train/ and val/ directly below are the two splits
SOURCE/masks/...          class maps at the same relative paths, whatever their suffix
SOURCE/classes.json       {"id2label": {"0": "sky", ...}, "ignore_index": 255} or ["sky", ...]

--color-table FILE: the masks are in RGB, and the file gives the class of each colour.
--annotations PATH: there are no masks. SOURCE holds the pictures (in images/ or directly), and PATH, which may be
SOURCE itself, is the JSON of a tool, or a folder of it: LabelMe's PHOTO.json for PHOTO.jpg, or COCO's as CVAT, Label
Studio and Roboflow export it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog import CATALOG, DatasetInfo
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Item, Listing, Source
from s4mim_hf.data.sources.class_names import agreed_classes, checked_classes, read_classes
from s4mim_hf.data.sources.reading import read_class_map
from s4mim_hf.data.splits import IMAGE_SUFFIXES, without_suffix
from s4mim_hf.errors import InputError, some


class FolderSource(Source):
    """Pictures below images/ and masks of class ids below masks/.

    Args:
        folder: the folder that holds both.
        name: what the data set is called.
        classes: its classes, where they are known.
        ignore_index: the id of ignored pixels in the masks; 255 is ignored as well.
        info: what the catalog says of the data set, where it is a known one.
        read_mask: reads a mask file as ids (H, W), 255 = ignored.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        classes: Classes | None,
        ignore_index: int = IGNORE_INDEX,
        info: DatasetInfo | None = None,
        read_mask: Callable[[Path], np.ndarray] = read_class_map,
    ) -> None:
        self.folder = folder
        self.name = name
        self.title = info.title if info else name
        self.classes = classes
        self.protocol = info.protocol if info else protocol_of(classes)
        self.note = info.note if info else ""
        self.ignore_index = ignore_index
        self._read_mask = read_mask

    def listing(self) -> Listing:
        """Find the images and masks; see `Source.listing`.

        Where images/ has train/, images outside train/ and val/ are left out, with a note.

        Raises:
            InputError: a folder is missing, there are no images, two files share an id, a mask has no image, or an
                image of val/ has no mask.
        """
        for folder in (self.folder, self.folder / "images", self.folder / "masks"):
            require_folder(folder, "a source has images/ and masks/ in it, or --annotations instead of masks/")
        images, notes = files_by_id(self.folder / "images")
        masks, mask_notes = files_by_id(self.folder / "masks")
        without_image = sorted(set(masks) - set(images))
        if without_image and images:
            raise InputError(
                f"{len(without_image)} masks have no image: {some(without_image)}; a mask has its image's path below "
                f"images/, but for the suffix (the first image is {min(images)!r})"
            )
        return listing_of(self.folder, images, masks, notes + mask_notes)

    def read_label(self, item: Item) -> np.ndarray:
        """Read an item's mask; see `Source.read_label`."""
        assert isinstance(item.label, Path)
        ids = self._read_mask(item.label)
        return ids if self.ignore_index == IGNORE_INDEX else np.where(ids == self.ignore_index, IGNORE_INDEX, ids)

    def depends_on(self) -> Sequence[Path]:
        """Return the file that names the ignored id, where there is one; see `Source.depends_on`."""
        path = self.folder / "classes.json"
        return [path] if path.is_file() else []

    def beside(self, folder: Path) -> FolderSource:
        """Return another folder whose masks are read as those of this one, such as one with validation images.

        Raises:
            InputError: its classes.json names other classes.
        """
        other = copy(self)
        other.folder = folder
        path = folder / "classes.json"
        written = read_classes(path)
        if written is not None:
            if self.classes is not None:
                agreed_classes(self.classes, f"the classes of {self.folder}", written[0], path)
            other.ignore_index = written[1]
        return other


def open_folder(options: PrepareOptions) -> Source:
    """Open a folder whose classes are named by --classes, its classes.json, or what --annotations or a table say.

    Raises:
        InputError: the folder is missing, or the names contradict each other or are none.
    """
    if options.annotations is not None:
        from s4mim_hf.data.sources.annotations import open_annotated

        return open_annotated(options)
    folder, name = options.folder(), options.name or options.folder().resolve().name
    if options.color_table is not None:
        from s4mim_hf.data.sources.color_table import open_colored

        return open_colored(options)
    classes, ignore_index = classes_of_folder(folder, options.classes)
    return FolderSource(folder, name, classes, ignore_index)


def open_catalog_folder(options: PrepareOptions) -> Source:
    """Open a folder with images/ and masks/ of a data set whose classes the catalog knows.

    Raises:
        InputError: the folder is missing, or its classes.json names other classes.
    """
    info, folder = CATALOG[options.kind], options.folder()
    known = Classes(info.classes, info.palette)
    written, ignore_index = read_classes(folder / "classes.json") or (known, info.ignore_index)
    classes = agreed_classes(known, f"the catalog's classes of {info.name}", written, folder / "classes.json")
    return FolderSource(folder, options.name or info.name, classes, ignore_index, info)


def classes_of_folder(folder: Path, given: Sequence[str] | None) -> tuple[Classes | None, int]:
    """Return the classes that --classes or classes.json name (None where neither does), and the ignore id.

    Raises:
        InputError: both name classes and not the same ones, or the names are none.
    """
    path = folder / "classes.json"
    written = read_classes(path)
    if given is None:
        return written or (None, IGNORE_INDEX)
    named, ignore_index = checked_classes(given, IGNORE_INDEX, "--classes")
    if written is None:
        return named, ignore_index
    return agreed_classes(named, "--classes", written[0], path), written[1]


def protocol_of(classes: Classes | None) -> str:
    """Return how data of one's own is evaluated."""
    count = f"{len(classes.names)} classes" if classes else "all classes"
    return f"whole image at original size, mean IoU over {count}, pixels of id {IGNORE_INDEX} ignored"


def require_folder(folder: Path, expected: str) -> None:
    """Refuse a folder that is missing.

    Raises:
        InputError: names the folder and what is `expected`.
    """
    if not folder.is_dir():
        found = "is no folder" if folder.exists() else "is missing"
        raise InputError(f"the folder {folder} {found}; {expected}")


def listing_of(folder: Path, images: Mapping[str, str], labels: Mapping[str, str], notes: Sequence[str]) -> Listing:
    """Put images and labels together by their ids, and part train/ from val/.

    Args:
        folder: the folder that holds images/.
        images: the picture files by id, as `files_by_id` returns them.
        labels: the mask files, likewise.
        notes: what a person should know already.

    Raises:
        InputError: there are no images, or one of val/ has no label.
    """
    if not images:
        raise InputError(f"there are no images in {folder / 'images'} (files that end in {', '.join(IMAGE_SUFFIXES)})")
    items = [Item(image_id, images[image_id], labels.get(image_id)) for image_id in sorted(images)]
    validation = [item for item in items if item.id.startswith("val/")]
    training = [item for item in items if not item.id.startswith("val/")]
    notes = list(notes)
    if any(item.id.startswith("train/") for item in training):
        outside = [item.id for item in training if not item.id.startswith("train/")]
        training = [item for item in training if item.id.startswith("train/")]
        if outside:
            notes.append(f"{len(outside)} images outside images/train and images/val are left out: {some(outside)}")
    require_labels(validation, "images/val")
    return Listing(training, validation or None, notes=notes)


def require_labels(items: Sequence[Item], where: str) -> None:
    """Refuse images without labels where every image needs one.

    Raises:
        InputError: names `where` and the first images without a mask.
    """
    bare = [item.id for item in items if item.label is None]
    if bare:
        raise InputError(f"{len(bare)} of {len(items)} images of {where} have no mask: {some(bare)}; add masks")


def files_by_id(folder: Path, expected: tuple[str, ...] = ()) -> tuple[dict[str, str], list[str]]:
    """Return the paths of the picture files below `folder` by id, and a note on files that are none.

    `os.walk` rather than `rglob`, which does not follow links to folders; texts rather than paths, as in `Item`.

    Args:
        folder: where to look.
        expected: suffixes of other files that belong there, on which there is no note.

    Raises:
        InputError: two files have the same id.
    """
    found: dict[str, str] = {}
    others = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(parent).relative_to(folder)
        for name in sorted(names):
            if name.startswith("."):
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix not in IMAGE_SUFFIXES:
                if suffix not in expected:
                    others.append((below / name).as_posix())
                continue
            path, image_id = os.path.join(parent, name), without_suffix((below / name).as_posix())
            if image_id in found:
                other = os.path.basename(found[image_id])
                raise InputError(f"{path} and {other} are both {image_id!r}; keep one of them")
            found[image_id] = path
    note = [f"{len(others)} files of {folder.name}/ are no pictures by their suffix: {some(others)}"] if others else []
    return found, note
