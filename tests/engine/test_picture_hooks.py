"""Panels of a run: which columns they have follows from what the student has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig


@pytest.mark.parametrize(
    ("overrides", "columns"),
    [
        ([], 6),  # image, truth, prediction, class map of the decoder, masked, reconstruction
        (["method.reconstruction.regions=image"], 5),  # with one region there is no class map to see
        (["model.mim_decoder_type=attention", "model.mim_num_heads=2"], 6),
        (["method.reconstruction.weight=0"], 3),
        (["method.name=fixmatch"], 3),
    ],
)
def test_a_panel_has_the_columns_of_its_run(
    tiny_config: Callable[..., RunConfig], tmp_path: Path, overrides: list[str], columns: int
) -> None:
    short = ["optim.max_steps=1", "optim.warmup_steps=0", "log.tracker=none", "panels.count=1"]
    train(tiny_config(*short, *overrides))
    with Image.open(tmp_path / "run" / "panels" / "step_1.png") as picture:
        assert (picture.width - 6) / 326 == columns
