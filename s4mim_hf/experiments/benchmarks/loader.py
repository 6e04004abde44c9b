"""How many images a second a core loads: bare decoding, our loader, and all of it image by image with Pillow.

Each is a data loader with one worker process of one thread, which reads the same pictures from memory. What counts is
the worker's processor time, transport to the main process included: on a machine that has other things to do it still
says what a core can feed. Time by the clock stands beside it. What our loader leaves to the device, the strong views,
is done on the CPU here, by one core, and is measured apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from rich.text import Text
from torch.utils.data import DataLoader, Dataset

from s4mim_hf.data.loaders import Batch
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.benchmarks.loader_cases import (
    BARE,
    CASES,
    OURS,
    REFERENCE,
    WITH_DEVICE,
    LoaderCase,
    Pipelines,
    finish_on_device,
)
from s4mim_hf.experiments.benchmarks.loader_pictures import Sample, make_samples
from s4mim_hf.experiments.benchmarks.measuring import Quartiles, measure_interleaved, paired_ratios, quartiles


@dataclass(frozen=True)
class LoaderSettings:
    """What is loaded, and how often it is measured.

    Args:
        images: a folder of photographs to use; None for made ones.
        rounds: how often each is measured.
        warmup: rounds before that do not count.
        cases: which kinds of pictures.

    Raises:
        InputError: a number that is too small.
    """

    images: Path | None = None
    rounds: int = 7
    warmup: int = 1
    cases: tuple[LoaderCase, ...] = CASES

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be at least {least}")


class Cost(NamedTuple):
    """Seconds per image.

    Args:
        core: of a core, for making the views and sending them to the main process.
        making: of these, for making them.
        wall: by the clock; NaN where the clock says nothing.
    """

    core: float
    making: float
    wall: float


class _Stamp(NamedTuple):
    """When an item was begun, by the processor time that this process had used, and the time that making it took."""

    begun: float
    making: float


class _Stamped(Dataset[tuple[_Stamp, Any]]):
    """Items with their stamps."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __getitem__(self, number: int) -> tuple[_Stamp, Any]:
        # Another thread sends: the processor time of this one is that of making.
        begun, started = time.process_time(), time.thread_time()
        item = self._make(number)
        return _Stamp(begun, time.thread_time() - started), item


def _as_it_is(item: Any) -> Any:
    return item


def measure_worker(make: Callable[[int], Any], numbers: range, images: int) -> Cost:
    """Load with one worker process.

    Args:
        make: makes a batch of its number.
        numbers: of the batches; all but the first and the last count.
        images: in a batch.
    """
    batches = len(numbers) - 2
    loader = DataLoader(_Stamped(make), batch_size=None, sampler=numbers, num_workers=1, collate_fn=_as_it_is)
    stamps, arrivals = zip(*[(stamp, time.perf_counter()) for stamp, _ in loader], strict=True)
    # The first batch waits for the process to start; the last begins when those before it are made and sent.
    core, making = stamps[-1].begun - stamps[1].begun, sum(stamp.making for stamp in stamps[1:-1])
    return Cost(*(seconds / (batches * images) for seconds in (core, making, arrivals[-1] - arrivals[1])))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_device_part(batches: Sequence[Batch], images: int) -> Cost:
    """Do the device's part of some batches on one core of the CPU."""
    with _one_thread():
        started = time.process_time()
        for number, batch in enumerate(batches):
            finish_on_device(batch, number)
        core = (time.process_time() - started) / (len(batches) * images)
    return Cost(core, core, float("nan"))


def rate_ratio(costs: Mapping[str, Sequence[Cost]], row: str, other: str, part: str = "core") -> Quartiles:
    """Return how many times as many images a core loads by one row as by another, round by round.

    Args:
        costs: by row and round.
        row: a key.
        other: likewise.
        part: which field of the costs counts.
    """
    return paired_ratios([getattr(cost, part) for cost in costs[other]], [getattr(cost, part) for cost in costs[row]])


