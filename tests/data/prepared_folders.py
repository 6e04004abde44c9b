"""Small prepared folders, written by the product's own writer from rows that a test knows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s4mim_hf.data.prepared_writer import Description, Row, Written, write_prepared

CLASSES = ("sky", "road", "tree")
PALETTE = ((0, 0, 255), (128, 128, 128), (0, 128, 0))
SMALL = 6000
"""Bytes of a shard that holds a few rows."""
COUNTS = {"labeled": 3, "unlabeled": 7, "validation": 2}


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def describe(**changes: Any) -> Description:
    made = Description("mine", "Mine", CLASSES, PALETTE, 255, "whole image", "", {"source": "test"})
    return Description(**{**vars(made), **changes})


def ids_of(**counts: int) -> dict[str, list[str]]:
    return {split: [f"{split}/{number:05d}" for number in range(count)] for split, count in (COUNTS | counts).items()}


def make_row(split: str, index: int, seed: int = 0) -> Row:
    """Return a row whose picture and label depend on nothing but the arguments."""
    rng = np.random.default_rng([seed, sorted(COUNTS).index(split), index])
    height, width = 16 + index % 3, 20
    image = png(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    name = f"{split}/{index:05d}"
    if split == "unlabeled":
        return Row(name, image, f"{index}.png", None, width, height)
    label = rng.choice(np.array([0, 1, 255], np.uint8), (height, width))
    pixels = tuple(int((label == value).sum()) for value in (0, 1, 2, 255))
    return Row(name, image, f"{index}.png", png(label), width, height, pixels)


def write(
    output: Path, read: Callable[[str, int], Row] = make_row, *, counts: dict[str, int] | None = None, **options: Any
) -> Written:
    settings = {"fingerprint": "raw", "say": lambda note: None} | options
    return write_prepared(output, settings.pop("description", describe()), ids_of(**counts or {}), read, **settings)


def write_folder(output: Path, seed: int = 0, **options: Any) -> Path:
    """Write three splits of a few images, and return the folder."""
    write(output, lambda split, index: make_row(split, index, seed), **options)
    return output


def digests(folder: Path) -> dict[str, str]:
    """Return sha256 of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Reads:
    """Reads rows, remembers which, and fails where it is told to."""

    def __init__(self, fails: dict[tuple[str, int], BaseException] | None = None, **rows: Callable[[int], Row]) -> None:
        self.seen: list[tuple[str, int]] = []
        self.fails, self.rows = fails or {}, rows

    def __call__(self, split: str, index: int) -> Row:
        self.seen.append((split, index))
        if (split, index) in self.fails:
            raise self.fails[split, index]
        return self.rows[split](index) if split in self.rows else make_row(split, index)
