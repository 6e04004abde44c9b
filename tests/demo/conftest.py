"""Models of every kind that the page shows, tiny, and photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, prepared
from tiny_segmenters import architecture, save_segmenter

from s4mim_hf import S4MIMForSemiSupervisedSegmentation, S4MIMImageProcessor
from s4mim_hf.data.synthetic import render_scene
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.run import train

__all__ = ["prepared"]

# Two steps: after one, the teacher is the student.
SHORT = ["optim.max_steps=2", "optim.warmup_steps=0", "log.tracker=none", "checkpoint.interval=null"]


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a segmenter's folder."""
    return save_segmenter(tmp_path_factory.mktemp("plain") / "model", seed=1)


@pytest.fixture(scope="session")
def training_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a segmenter with its reconstruction head."""
    folder = tmp_path_factory.mktemp("training") / "student"
    torch.manual_seed(2)
    S4MIMForSemiSupervisedSegmentation(architecture()).save_pretrained(folder)
    S4MIMImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run_folder(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of an S4MIM run of two steps, whose decoder learned plain pixels of patches of 16."""
    root = tmp_path_factory.mktemp("run")
    settings = ["method.masking.patch_size=16", "method.masking.ratio=0.5", "method.reconstruction.target=pixels"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(root / "cache"))
        places = [f"data.path={prepared}", f"output_dir={root / 'demo'}"]
        train(load_run_config("demo", [*TINY, *SHORT, *places, *settings]))
    return root / "demo"


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a photo of 72 x 96 pixels that EXIF turns to 96 x 72 (width x height)."""
    path = tmp_path_factory.mktemp("photos") / "scene.jpg"
    upright = Image.fromarray(render_scene(np.random.default_rng(3))[0][:72, :96])
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    return path
