"""Read the files that LabelMe leaves beside the pictures: PHOTO.json for PHOTO.jpg.

{"version", "flags", "shapes": [{"label", "points": [[x, y], ...], "shape_type", "group_id", "flags", "mask"}, ...],
 "imagePath": "PHOTO.jpg", "imageData": base64 or null, "imageHeight", "imageWidth"}

LabelMe shows a picture as its EXIF orientation says, so its coordinates are those of the upright picture.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s4mim_hf.data.sources.annotations.drawings import Annotations, Drawing, Pictures, Region
from s4mim_hf.data.sources.annotations.polygons import Patch, Shape, ShapeError, box, circle, polygon
from s4mim_hf.data.sources.base import Reference

_WITHOUT_AREA = ("line", "linestrip", "line_strip", "point", "points")
_WITH_AREA = ("polygon", "rectangle", "oriented_rectangle", "circle", "mask")


def is_labelme(content: Any) -> bool:
    """Return whether the content of a JSON file is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


class LabelMe(Annotations):
    """LabelMe files of a folder, one for each annotated picture.

    Args:
        pictures: the pictures that they are about.
        folder: the folder below which the files lie as the pictures do below theirs.
    """

    tool = "LabelMe"

    def __init__(self, pictures: Pictures, folder: Path) -> None:
        super().__init__(pictures)
        self.folder = folder
        self.missing: list[str] = []

    def add(self, file: Path, content: Mapping[str, Any]) -> None:
        """Take in a file: find its picture, and check every shape."""
        image_id = self._image_of(file, content)
        if image_id is None:
            return
        self._enter(image_id, file, file)
        shapes = content["shapes"]
        for index, shape in enumerate(shapes):
            place = f"{file}, shape {index + 1}"
            try:
                label = _label_of(shape)
                place += f" ({label!r})"
                _shape_of(shape)
                self._count(label, place)
            except ShapeError as error:
                self.problems.add(place, f"{error}; correct or remove it in LabelMe")
        if not shapes:
            self.empty.add(image_id)
        try:
            _size_of(content)
        except ShapeError as error:
            self.problems.add(str(file), f"{error}; save it in LabelMe again")

    def drawing(self, reference: Reference) -> Drawing:
        """Read a file's shapes; see `Annotations.drawing`."""
        assert isinstance(reference, Path)
        try:
            content = json.loads(reference.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ShapeError(f"cannot be read any more ({error})") from None
        if not is_labelme(content):
            raise ShapeError("is no LabelMe file any more")
        regions = tuple(Region(_label_of(shape), _shape_of(shape)) for shape in content["shapes"])
        return Drawing(regions, _size_of(content))

    def _image_of(self, file: Path, content: Mapping[str, Any]) -> str | None:
        """Return the id of a file's picture, which is called as the file or as its imagePath says, or is in it."""
        name = file.relative_to(self.folder).with_suffix("").as_posix()
        found = self.pictures.find(name, file, beside=file.stem)
        image_path = content.get("imagePath")
        if not found and isinstance(image_path, str) and image_path:
            path = file.relative_to(self.folder).parent / image_path.replace("\\", "/")
            found = self.pictures.find(path.as_posix(), file, beside=image_path)
        if found:
            return self._one_of(found, file.stem, str(file))
        if isinstance(content.get("imageData"), str) and content["imageData"]:
            self.embedded[name] = file
            return name
        self.problems.add(
            str(file),
            f"is about the picture {image_path or file.stem}, which is not below {self.pictures.root}; put it there, "
            "or remove the file",
        )
        return None


def embedded_picture(file: Path) -> bytes:
    """Return the picture that a LabelMe file holds, which LabelMe has turned upright.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds none.
    """
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    try:
        return base64.b64decode(content["imageData"], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise ValueError("imageData of the LabelMe file is no base64 text") from None


def embedded_name(file: Path) -> str:
    """Return what the picture in a LabelMe file was called."""
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    return str(content.get("imagePath") or f"{file.stem}.jpg").replace("\\", "/").rsplit("/", 1)[-1]


def _label_of(shape: Any) -> str:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise ShapeError("has no label")
    return shape["label"].strip()


def _shape_of(shape: Mapping[str, Any]) -> Shape:
    kind = shape.get("shape_type") or "polygon"
    points = shape.get("points")
    if kind in _WITHOUT_AREA:
        raise ShapeError(f"is a {kind}, which encloses no area as a polygon does, so that no pixel gets its label")
    if kind == "mask":
        return _patch_of(shape)
    if kind == "circle":
        return circle(points)
    if kind == "rectangle" and isinstance(points, list) and len(points) == 2:
        return box(points)
    if kind in _WITH_AREA:
        return polygon(points)
    raise ShapeError(f"has the shape_type {kind!r}, which is none of {', '.join(_WITH_AREA)}")


def _patch_of(shape: Mapping[str, Any]) -> Patch:
    """Read a mask: a small PNG, and the corners of the box that it fills."""
    try:
        data = base64.b64decode(shape["mask"], validate=True)
        with Image.open(io.BytesIO(data)) as image:
            inside = np.asarray(image) != 0
        left, top = (round(value) for value in shape["points"][0])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, OSError):
        raise ShapeError("is a mask without a PNG in base64 and the corners of its box") from None
    if inside.ndim != 2:
        raise ShapeError("is a mask whose PNG has several channels")
    return Patch(inside, left, top)


def _size_of(content: Mapping[str, Any]) -> tuple[int, int] | None:
    size = content.get("imageHeight"), content.get("imageWidth")
    if size == (None, None):
        return None
    height, width = size
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise ShapeError(f"says that its picture is {width} wide and {height} high, which are no counts of pixels")
    return height, width
