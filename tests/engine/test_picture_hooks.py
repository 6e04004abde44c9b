"""Panels of a run: which columns they have follows from what the student has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from s4mim_hf.engine import picture_hooks
from s4mim_hf.engine.build import build_accelerator, build_run
from s4mim_hf.engine.reconstruction import to_pixel_values
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.visualization import PanelRow, draw_panels


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


@pytest.mark.parametrize(("protocol", "side"), [("whole", 64), ("sliding_window", 48), ("center_crop", 48)])
def test_a_panel_shows_the_networks_no_more_at_once_than_the_evaluation(
    tiny_config: Callable[..., RunConfig], tmp_path: Path, protocol: str, side: int
) -> None:
    config = tiny_config(
        *["optim.max_steps=1", "optim.warmup_steps=0", "log.tracker=none", "panels.count=1"],
        f"evaluation.inference.protocol={protocol}",
        "evaluation.inference.window=48",
        output="windows",
    )
    folder = tmp_path / "windows"
    folder.mkdir()
    run = build_run(config, build_accelerator(config, folder), folder)
    seen: list[int] = []
    for network in (run.trainer.teacher.model, run.trainer.unwrapped_student):
        network.register_forward_pre_hook(lambda module, inputs: seen.append(max(inputs[0].shape[-2:])))
    run.trainer.train(run.batches())
    # Crops of training have 48 pixels, and validation images 64.
    assert max(seen) == side
    assert (folder / "panels" / "step_1.png").is_file()


def test_a_panel_shows_the_teacher_s_prediction(
    tiny_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[PanelRow] = []

    def draw_and_keep(rows: list[PanelRow], *others: Any) -> None:
        drawn.extend(rows)
        draw_panels(rows, *others)

    monkeypatch.setattr(picture_hooks, "draw_panels", draw_and_keep)
    slow = ["teacher.decay=0.999", "teacher.ramp=false", "optim.learning_rate=0.05", "optim.warmup_steps=0"]
    run = train(tiny_config(*slow, "evaluation.interval=4", "panels.count=1", "log.tracker=none"))
    trainer, task = run.trainer, run.trainer.method.task
    pixels = to_pixel_values(drawn[0].image, task.image_mean, task.image_std)
    with torch.no_grad():
        networks = (trainer.teacher.model, trainer.unwrapped_student.segmenter.eval())
        teacher, student = (network(pixels).logits.argmax(1)[0].numpy() for network in networks)
    assert (drawn[0].prediction == teacher).all()
    assert (drawn[0].prediction != student).any()
