"""The training loop: one step, the same for every method, and hooks around it.

The step's own code never waits for the device: losses stay tensors until a hook reads them every `log.interval` steps.
Two of torch's parts do: SyncBatchNorm under several processes, and the loss scaler of `mixed_precision=fp16`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from s4mim_hf.data.loaders import Batch
from s4mim_hf.engine.optim import PolynomialSchedule
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.methods.base import Losses, Method, StepContext
from s4mim_hf.modeling.modeling_s4mim import S4MIMForSemanticSegmentation, S4MIMForSemiSupervisedSegmentation
from s4mim_hf.randomness import derive_seed

if TYPE_CHECKING:
    from s4mim_hf.engine.hooks import Hook


@dataclass
class RunningMeans:
    """Sums of named scalars since the last reading, kept on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one micro-batch's scalars (0-dimensional tensors on any device)."""
        for name, value in values.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Return the means and start anew; the only place where the loop waits for the device."""
        if not self.sums:
            return {}
        names = list(self.sums)
        means = torch.stack([self.sums[name] / self.counts[name] for name in names]).tolist()
        self.sums.clear()
        self.counts.clear()
        return dict(zip(names, means, strict=True))


class TrainingClock:
    """Seconds inside the loop, without evaluations, pictures and checkpoints.

    It never waits for the device. What is still queued there when an evaluation begins, at most about one step, counts
    for the evaluation; nothing is where the losses were read at the same step.

    Args:
        now: seconds from any fixed point in time.

    Attributes:
        seconds: so far; a resumed run goes on from its checkpoint's.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        """Go on counting."""
        self._started = self._now()

    def stop(self) -> None:
        """Stop counting, and add what has passed to `seconds`."""
        self.seconds += self._now() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the block; `seconds` is up to date inside it."""
        self.stop()
        yield
        self.start()


class Trainer:
    """Trains a student by a method's losses, and its teacher as the student's moving average.

    Args:
        config: the run's configuration.
        accelerator: devices, processes and mixed precision.
        student: the training model, prepared by `accelerator`.
        teacher: the student's exponential moving average.
        method: says what the losses of a batch are.
        optimizer: prepared by `accelerator`.
        schedule: learning rates by optimizer step.
        hooks: what happens around steps, in this order.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        accelerator: Accelerator,
        student: nn.Module,
        teacher: Teacher,
        method: Method,
        optimizer: torch.optim.Optimizer,
        schedule: PolynomialSchedule,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.student = student
        self.teacher = teacher
        self.method = method
        self.optimizer = optimizer
        self.schedule = schedule
        self.hooks = list(hooks)
        self.means = RunningMeans()
        self.clock = TrainingClock()
        self.step = 0

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.optim.max_steps

    @property
    def unwrapped_student(self) -> S4MIMForSemiSupervisedSegmentation:
        """The training model without wrappers of distribution or mixed precision."""
        return self.accelerator.unwrap_model(self.student)

    @property
    def teacher_segmenter(self) -> S4MIMForSemanticSegmentation:
        """The averaged segmenter, which is what evaluation measures and what is shipped."""
        return cast(S4MIMForSemanticSegmentation, self.teacher.model)

    def train(self, batches: Iterable[Batch]) -> None:
        """Run from `self.step` to `max_steps` over `batches`, one micro-batch each."""
        for hook in self.hooks:
            hook.before_training(self)
        accumulation = self.config.optim.gradient_accumulation_steps
        self.clock.start()
        for number, batch in enumerate(batches):
            with self.accelerator.accumulate(self.student):
                self.run_micro_step(batch, number % accumulation)
            if not self.accelerator.sync_gradients:
                continue
            self.teacher.update(self.unwrapped_student.segmenter, self.step)
            self.step += 1
            self._run_hooks()
        self.clock.stop()
        for hook in self.hooks:
            hook.after_training(self)

    def _run_hooks(self) -> None:
        for hook in self.hooks:
            if hook.is_part_of_training:
                hook.after_step(self)
            else:
                with self.clock.paused():
                    hook.after_step(self)

    def run_micro_step(self, batch: Batch, micro_step: int) -> None:
        """Forward, backward and, once enough micro-batches are in, the optimizer step."""
        self.student.train()
        self.schedule.apply(self.optimizer, self.step)
        losses = self.compute_losses(batch, micro_step)
        total = losses.total()
        self.accelerator.backward(total)
        max_norm = self.config.optim.max_grad_norm
        if max_norm is not None and self.accelerator.sync_gradients:
            self.means.add({"gradient_norm": self.accelerator.clip_grad_norm_(self.student.parameters(), max_norm)})
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.means.add(summarize(losses, total))

    def compute_losses(self, batch: Batch, micro_step: int) -> Losses:
        """Losses of one micro-batch, every random choice derived from the seed, the step and the process."""
        accelerator = self.accelerator
        rank = accelerator.process_index
        context = StepContext(
            self.step, self.config.optim.max_steps, micro_step, self.config.seed, rank, accelerator.device
        )
        # Dropout draws from torch's global generator: seeded by the step, a resumed run repeats an unbroken one.
        torch.manual_seed(derive_seed(self.config.seed, "dropout", self.step, micro_step, rank))
        batch = batch.to(accelerator.device)
        with accelerator.autocast():
            return self.method.losses(self.student, self.teacher.model, batch, context)


def summarize(losses: Losses, total: Tensor) -> dict[str, Tensor]:
    """Name what is logged: the total, each term raw (`loss_x`) and weighted (`weighted_x`), and diagnostics."""
    values = {"loss": total}
    for name, term in losses.terms.items():
        values[f"loss_{name}"] = term.value
        values[f"weighted_{name}"] = term.value * term.weight
    return {**values, **losses.metrics}
