"""Small folders as annotation tools leave them, for the tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (24, 16)
"""Width and height of the pictures."""

SQUARE = [[4, 3], [12, 3], [12, 11], [4, 11]]
"""Fills rows 3 .. 10 and columns 4 .. 11."""


def picture(path: Path, size: tuple[int, int] = SIZE, orientation: int | None = None) -> Path:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def shape(label: str, points: Sequence[Sequence[float]] = SQUARE, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """Return a shape as LabelMe writes it."""
    record = {"label": label, "points": [list(point) for point in points], "group_id": None, "description": ""}
    return {**record, "shape_type": kind, "flags": {}, "mask": None, **more}


def labelme(path: Path, shapes: Iterable[dict[str, Any]], **more: Any) -> Path:
    """Write a LabelMe file for the JPEG of the same name."""
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": f"{path.stem}.jpg",
        "imageData": None,
        "imageHeight": SIZE[1],
        "imageWidth": SIZE[0],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
    return path


def annotated(folder: Path, name: str, shapes: Iterable[dict[str, Any]], **more: Any) -> None:
    """Write a picture and its LabelMe file side by side."""
    picture(folder / f"{name}.jpg")
    labelme(folder / f"{name}.json", shapes, **more)


def coco(path: Path, images: Iterable[Any], annotations: Iterable[Any], categories: Iterable[Any]) -> Path:
    """Write a COCO file; an image may be just (id, file_name), a category (id, name)."""
    full_images = [
        image
        if isinstance(image, dict)
        else {"id": image[0], "file_name": image[1], "width": SIZE[0], "height": SIZE[1], "license": 1}
        for image in images
    ]
    full_categories = [
        each if isinstance(each, dict) else {"id": each[0], "name": each[1], "supercategory": ""} for each in categories
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {}, "licenses": [], "images": full_images, "annotations": list(annotations)}
    path.write_text(json.dumps({**content, "categories": full_categories}))
    return path


def annotation(number: int, image: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    """Return an annotation as COCO's JSON has it."""
    record = {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation}
    return {**record, "area": 1.0, "bbox": [0, 0, 1, 1], "iscrowd": 0, **more}


def flat(points: Sequence[Sequence[float]]) -> list[float]:
    """Return x, y, x, y, ... of points."""
    return [value for point in points for value in point]


def reference(points: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Return bool (height, width): which centres a polygon holds by the even-odd rule, in exact numbers.

    A ray to the left of each centre counts the edges that it meets.
    """
    exact = [(Fraction(x), Fraction(y)) for x, y in points]
    edges = list(zip(exact, exact[1:] + exact[:1], strict=True))
    inside = np.zeros((height, width), bool)
    for row, column in np.ndindex(height, width):
        x, y = column + Fraction(1, 2), row + Fraction(1, 2)
        for (x0, y0), (x1, y1) in edges:
            if (y0 <= y) != (y1 <= y) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                inside[row, column] = not inside[row, column]
    return inside
