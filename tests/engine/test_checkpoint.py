"""Checkpoints: exact resumption through accelerate, whole or absent on disk, refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

from s4mim_hf.engine.checkpoint import (
    check_same_configuration,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    read_trainer_state,
    save_checkpoint,
)
from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.errors import InputError


class Run:
    """A run of a small network on noise from the global generator: model, optimizer, teacher, accelerator."""

    def __init__(self, seed: int = 0, width: int = 3) -> None:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        torch.manual_seed(seed)
        self.accelerator = Accelerator(cpu=True)
        model = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5), nn.BatchNorm1d(width))
        self.teacher = Teacher(model, decay=0.9)
        self.model, self.optimizer = self.accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.01))

    def train(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            loss = self.model(torch.randn(8, 4)).square().mean() + self.model[0].weight.sum()
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.teacher.update(self.accelerator.unwrap_model(self.model), step)

    def save(self, folder: Path, step: int, **extra: Any) -> Path:
        return save_checkpoint(folder, step, accelerator=self.accelerator, teacher=self.teacher, extra=extra)

    def load(self, path: Path) -> dict[str, Any]:
        return load_checkpoint(path, accelerator=self.accelerator, teacher=self.teacher)

    def tensors(self) -> list[torch.Tensor]:
        return [*self.model.state_dict().values(), *self.teacher.state().values()]


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    run = Run()
    run.train(0, 4)
    path = run.save(tmp_path, 4, best={"mean_iou": 0.5, "step": 2})
    run.train(4, 8)
    resumed = Run(seed=99)
    state = resumed.load(path)
    assert state == {"best": {"mean_iou": 0.5, "step": 2}, "step": 4, "num_processes": 1}
    resumed.train(state["step"], 8)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(run.tensors(), resumed.tensors(), strict=True))


def test_the_latest_is_the_highest_complete_step(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    run = Run()
    for step in (9, 10, 100):
        assert run.save(tmp_path, step) == tmp_path / "checkpoints" / f"step_{step}"
    (tmp_path / "checkpoints" / ".step_200.partial").mkdir()
    (tmp_path / "checkpoints" / "step_300").mkdir()
    (tmp_path / "checkpoints" / "step_best").mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step_100"
    assert [read_trainer_state(path)["step"] for path in list_checkpoints(tmp_path)] == [9, 10, 100]


def test_pruning_keeps_the_last_and_clears_what_killed_runs_left(tmp_path: Path) -> None:
    run = Run()
    for step in (2, 10, 30):
        run.save(tmp_path, step)
    (tmp_path / "checkpoints" / ".step_40.partial").mkdir()
    (tmp_path / "checkpoints" / "notes").mkdir()
    prune_checkpoints(tmp_path, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["notes", "step_10", "step_30"]
    prune_checkpoints(tmp_path / "nothing", keep=1)
    with pytest.raises(ValueError, match="keep is 0"):
        prune_checkpoints(tmp_path, keep=0)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    run = Run()
    run.save(tmp_path, 5, attempt=1)
    (tmp_path / "checkpoints" / ".step_5.partial").mkdir()
    (tmp_path / "checkpoints" / ".step_5.partial" / "rubbish").touch()
    path = run.save(tmp_path, 5, attempt=2)
    assert read_trainer_state(path)["attempt"] == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["step_5"]
    assert not (path / "rubbish").exists()


def test_a_save_that_fails_leaves_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Run().save(tmp_path, 5, unserializable=object())
    assert latest_checkpoint(tmp_path) is None
    assert not (tmp_path / "checkpoints" / "step_5").exists()


def test_damaged_checkpoints_are_refused_in_one_sentence(tmp_path: Path) -> None:
    run = Run()
    with pytest.raises(InputError, match="not a complete checkpoint"):
        run.load(tmp_path)
    for name in ("teacher.safetensors", "model.safetensors", "optimizer.bin"):
        path = run.save(tmp_path, 1)
        (path / name).write_bytes((path / name).read_bytes()[:50])
        with pytest.raises(InputError, match=r"step_1.* another checkpoint"):
            run.load(path)
        (path / name).unlink()
        with pytest.raises(InputError, match="step_1"):
            run.load(path)
    path = run.save(tmp_path, 1)
    for text, message in (("{", "is damaged"), ("{}", "names no step"), ("[]", "names no step")):
        (path / "trainer_state.json").write_text(text)
        with pytest.raises(InputError, match=message):
            run.load(path)


def test_another_model_or_number_of_processes_is_refused(tmp_path: Path) -> None:
    path = Run(width=3).save(tmp_path, 1)
    with pytest.raises(InputError, match=r"0\.weight has shape \(3, 4\), the model expects \(5, 4\)"):
        Run(width=5).load(path)
    state = read_trainer_state(path)
    (path / "trainer_state.json").write_text(json.dumps({**state, "num_processes": 4}))
    with pytest.raises(InputError, match="written by 4 processes and this run has 1"):
        Run().load(path)


SAVED = {
    "seed": 0,
    "recipe": "camvid",
    "output_dir": "a",
    "method": {"name": "s4mim", "masking": {"ratio": 0.6}},
    "data": {"num_workers": 2, "crop": [96, 96], "path": "data"},
    "log": {"interval": 10},
    "logic": 1,
}


def test_the_same_configuration_passes_whatever_may_differ() -> None:
    now = {**SAVED, "recipe": "a/run_config.yaml", "output_dir": None, "log": {"interval": 5, "tracker": "none"}}
    now["data"] = {"num_workers": 0, "crop": (96, 96), "path": "moved"}
    check_same_configuration(SAVED, now)
    check_same_configuration({"rate": 1}, {"rate": 1.0})


def test_every_differing_key_is_named() -> None:
    now = {**SAVED, "seed": 1, "method": {"name": "fixmatch", "threshold": 0.9}, "logic": 2}
    with pytest.raises(InputError, match="another configuration") as caught:
        check_same_configuration(SAVED, now, source="out/checkpoints/step_4")
    message = str(caught.value)
    assert message.startswith("out/checkpoints/step_4 is a checkpoint of another configuration")
    for part in (
        "seed: 0 -> 1",
        "logic: 1 -> 2",
        "method.name: 's4mim' -> 'fixmatch'",
        "method.masking.ratio: 0.6 -> (not set)",
        "method.threshold: (not set) -> 0.9",
    ):
        assert part in message
    assert "output_dir:" not in message
