"""COCO in miniature, in the published layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Category ids 1 .. 91 of things that COCO names and never annotates.
ABSENT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
SIZE = (12, 9)
TRAIN = ("000000000009", "000000000025", "000000000030")
VAL = ("000000000139",)
SPLITS = {"train2017": TRAIN, "val2017": VAL}


def write_images(folder: Path, splits: Mapping[str, Sequence[str]] = SPLITS) -> Path:
    for split, names in splits.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("RGB", SIZE, (90, 60, 30)).save(folder / split / f"{name}.jpg")
    return folder


def write_png(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def square(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def annotation(number: int, image: str, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    """As the published file has it, fields that nobody reads here included."""
    return {
        "segmentation": segmentation, "area": 1.0, "iscrowd": crowd, "image_id": int(image), "bbox": [0, 0, 1, 1],
        "category_id": category, "id": number,
    }  # fmt: skip


def content(names: Sequence[str], annotations: Sequence[Mapping[str, Any]], categories: Any) -> dict[str, Any]:
    """The keys are in the published order: the categories come last."""
    images = [
        {"license": 4, "file_name": f"{name}.jpg", "coco_url": "", "height": SIZE[1], "width": SIZE[0], "id": int(name)}
        for name in names
    ]
    return {
        "info": {"description": "COCO 2017 Dataset"},
        "licenses": [{"id": 1, "name": "Attribution"}],
        "images": images,
        "annotations": list(annotations),
        "categories": [{"supercategory": "", "id": key, "name": name} for key, name in categories.items()],
    }


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path
