"""One step of the loop: whose labels, which rates, when the teacher moves, and who is measured and shipped."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny_runs import prepare, write_raw

from s4mim_hf.engine.build import Run, build_accelerator, build_run
from s4mim_hf.engine.hooks import Hook
from s4mim_hf.engine.optim import PolynomialSchedule
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.engine.trainer import RunningMeans, Trainer

ConfigMaker = Callable[..., RunConfig]
# A teacher that hardly moves is told from a student that has learned.
SLOW_TEACHER = ["teacher.decay=0.999", "teacher.ramp=false", "optim.learning_rate=0.05"]


def bare_run(config: RunConfig, folder: Path) -> Run:
    run = build_run(config, build_accelerator(config, folder), folder)
    run.trainer.hooks.clear()
    return run


def test_a_method_is_given_the_moving_average_the_place_and_the_rate_of_its_step(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("optim.gradient_accumulation_steps=2", "method.name=fixmatch", "log.tracker=none")
    run = bare_run(config, tmp_path)
    trainer, seen = run.trainer, []
    losses = trainer.method.losses

    def recorded(student: Any, teacher: Any, batch: Any, context: Any) -> Any:
        rates = [group["lr"] / group["base_learning_rate"] for group in trainer.optimizer.param_groups]
        seen.append((teacher is trainer.teacher.model, context.step, context.micro_step, context.rank, *set(rates)))
        return losses(student, teacher, batch, context)

    monkeypatch.setattr(trainer.method, "losses", recorded)
    monkeypatch.setattr(Accelerator, "process_index", property(lambda self: 3))
    trainer.train(run.batches())
    schedule = PolynomialSchedule(config.optim)
    assert len({schedule.factor(step) for step in range(4)}) > 2
    expected = [(True, step, micro, 3, schedule.factor(step)) for step in range(4) for micro in range(2)]
    assert [found[:4] for found in seen] == [wanted[:4] for wanted in expected]
    assert [found[4:] for found in seen] == [pytest.approx(wanted[4:]) for wanted in expected]


def check_shipped(run: Run) -> None:
    """Check that `model/` holds the teacher, not the student, which has moved on."""
    shipped = load_file(run.output_dir / "model" / "model.safetensors")
    student = dict(run.trainer.unwrapped_student.segmenter.named_parameters())
    for name, parameter in run.trainer.teacher_segmenter.named_parameters():
        assert torch.equal(shipped[name], parameter.cpu()), name
        assert not torch.equal(shipped[name], student[name].cpu()), name


class Follow(Hook):
    """Moves a second teacher by hand after each optimizer step."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def after_step(self, trainer: Trainer) -> None:
        self.teacher.update(trainer.unwrapped_student.segmenter, trainer.step - 1)


@pytest.mark.parametrize("decoder", ["conv", "attention"])
def test_a_step_waits_for_no_value_from_the_device(
    tiny_config: ConfigMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device_without_values: torch.device,
    decoder: str,
) -> None:
    config = tiny_config("optim.max_grad_norm=1", f"model.mim_decoder_type={decoder}", "log.tracker=none")
    run = bare_run(config, tmp_path)
    batch = next(iter(run.batches()))
    device, trainer = device_without_values, run.trainer
    monkeypatch.setattr(Accelerator, "device", device)
    trainer.student.to(device)
    trainer.teacher.model.to(device)
    for step in range(2):
        trainer.run_micro_step(batch, 0)
        trainer.teacher.update(trainer.unwrapped_student.segmenter, step)
    assert {value.device for value in trainer.means.sums.values()} == {device}
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        trainer.means.read()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_teacher_moves_once_after_each_optimizer_step(
    tiny_config: ConfigMaker, tmp_path: Path, accumulation: int
) -> None:
    accumulate = f"optim.gradient_accumulation_steps={accumulation}"
    run = bare_run(tiny_config(accumulate, "log.tracker=none"), tmp_path)
    follow = Follow(copy.deepcopy(run.trainer.teacher))
    run.trainer.hooks.append(follow)
    run.trainer.train(run.batches())
    student = run.trainer.unwrapped_student.segmenter
    for (name, ours), theirs in zip(run.trainer.teacher.model.named_parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, dict(follow.teacher.model.named_parameters())[name]), name
        assert not torch.equal(ours, theirs), name


def test_gradients_are_clipped_before_the_optimizer_s_step(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    settings = ["optim.name=sgd", "optim.momentum=0", "optim.nesterov=false", "optim.weight_decay=0"]
    settings += ["optim.max_steps=1", "optim.warmup_steps=0", "optim.learning_rate=1", "optim.max_grad_norm=0.001"]
    run = bare_run(tiny_config(*settings, "method.name=supervised", "log.tracker=none"), tmp_path)
    before = [parameter.detach().clone() for parameter in run.trainer.student.parameters()]
    run.trainer.train(run.batches())
    moved = [(now.detach() - then).norm() for now, then in zip(run.trainer.student.parameters(), before, strict=True)]
    assert run.trainer.means.read()["gradient_norm"] > 0.001, "the norm that is logged is the one before"
    assert 0 < torch.stack(moved).norm().item() <= 0.001 * 1.01


def test_the_teacher_is_measured_and_shipped_and_not_the_student(tiny_config: ConfigMaker) -> None:
    # One evaluation, so that the last is the best.
    config = tiny_config(*SLOW_TEACHER, "optim.max_steps=8", "evaluation.interval=8")
    run = train(config)
    folder, trainer, evaluator = Path(str(config.output_dir)), run.trainer, run.evaluation.evaluator
    assert evaluator is not None
    results = json.loads((folder / "results.json").read_text())
    teacher, student = trainer.teacher.model, trainer.unwrapped_student.segmenter
    assert results["last_teacher"]["mean_iou"] == evaluator.evaluate(teacher).scores.mean_iou
    assert results["last_student"]["mean_iou"] == evaluator.evaluate(student).scores.mean_iou
    assert results["last_teacher"]["mean_iou"] != results["last_student"]["mean_iou"]
    check_shipped(run)


def test_without_validation_the_last_teacher_is_shipped(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    data = prepare(write_raw(tmp_path / "raw"), tmp_path / "data", [f"scene{number:02d}" for number in range(4)])
    run = train(tiny_config(*SLOW_TEACHER, data=data))
    assert run.evaluation.evaluator is None
    check_shipped(run)


def test_logged_values_are_means_over_the_micro_batches_since_the_last_reading() -> None:
    means = RunningMeans()
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value)})
    means.add({"loss": torch.tensor(3.0), "gradient_norm": torch.tensor(8.0)})
    assert means.read() == {"loss": 3.0, "gradient_norm": 8.0}
    means.add({"loss": torch.tensor(5.0)})
    assert means.read() == {"loss": 5.0}
    assert means.read() == {}
