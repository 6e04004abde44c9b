"""A small prepared folder of rendered scenes, and settings of runs that take seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare as prepare_source
from s4mim_hf.data.synthetic import CLASSES, render_scene
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.run_config import RunConfig

TINY_BACKBONE = (
    "{model_type: resnet, embedding_size: 8, hidden_sizes: [8, 12, 16, 24], depths: [1, 1, 1, 1], layer_type: basic}"
)
TINY = [
    f"model.backbone_config={TINY_BACKBONE}",
    "model.decoder_channels=12",
    "model.low_level_channels=6",
    "model.mim_channels=8",
    "data.views.crop_size=48",
    "data.labeled_batch_size=2",
    "data.unlabeled_batch_size=2",
    "data.num_workers=0",
    "optim.max_steps=4",
    "optim.warmup_steps=1",
    "evaluation.interval=2",
    "checkpoint.interval=2",
    "log.interval=1",
    "panels.count=0",
]


def write_raw(folder: Path, ids: int = 10, scramble: tuple[str, ...] = (), delete: tuple[str, ...] = ()) -> Path:
    """Write rendered 64x64 scenes; the masks of `scramble` are replaced by noise, those of `delete` left out."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(ids):
        image, label = render_scene(np.random.default_rng(number))
        name = f"scene{number:02d}"
        Image.fromarray(image[:64, :64]).save(folder / "images" / f"{name}.png")
        if name in scramble:
            label = np.random.default_rng(99).integers(0, len(CLASSES), label.shape, dtype=np.uint8)
        if name not in delete:
            Image.fromarray(label[:64, :64]).save(folder / "masks" / f"{name}.png")
    (folder / "classes.json").write_text(json.dumps({"id2label": dict(enumerate(CLASSES)), "ignore_index": 255}))
    return folder


def prepare(raw: Path, output: Path, labeled_ids: list[str]) -> Path:
    """Prepare a raw folder with these labelled images; nothing is kept for validation."""
    listed = raw / "labeled.txt"
    listed.write_text("\n".join(labeled_ids) + "\n")
    prepare_source(
        PrepareOptions("folder", output, str(raw), labeled_ids=str(listed), validation="none"), say=lambda note: None
    )
    return output


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared folder: 4 labelled, 4 unlabelled, 2 validation images."""
    root = tmp_path_factory.mktemp("prepared")
    raw = write_raw(root / "raw")
    prepare_source(
        PrepareOptions("folder", root / "data", str(raw), labeled="4", validation="2"), say=lambda note: None
    )
    return root / "data"


@pytest.fixture
def tiny_config(prepared: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Return a maker of configs of seconds-long runs on the prepared folder; later overrides win."""

    def make(*overrides: str, output: str = "run", data: Path = prepared) -> RunConfig:
        places = [f"data.path={data}", f"output_dir={tmp_path / output}"]
        return load_run_config("demo", [*TINY, *places, *overrides])

    return make
