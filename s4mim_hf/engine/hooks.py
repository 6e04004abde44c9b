"""What happens around the steps: logging, evaluation, checkpoints.

A hook sees the trainer and never changes the step. `s4mim_hf.engine.build` says in which order hooks stand, and why.
Hooks run in every process; what writes files asks for the main process first.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from s4mim_hf.engine.checkpoint import prune_checkpoints, save_checkpoint
from s4mim_hf.engine.idle_terms import IdleTerms
from s4mim_hf.engine.teacher import take_from_first_process
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.evaluator import EvaluationResult, Evaluator
from s4mim_hf.hub.export import ModelExporter

if TYPE_CHECKING:
    from s4mim_hf.engine.trainer import Trainer


# Mean cosine between prototypes of different classes from which features count as collapsed.
COLLAPSED = 0.99


class Hook:
    """Something periodic. Every method does nothing unless a subclass says otherwise.

    Attributes:
        is_part_of_training: whether its time after a step counts as training time.
    """

    is_part_of_training: ClassVar[bool] = False

    def before_training(self, trainer: Trainer) -> None:
        """Run once, before the first step; `trainer.step` is not 0 in a resumed run."""

    def after_step(self, trainer: Trainer) -> None:
        """Run after each optimizer step; `trainer.step` counts the steps done."""

    def after_training(self, trainer: Trainer) -> None:
        """Run once, after the last step."""


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether no floating-point tensor holds a NaN or an infinity; waits for the device once."""
    numbers = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    largest = [tensor.abs().max().float() for tensor in numbers]
    return not largest or bool(torch.stack(largest).isfinite().all())