@dataclass(frozen=True)
class LoaderCosts:
    """What loading one kind of pictures costs.

    Args:
        case: which pictures.
        kilobytes: of an image file, on average.
        costs: by row, per image and round; `WITH_DEVICE` is the loader and the device's part together.
        labeled_costs: likewise, of batches of labelled images alone.
    """

    case: LoaderCase
    kilobytes: float
    costs: Mapping[str, Sequence[Cost]]
    labeled_costs: Mapping[str, Sequence[Cost]]

    def reached(self, part: str = "core") -> Quartiles:
        """Return what the case's goal is about, in all or without sending (`part` "making")."""
        return rate_ratio(self.costs, OURS, self.case.compared_with, part)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {
            "case": asdict(self.case),
            "kilobytes_per_image": self.kilobytes,
            "labeled_and_unlabeled": self._rows(self.costs),
            "labeled_alone": self._rows(self.labeled_costs),
            "goal": {
                "over": self.case.compared_with,
                "wanted": self.case.goal,
                "reached": self.reached().to_dict(),
                "reached_without_sending": self.reached("making").to_dict(),
            },
        }

    def _rows(self, costs: Mapping[str, Sequence[Cost]]) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for row, found in costs.items():
            core, making, wall = (quartiles(seconds) for seconds in zip(*found, strict=True))
            rows[row] = {
                "core_seconds_per_image": core.to_dict(),
                "of_these_making": making.to_dict(),
                "wall_seconds_per_image": None if row == WITH_DEVICE else wall.to_dict(),
                "images_per_second_per_core": 1 / core.median,
                "rate_over_reference": rate_ratio(costs, row, REFERENCE).to_dict(),
                "rate_over_bare_decoding": rate_ratio(costs, row, BARE).to_dict(),
            }
        return rows

    def tables(self) -> list[Table]:
        """Return a table of labelled and unlabelled images together, and one of labelled images alone."""
        pictures = f"{self.case.name}, {self.kilobytes:.0f} kB each"
        batch = self.case.batch_size
        return [
            self._table(f"{pictures}: {batch} labelled and {batch} unlabelled a batch", self.costs),
            self._table(f"{pictures}: labelled alone", self.labeled_costs),
        ]

    def _table(self, title: str, costs: Mapping[str, Sequence[Cost]]) -> Table:
        columns = ("images/s", "core", "making", "clock", "/ reference", "/ bare")
        caption = Text("ms an image: of a core, of these without sending, by the clock; rates over the others'")
        table = Table("", *columns, title=Text(title), caption=caption)
        for row, found in costs.items():
            core, making, wall = (quartiles(seconds).median for seconds in zip(*found, strict=True))
            cells = [f"{1 / core:.3g}", *(f"{1000 * seconds:.2f}" for seconds in (core, making, wall))]
            if row == WITH_DEVICE:
                cells[-1] = "–"
            cells += [rate_ratio(costs, row, other).text(digits=2) for other in (REFERENCE, BARE)]
            table.add_row(row, *map(Text, cells))
        return table


@dataclass(frozen=True)
class LoaderBenchmark:
    """What was measured.

    Args:
        settings: what was asked for.
        costs: by case.
    """

    settings: LoaderSettings
    costs: Sequence[LoaderCosts]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        settings = {"rounds": self.settings.rounds, "warmup": self.settings.warmup}
        pictures = "made" if self.settings.images is None else str(self.settings.images)
        return {"settings": {**settings, "pictures": pictures}, "cases": [costs.to_dict() for costs in self.costs]}

    def tables(self) -> list[Table]:
        """Return what was measured, for a terminal."""
        title = Text("Images a second of a worker's core, as ratios")
        goals = Table("goal", "wanted", "measured", "without sending", title=title)
        for costs in self.costs:
            name = f"{costs.case.name}: ours / {costs.case.compared_with}"
            reached = (costs.reached(part).text(digits=2) for part in ("core", "making"))
            goals.add_row(*map(Text, (name, f"{costs.case.goal:g}", *reached)))
        return [table for costs in self.costs for table in costs.tables()] + [goals]


def benchmark_loader(settings: LoaderSettings) -> LoaderBenchmark:
    """Measure all cases, round by round side by side.

    Raises:
        InputError: the folder of photographs cannot be used.
    """
    made = {}
    for case in settings.cases:
        made[case] = make_samples(case.pictures, case.width, case.height, case.image_format, settings.images)
    return LoaderBenchmark(settings, [_measure_case(case, samples, settings) for case, samples in made.items()])


def _measure_case(case: LoaderCase, samples: Sequence[Sample], settings: LoaderSettings) -> LoaderCosts:
    both, labeled = (_measure_pipelines(Pipelines(case, samples, both), settings) for both in (True, False))
    kilobytes = sum(len(sample.image) for sample in samples) / len(samples) / 1000
    return LoaderCosts(case, kilobytes, both, labeled)


def _measure_pipelines(pipelines: Pipelines, settings: LoaderSettings) -> dict[str, list[Cost]]:
    batches, images = pipelines.case.batches, pipelines.images
    loader = pipelines.ours()
    ready = [loader[number] for number in range(batches)]
    makers = {BARE: pipelines.decode, OURS: loader.__getitem__, REFERENCE: pipelines.reference}
    cases: dict[str, Callable[[], Cost]] = {row: _loading(make, batches, images) for row, make in makers.items()}
    cases[WITH_DEVICE] = lambda: measure_device_part(ready, images)
    found = measure_interleaved(cases, settings.rounds, settings.warmup, pipelines.case.name)
    pairs = zip(found[OURS], found[WITH_DEVICE], strict=True)
    together = [Cost(ours.core + device.core, ours.making + device.making, ours.wall) for ours, device in pairs]
    return {BARE: found[BARE], OURS: found[OURS], WITH_DEVICE: together, REFERENCE: found[REFERENCE]}


def _loading(make: Callable[[int], Any], batches: int, images: int) -> Callable[[], Cost]:
    """Return what measures a way to load, on further batches each time: their scales and crops are drawn anew."""
    firsts = count(step=batches + 2)

    def measure() -> Cost:
        first = next(firsts)
        return measure_worker(make, range(first, first + batches + 2), images)

    return measure
