"""Small data sets as the Hub has them, for the tests."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Source
from s4mim_hf.errors import InputError

HEIGHT, WIDTH = 8, 12
PICTURE = datasets.Image()


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (HEIGHT, WIDTH))


def picture(seed: int, path: str | None = None, kind: str = "PNG") -> dict[str, Any]:
    return {"bytes": encoded(Image.fromarray(pixels(seed)), kind), "path": path}


def label(seed: int, path: str | None = None) -> dict[str, Any]:
    return {"bytes": encoded(Image.fromarray(mask(seed))), "path": path}


def row(seed: int, **more: Any) -> dict[str, Any]:
    return {"image": picture(seed), "label": label(seed), **more}


def parquet(folder: Path, features: dict[str, Any], **splits: list[dict[str, Any]]) -> Path:
    """Write a folder as the Hub has it: data/SPLIT-00000-of-00001.parquet."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def plain(folder: Path, **splits: int) -> Path:
    """Write a folder with columns image and label, so many rows a split."""
    rows = {split: [row(seed) for seed in range(count)] for split, count in splits.items()}
    return parquet(folder, {"image": PICTURE, "label": PICTURE}, **rows)


def opened(source: Path | str, **options: Any) -> Source:
    return open_source(PrepareOptions("hub", Path("out"), str(source), **options))


def refused(source: Path | str, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        opened(source, **options).listing()
    assert "\n" not in str(caught.value)


def ids(items: Any) -> list[str]:
    return [item.id for item in items]


def written(tmp_path: Path, name: str, content: Any) -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