def is_due(trainer: Trainer, interval: int | None) -> bool:
    """Say whether a hook of this interval acts now: at every `interval`-th step and at the last one."""
    return trainer.step == trainer.max_steps or (interval is not None and trainer.step % interval == 0)


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, each with `step` and `kind` ("train" or "evaluation")."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; a NaN (a class that never occurs) becomes null, which JSON has."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: _json_safe(value) for key, value in record.items()}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all records; a last line that an interruption cut short is left out."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def forget_after(self, step: int) -> None:
        """Drop what a run wrote after the checkpoint that it is resumed from, so that no step stands twice."""
        kept = [record for record in self.read() if record["step"] <= step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        os.replace(partial, self.path)


def _json_safe(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class LoggingHook(Hook):
    """Shows progress with losses and time left, and writes metrics.jsonl and the tracker.

    Args:
        metrics: where records go.
        interval: steps between records; each is the mean since the one before, of the main process's batches.

    Raises:
        InputError: (while training) when the loss is no longer finite.
    """

    # Reading the losses waits for the steps themselves.
    is_part_of_training = True

    def __init__(self, metrics: MetricsFile, interval: int) -> None:
        self.metrics = metrics
        self.interval = interval
        self._bar: tqdm[Any] | None = None
        self._started = 0.0
        self._warned_of_collapse = False
        self._idle_terms: IdleTerms | None = None
        self._last_read = 0

    def before_training(self, trainer: Trainer) -> None:
        """Start the bar."""
        self._started = time.monotonic()
        self._idle_terms = IdleTerms(trainer.config.method)
        self._last_read = trainer.step
        if trainer.accelerator.is_main_process:
            self.metrics.forget_after(trainer.step)
        self._bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.step,
            desc=f"train {trainer.config.method.name}",
            unit="step",
            dynamic_ncols=True,
            smoothing=0.1,
            disable=not trainer.accelerator.is_main_process,
        )

    def after_step(self, trainer: Trainer) -> None:
        """Advance the bar; every `interval` steps read the losses and write them down."""
        assert self._bar is not None
        self._bar.update()
        if not is_due(trainer, self.interval):
            return
        values = trainer.means.read()
        if not math.isfinite(values["loss"]):
            raise InputError(
                f"the loss is {values['loss']} at step {trainer.step}: training has diverged; "
                f"lower optim.learning_rate (now {trainer.config.optim.learning_rate}), set optim.max_grad_norm, "
                "or use mixed_precision=no"
            )
        if trainer.accelerator.is_main_process:
            for warning in self._warnings(trainer.step, values):
                tqdm.write(f"warning: at step {trainer.step} {warning}")
        rates = {group.get("name", "learning_rate"): group["lr"] for group in trainer.optimizer.param_groups}
        values["learning_rate"] = max(rates.values())
        if trainer.accelerator.is_main_process:
            seconds = round(time.monotonic() - self._started, 2)
            self.metrics.append({"step": trainer.step, "kind": "train", **values, "seconds": seconds})
        trainer.accelerator.log(values, step=trainer.step)
        short = {name.removeprefix("loss_")[:6]: f"{value:.3f}" for name, value in values.items() if "loss" in name}
        self._bar.set_postfix(short)

    def _warnings(self, step: int, values: dict[str, float]) -> list[str]:
        """Return what is wrong with the terms and has not been said yet."""
        assert self._idle_terms is not None
        warnings = self._idle_terms.update(values, step - self._last_read)
        self._last_read = step
        # Features of different classes that have become the same are what aggregation alone can cause.
        if not self._warned_of_collapse and values.get("between_class_similarity", 0.0) > COLLAPSED:
            self._warned_of_collapse = True
            warnings.append(
                f"features of different classes are alike (between_class_similarity "
                f"{values['between_class_similarity']:.3f}); lower method.aggregation.weight, or give it a warm-up"
            )
        return warnings

    def after_training(self, trainer: Trainer) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


class EvaluationHook(Hook):
    """Measures teacher and student on the validation split, and keeps the best teacher as `model/`.

    Without a validation split the last teacher is the model.

    Args:
        evaluator: of the validation split, or None where there is none.
        metrics: where records go.
        exporter: writes `model/`.
        interval: steps between evaluations.
        evaluate_student: whether the student is measured as well.
    """

    def __init__(
        self,
        evaluator: Evaluator | None,
        metrics: MetricsFile,
        exporter: ModelExporter,
        interval: int,
        evaluate_student: bool,
    ) -> None:
        self.evaluator = evaluator
        self.metrics = metrics
        self.exporter = exporter
        self.interval = interval
        self.evaluate_student = evaluate_student
        self.last: EvaluationResult | None = None
        self.last_student: EvaluationResult | None = None
        self.best: dict[str, Any] = {"step": None, "mean_iou": -1.0}

    def after_step(self, trainer: Trainer) -> None:
        """Evaluate when it is time."""
        if self.evaluator is None or not is_due(trainer, self.interval):
            return
        self.last, self.last_student = self._measure(self.evaluator, trainer)
        record: dict[str, Any] = {"teacher_mean_iou": self.last.scores.mean_iou}
        if self.last_student is not None:
            record["student_mean_iou"] = self.last_student.scores.mean_iou
        trainer.accelerator.log(record, step=trainer.step)
        if trainer.accelerator.is_main_process:
            protocol = {"protocol": self.last.protocol, "data": self.last.data}
            self.metrics.append({"step": trainer.step, "kind": "evaluation", **record, **protocol})
            numbers = ", ".join(f"{name.removesuffix('_mean_iou')} {100 * value:.1f}" for name, value in record.items())
            tqdm.write(f"step {trainer.step}: mIoU {numbers} ({self.last.protocol}; {self.last.data})")
        # A NaN (nothing to count) is never better than anything.
        if self.last.scores.mean_iou > self.best["mean_iou"]:
            self.best = {"step": trainer.step, "mean_iou": self.last.scores.mean_iou}
            if trainer.accelerator.is_main_process:
                self.exporter.export(trainer.teacher_segmenter, step=trainer.step, result=self.last)

    def _measure(self, evaluator: Evaluator, trainer: Trainer) -> tuple[EvaluationResult, EvaluationResult | None]:
        teacher = evaluator.evaluate(trainer.teacher.model)
        if not self.evaluate_student:
            return teacher, None
        student = trainer.unwrapped_student.segmenter
        # After a step each process has running statistics of its own batches; the wrapper takes the first one's at the
        # beginning of the next. Each process scores a part of the split, and all parts are of one network.
        take_from_first_process([buffer for buffer in student.buffers() if buffer.is_floating_point()])
        return teacher, evaluator.evaluate(student)

    def after_training(self, trainer: Trainer) -> None:
        """Export the last teacher where there was no validation split, or none of it could be counted."""
        if self.evaluator is not None and self.last is None:
            # Resumed from the checkpoint of the last step: what was measured there is in the metrics' file already.
            self.last, self.last_student = self._measure(self.evaluator, trainer)
        if self.best["step"] is not None:
            return
        if self.last is not None and self.last.scores.mean_iou > self.best["mean_iou"]:
            # Resumed there, too, but model/ was gone.
            self.best = {"step": trainer.step, "mean_iou": self.last.scores.mean_iou}
        if trainer.accelerator.is_main_process:
            self.exporter.export(trainer.teacher_segmenter, step=trainer.step, result=self.last)


class CheckpointHook(Hook):
    """Writes checkpoints/step_N and drops old ones.

    Args:
        output_dir: the run's folder.
        interval: steps between checkpoints; None: the last step only.
        keep: how many of the newest stay.
        evaluation: whose best result travels with the checkpoint, beside the training time so far.
        data: what tells that the data is the same, so that a run is not resumed on other data behind the same path.
    """

    def __init__(
        self,
        output_dir: Path,
        interval: int | None,
        keep: int,
        evaluation: EvaluationHook,
        data: Mapping[str, str | None],
    ) -> None:
        self.output_dir = output_dir
        self.interval = interval
        self.keep = keep
        self.evaluation = evaluation
        self.data = dict(data)

    def after_step(self, trainer: Trainer) -> None:
        """Save when it is time."""
        if not is_due(trainer, self.interval):
            return
        # The logged loss was finite before the step; a checkpoint of what is broken would replace the last good one.
        if not is_finite(trainer.teacher.state().values()):
            raise InputError(
                f"weights are no longer finite at step {trainer.step}: training has diverged; lower "
                f"optim.learning_rate (now {trainer.config.optim.learning_rate}), set optim.max_grad_norm, or use "
                "mixed_precision=no; the checkpoint before this step, if there is one, is kept"
            )
        extra = {
            **self.data,
            "best": self.evaluation.best,
            "train_seconds": trainer.clock.seconds,
        }
        save_checkpoint(
            self.output_dir, trainer.step, accelerator=trainer.accelerator, teacher=trainer.teacher, extra=extra
        )
        if trainer.accelerator.is_main_process:
            prune_checkpoints(self.output_dir, self.keep)
