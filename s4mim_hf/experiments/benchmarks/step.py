"""What a training step of each method costs, by the real trainer on the real loader.

Rounds are interleaved: in each, every method trains a few steps in a row, as a run would, from a loader started anew.
The parts of a step come from further steps, in which the device is waited for around every part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.prepared import PreparedData, load_prepared
from s4mim_hf.engine.build import Run, build_accelerator, build_run
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.config_schema import schema_of
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError, nearest
from s4mim_hf.experiments.benchmarks.measuring import (
    KeptBytes,
    Quartiles,
    measure_interleaved,
    mebibytes,
    paired_ratios,
    peak_bytes,
    progress,
    quartiles,
    seconds_now,
)
from s4mim_hf.experiments.benchmarks.step_parts import PARTS, PartClock, timed_parts
from s4mim_hf.methods import METHODS

REFERENCE = "supervised"


@dataclass(frozen=True)
class StepSettings:
    """What is trained, and how often it is measured.

    Args:
        recipe: a recipe's name, or a YAML file.
        overrides: `key=value`; one of a method's own settings counts for the methods that have it.
        methods: which are measured; `REFERENCE` always is.
        rounds: how often each method is measured.
        steps: optimizer steps that a round measures. Each worker has two batches ready when they begin, so where
            loading is what takes long, it shows only with many more steps than that.
        warmup: steps before these, in every round, which do not count.

    Raises:
        InputError: an unknown method, or a number that is too small.
    """

    recipe: str = "demo"
    overrides: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)
    rounds: int = 5
    steps: int = 4
    warmup: int = 1

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise InputError(
                    f"--methods names {method!r}{nearest(method, METHODS)} (methods: {', '.join(METHODS)})"
                )
        for name, least in (("rounds", 1), ("steps", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        if any(override.replace(" ", "").startswith("method.name=") for override in self.overrides):
            raise InputError("method.name is what is compared here; choose methods by --methods instead")


def config_of(method: str, settings: StepSettings) -> RunConfig:
    """Return the run of one method: the recipe's, with the overrides that the method has, and long enough.

    Raises:
        InputError: the recipe or an override is wrong.
    """
    keys = {override: override.partition("=")[0].strip() for override in settings.overrides}
    nobodys = [override for override, key in keys.items() if not any(key in schema_of(name) for name in METHODS)]
    if nobodys:
        # S4MIM has the most settings, so that the sentence can name the nearest one.
        load_run_config(settings.recipe, ["method.name=s4mim", *nobodys])
    its_own = [override for override, key in keys.items() if key in schema_of(method)]
    config = load_run_config(settings.recipe, [f"method.name={method}", *its_own])
    needed = (settings.rounds + 2) * (settings.warmup + settings.steps) + 1
    optim = dataclasses.replace(config.optim, max_steps=max(needed, config.optim.max_steps))
    return dataclasses.replace(config, optim=optim)


@dataclass
class MethodCost:
    """One method with what was measured of it.

    Attributes:
        run: ready to train, without hooks.
        seconds: per optimizer step, by round.
        parts: share of each of `PARTS` in a step, adding up to 1.
        kept_bytes: what autograd keeps between the forward and the backward pass, beyond the weights.
        resident_bytes: weights and buffers of student and teacher, and the optimizer's state.
        peak_bytes: the highest use of the device's memory, these included; None but on CUDA.
    """

    run: Run
    seconds: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    kept_bytes: int = 0
    resident_bytes: int = 0
    peak_bytes: int | None = None

    @property
    def images(self) -> int:
        """Training images that a step reads, labelled and unlabelled."""
        config = self.run.trainer.config
        unlabeled = config.data.unlabeled_batch_size if self.run.trainer.method.needs_unlabeled else 0
        return (config.data.labeled_batch_size + unlabeled) * config.optim.gradient_accumulation_steps

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        device: torch.device = self.run.trainer.accelerator.device
        return device

    def train(self, batches: Iterator[Batch], steps: int) -> None:
        """Train optimizer steps on batches still to come."""
        accumulation = self.run.trainer.config.optim.gradient_accumulation_steps
        self.run.trainer.train(islice(batches, steps * accumulation))

    def measure(self, warmup: int, steps: int) -> float:
        """Train from a new loader, and return the seconds per step after `warmup` of them."""
        with contextlib.closing(self.run.batches()) as batches:
            self.train(batches, warmup)
            started = seconds_now(self.device)
            self.train(batches, steps)
            return (seconds_now(self.device) - started) / steps

    def measure_parts(self, warmup: int, steps: int) -> None:
        """Set `parts`, of steps that wait for the device around every part."""
        clock = PartClock(self.device)
        accumulation = self.run.trainer.config.optim.gradient_accumulation_steps
        with contextlib.closing(self.run.batches()) as batches:
            self.train(batches, warmup)
            started = seconds_now(self.device)
            with timed_parts(self.run.trainer, clock):
                for _ in range(steps):
                    with clock.part("data"):
                        ready = list(islice(batches, accumulation))
                    self.train(iter(ready), 1)
            total = seconds_now(self.device) - started
        clock.seconds["rest"] = total - sum(clock.seconds.values())
        self.parts = {name: clock.seconds[name] / total for name in PARTS}

    def measure_memory(self) -> None:
        """Set the numbers of bytes."""
        trainer = self.run.trainer
        held = list(_held_tensors(self.run))
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
        self.resident_bytes = sum(storages.values())
        with contextlib.closing(self.run.batches()) as batches:
            kept = KeptBytes(held)
            with kept.counting():
                losses = trainer.compute_losses(next(batches), 0).total()
            del losses
            self.kept_bytes = kept.total
            more = peak_bytes(lambda: self.train(batches, 1), self.device)
        self.peak_bytes = None if more is None else self.resident_bytes + more


def _held_tensors(run: Run) -> Iterator[Tensor]:
    trainer = run.trainer
    yield from trainer.unwrapped_student.state_dict().values()
    yield from trainer.teacher.state().values()
    for state in trainer.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


@dataclass(frozen=True)
class StepBenchmark:
    """What was measured.

    Args:
        settings: what was asked for.
        costs: by method, in the table's order.
    """

    settings: StepSettings
    costs: dict[str, MethodCost]

    def ratio(self, method: str) -> Quartiles:
        """Return a method's time per step over the reference's, round by round."""
        return paired_ratios(self.costs[method].seconds, self.costs[REFERENCE].seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {
            "settings": {**dataclasses.asdict(self.settings), "data": self._data()},
            "methods": {
                name: {
                    "seconds_per_step": quartiles(cost.seconds).to_dict(),
                    "all_seconds_per_step": cost.seconds,
                    "ratio_to_supervised": self.ratio(name).to_dict(),
                    "images_per_second": cost.images / quartiles(cost.seconds).median,
                    "parts": cost.parts,
                    "kept_bytes": cost.kept_bytes,
                    "resident_bytes": cost.resident_bytes,
                    "peak_bytes": cost.peak_bytes,
                }
                for name, cost in self.costs.items()
            },
        }

    def _data(self) -> str:
        cost = self.costs[REFERENCE]
        data = cost.run.trainer.config.data
        batch = f"{data.labeled_batch_size} labelled + {data.unlabeled_batch_size} unlabelled"
        return f"{cost.run.data.name}, crops of {data.views.crop_size}, {batch}, {data.num_workers} workers"

    def tables(self) -> list[Table]:
        """Return what was measured, for a terminal."""
        settings = self.settings
        title = (
            f"Recipe {settings.recipe}: {self._data()}; median and quartiles; rounds: {settings.rounds}, steps a "
            f"round: {settings.steps}"
        )
        times = Table("method", "ms per step", "ratio to supervised", "images per s", title=Text(title))
        parts = Table("method", *PARTS, title=Text("Parts of a step, in %"))
        names = ("kept for backward", "weights and optimizer", "device's peak")
        memory = Table("method", *names, title=Text("Memory, in MiB"))
        for name, cost in self.costs.items():
            seconds = quartiles(cost.seconds)
            cells = (seconds.text(1000), self.ratio(name).text(digits=2), f"{cost.images / seconds.median:.1f}")
            times.add_row(name, *map(Text, cells))
            parts.add_row(name, *(f"{100 * cost.parts[part]:.0f}" for part in PARTS))
            memory.add_row(name, *map(mebibytes, (cost.kept_bytes, cost.resident_bytes, cost.peak_bytes)))
        return [times, parts, memory]


def benchmark_step(settings: StepSettings) -> StepBenchmark:
    """Measure the methods round by round side by side.

    Raises:
        InputError: the recipe, an override or the data is wrong.
    """
    methods = [name for name in METHODS if name in (REFERENCE, *settings.methods)]
    configs = {name: config_of(name, settings) for name in methods}
    data = load_prepared(configs[REFERENCE].data.path)
    costs = {name: MethodCost(_ready(config, data)) for name, config in progress(configs.items(), "building")}
    rounds, steps, warmup = settings.rounds, settings.steps, settings.warmup
    blocks = {name: lambda cost=cost: cost.measure(warmup, steps) for name, cost in costs.items()}
    found = measure_interleaved(blocks, rounds, 1, "training steps")
    for name, cost in progress(costs.items(), "parts and memory"):
        cost.seconds = found[name]
        cost.measure_parts(warmup, steps)
        cost.measure_memory()
    return StepBenchmark(settings, costs)


def _ready(config: RunConfig, data: PreparedData) -> Run:
    """Build a run that trains and does nothing else; it writes nothing, and its announcements are left out."""
    folder = Path("unused")
    with contextlib.redirect_stderr(io.StringIO()):
        run = build_run(config, build_accelerator(config, folder), folder, data)
    run.trainer.hooks = []
    return run
