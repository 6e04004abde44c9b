"""Find the images, masks and class names of a raw folder. Nothing here opens a picture.

SOURCE/images/...         pictures, in subfolders or not; train/ and val/ directly below are the two splits
SOURCE/masks/...          class maps at the same relative paths, whatever their suffix
SOURCE/classes.json       {"id2label": {"0": "sky", ...}, "ignore_index": 255} or ["sky", ...]
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s4mim_hf.data.splits import IMAGE_SUFFIXES, without_suffix
from s4mim_hf.errors import InputError, some

IGNORE_INDEX = 255


@dataclass(frozen=True)
class RawItem:
    """One image, and its mask where it has one.

    Attributes:
        id: path below images/ without suffix.
        image: the picture's file.
        mask: the class map's file, or None.
    """

    id: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class RawFolder:
    """The images of a raw folder.

    Attributes:
        training: all images that are not kept for validation, sorted by id.
        validation: the images of val/, all with masks; None where there is no val/.
        notes: what was left out, in sentences.
    """

    training: list[RawItem]
    validation: list[RawItem] | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Classes:
    """Class names in the order of their ids 0 .. K-1, and the id of ignored pixels in the raw masks."""

    names: tuple[str, ...]
    ignore_index: int = IGNORE_INDEX


def scan(source: Path) -> RawFolder:
    """Find the images and masks below `source`.

    Where images/ has train/, images outside train/ and val/ are left out, with a note.

    Raises:
        InputError: a folder is missing, there are no images, two files share an id, a mask has no image, or an image
            of val/ has no mask.
    """
    for folder in (source, source / "images", source / "masks"):
        if not folder.is_dir():
            found = "is no folder" if folder.exists() else "is missing"
            raise InputError(f"the folder {folder} {found}; a source has images/ and masks/ in it")
    images, notes = _files_by_id(source / "images")
    masks, mask_notes = _files_by_id(source / "masks")
    if not images:
        raise InputError(f"there are no images in {source / 'images'} (files that end in {', '.join(IMAGE_SUFFIXES)})")
    without_image = sorted(set(masks) - set(images))
    if without_image:
        raise InputError(
            f"{len(without_image)} masks have no image: {some(without_image)}; a mask has its image's path below "
            f"images/, but for the suffix (the first image is {min(images)!r})"
        )
    items = [RawItem(image_id, images[image_id], masks.get(image_id)) for image_id in sorted(images)]
    training, validation, split_notes = _split_by_folder(items)
    return RawFolder(training, validation, notes + mask_notes + split_notes)


def _split_by_folder(items: Sequence[RawItem]) -> tuple[list[RawItem], list[RawItem] | None, list[str]]:
    """Return the training items, those of val/ (None where there are none), and notes."""
    validation = [item for item in items if item.id.startswith("val/")]
    training = [item for item in items if not item.id.startswith("val/")]
    notes = []
    if any(item.id.startswith("train/") for item in training):
        outside = [item.id for item in training if not item.id.startswith("train/")]
        training = [item for item in training if item.id.startswith("train/")]
        if outside:
            notes.append(f"{len(outside)} images outside images/train and images/val are left out: {some(outside)}")
    require_masks(validation, "images/val")
    return training, validation or None, notes


def require_masks(items: Sequence[RawItem], where: str) -> None:
    """Refuse images without masks where every image needs one.

    Raises:
        InputError: names `where` and the first images without a mask.
    """
    bare = [item.id for item in items if item.mask is None]
    if bare:
        raise InputError(f"{len(bare)} of {len(items)} images of {where} have no mask: {some(bare)}; add masks")


def _files_by_id(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the picture files below `folder` by id, and a note on files that are none.

    `os.walk` rather than `rglob`, which does not follow links to folders.
    """
    found: dict[str, Path] = {}
    others = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                others.append(path.relative_to(folder).as_posix())
                continue
            image_id = without_suffix(path.relative_to(folder).as_posix())
            if image_id in found:
                raise InputError(f"{path} and {found[image_id].name} are both {image_id!r}; keep one of them")
            found[image_id] = path
    note = [f"{len(others)} files of {folder.name}/ are no pictures by their suffix: {some(others)}"] if others else []
    return found, note


def read_classes(path: Path) -> Classes | None:
    """Read the class names of a raw folder from its classes.json; None where there is no such file.

    Raises:
        InputError: the file cannot be read, or names no valid classes.
    """
    if not path.exists():
        return None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON file that can be read: {error}") from None
    if isinstance(content, list):
        return checked_classes(content, IGNORE_INDEX, str(path))
    if not isinstance(content, dict) or not isinstance(content.get("id2label"), dict):
        raise InputError(f'{path} holds neither a list of names nor {{"id2label": {{"0": NAME, ...}}}}')
    id2label = content["id2label"]
    expected = {str(class_id) for class_id in range(len(id2label))}
    if set(id2label) != expected:
        odd = some(sorted(set(id2label) - expected) or sorted(expected - set(id2label)))
        raise InputError(f"{path}: id2label must have the ids 0 to {len(id2label) - 1}, one name each; see {odd}")
    names = [id2label[str(class_id)] for class_id in range(len(id2label))]
    return checked_classes(names, content.get("ignore_index", IGNORE_INDEX), str(path))


def checked_classes(names: Sequence[Any], ignore_index: Any, where: str) -> Classes:
    """Check class names and the ignore id.

    Raises:
        InputError: a name is no text, is empty or doubled, there are none or more than 255, or the ignore id is a
            class's.
    """
    bad = [repr(name) for name in names if not isinstance(name, str) or not name.strip()]
    if bad:
        raise InputError(f"{where}: class names are texts of at least one letter, but {some(bad)} is found")
    stripped = [name.strip() for name in names]
    doubled = sorted({name for name in stripped if stripped.count(name) > 1})
    if doubled:
        raise InputError(f"{where} names {some(doubled)} more than once; every class needs a name of its own")
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise InputError(f"{where} names {len(names)} classes; 1 to {IGNORE_INDEX} fit in an 8-bit class map")
    if not isinstance(ignore_index, int) or isinstance(ignore_index, bool) or 0 <= ignore_index < len(names):
        raise InputError(
            f"{where}: ignore_index is {ignore_index!r}, but must be a whole number that is no class's id "
            f"(0 to {len(names) - 1}); {IGNORE_INDEX} is usual"
        )
    return Classes(tuple(stripped), ignore_index)
