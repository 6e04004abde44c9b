"""Small raw folders for the tests of data preparation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("road", "tree", "sky")


def write_pair(source: Path, image_id: str, seed: int = 0, size: tuple[int, int] = (12, 8), mask: bool = True) -> None:
    """Write a JPEG of `size` (width, height) and a mask of ids 0, 1, 2 and 255."""
    rng = np.random.default_rng(seed)
    image, label = source / "images" / f"{image_id}.jpg", source / "masks" / f"{image_id}.png"
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(image)
    if mask:
        Image.fromarray(rng.choice(np.array([0, 1, 2, 255], np.uint8), (size[1], size[0]))).save(label)


def write_tree(source: Path, masked: int = 10, bare: int = 0, validation: int = 0, classes: bool = True) -> Path:
    """Write a flat folder, or with train/ and val/ where there are validation images."""
    folder = "train/" if validation else ""
    for index in range(masked + bare):
        write_pair(source, f"{folder}i{index:02d}", index, mask=index < masked)
    for index in range(validation):
        write_pair(source, f"val/v{index:02d}", 100 + index)
    if classes:
        id2label = {str(class_id): name for class_id, name in enumerate(CLASSES)}
        (source / "classes.json").write_text(json.dumps({"id2label": id2label, "ignore_index": 255}))
    return source
