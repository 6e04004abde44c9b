"""Which part of a training step takes how long: clocks around the trainer's calls, taken off again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from s4mim_hf.engine.trainer import Trainer
from s4mim_hf.experiments.benchmarks.measuring import seconds_now

PARTS = ("data", "teacher", "student", "backward", "optimizer", "rest")
"""Waiting for data; the forward passes; the backward pass; the optimizer's step; views, losses and averaging."""


class PartClock:
    """Seconds by part of a step; parts must not overlap.

    Args:
        device: is waited for wherever a part begins and ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        started = seconds_now(self._device)
        yield
        self.seconds[name] += seconds_now(self._device) - started


class _TimedCall:
    """Stands for an object, one of whose methods is timed as a part."""

    def __init__(self, target: Any, method: str, clock: PartClock, part: str) -> None:
        self._target, self._method, self._clock, self._part = target, method, clock, part

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return self._timed(found) if name == self._method else found

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self._clock.part(self._part):
                return function(*arguments, **keywords)

        return call


@contextmanager
def timed_parts(trainer: Trainer, clock: PartClock) -> Iterator[None]:
    """Have the clock follow what the trainer does in the block, but for waiting for data."""
    accelerator, optimizer = trainer.accelerator, trainer.optimizer
    with ExitStack() as stack:
        for module, part in ((trainer.teacher.model, "teacher"), (trainer.student, "student")):
            stack.callback(_follow(module, clock, part))
        trainer.accelerator = _TimedCall(accelerator, "backward", clock, "backward")
        trainer.optimizer = _TimedCall(optimizer, "step", clock, "optimizer")  # type: ignore[assignment]
        try:
            yield
        finally:
            trainer.accelerator, trainer.optimizer = accelerator, optimizer


def _follow(module: nn.Module, clock: PartClock, part: str) -> Callable[[], None]:
    """Time a module's forward passes; return how to stop that."""
    running = ExitStack()
    hooks = [
        module.register_forward_pre_hook(lambda *_: running.enter_context(clock.part(part))),
        module.register_forward_hook(lambda *_: running.close()),
    ]

    def stop() -> None:
        for hook in hooks:
            hook.remove()

    return stop
