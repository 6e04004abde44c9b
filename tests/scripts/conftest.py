"""A tiny model and a tiny prepared data set, and a way to call a script in this process."""

from __future__ import annotations

import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s4mim_hf import S4MIMConfig, S4MIMForSemanticSegmentation, S4MIMImageProcessor
from s4mim_hf.data.prepared_writer import Description, Row, write_prepared

CLASSES = ("sky", "road", "tree")
SIZES = [(48, 33), (33, 48), (48, 33), (40, 40), (48, 33)]


def _save_model(folder: Path, classes: tuple[str, ...]) -> Path:
    torch.manual_seed(0)
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    config = S4MIMConfig(
        backbone_config=backbone,
        decoder_channels=8,
        low_level_channels=8,
        id2label=dict(enumerate(classes)),
        # Wide enough for an untrained model to predict every class somewhere.
        initializer_range=1.0,
    )
    S4MIMForSemanticSegmentation(config).save_pretrained(folder)
    S4MIMImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_model(tmp_path_factory.mktemp("models") / "tiny", CLASSES)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_model(tmp_path_factory.mktemp("models") / "other", CLASSES[:2])


def _png(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, format="PNG")
    return data.getvalue()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared folder: 2 labelled, 3 unlabelled and 5 validation images of three sizes."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    rng = np.random.default_rng(0)
    rows: dict[str, list[Row]] = {}
    for split, count in {"labeled": 2, "unlabeled": 3, "validation": 5}.items():
        rows[split] = []
        for number in range(count):
            height, width = SIZES[number]
            image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            label = rng.choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
            encoded = None if split == "unlabeled" else _png(label)
            pixels = None if split == "unlabeled" else tuple(int((label == value).sum()) for value in (0, 1, 2, 255))
            rows[split].append(Row(f"{split}/{number}", _png(image), f"{number}.png", encoded, width, height, pixels))
    palette = ((0, 0, 255), (128, 128, 128), (0, 128, 0))
    description = Description("tiny", "Tiny", CLASSES, palette, 255, "whole image", "", {"source": "test"})
    ids = {split: [row.id for row in given] for split, given in rows.items()}
    write_prepared(folder, description, ids, lambda split, index: rows[split][index], fingerprint="", say=print)
    return folder


@pytest.fixture
def call_script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], int]:
    """Return a function that runs scripts/NAME.py with arguments in this process and returns its exit code."""

    def call(name: str, arguments: list[str]) -> int:
        path = repository / "scripts" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(path), run_name="__main__")
        return int(stopped.value.code or 0)

    return call
