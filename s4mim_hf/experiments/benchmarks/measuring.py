"""Measuring: interleaved repeats, quartiles, the bytes that autograd keeps, and on what it all ran."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from s4mim_hf.engine.results import machine_name, source_commit

T = TypeVar("T")


@dataclass(frozen=True)
class Quartiles:
    """The middle of some numbers, and the half of them around it."""

    lower: float
    median: float
    upper: float

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """Return "median [lower, upper]", each times `scale`."""
        lower, median, upper = (f"{scale * value:.{digits}f}" for value in (self.lower, self.median, self.upper))
        return f"{median} [{lower}, {upper}]"

    def to_dict(self) -> dict[str, float]:
        """Return the three by name."""
        return asdict(self)


def quartiles(values: Sequence[float]) -> Quartiles:
    """Return the quartiles of at least one number."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


def paired_ratios(values: Sequence[float], reference: Sequence[float]) -> Quartiles:
    """Return the quartiles of value / reference, round by round: what slows a whole round down cancels out."""
    return quartiles([one / other for one, other in zip(values, reference, strict=True)])


def progress(items: Collection[T], title: str) -> Iterable[T]:
    """Go through the items with a bar on standard error, which shows where they take longer than some seconds."""
    return tqdm(items, desc=title, delay=2, leave=False, dynamic_ncols=True)


def measure_interleaved(
    cases: Mapping[str, Callable[[], T]], rounds: int, warmup: int, title: str
) -> dict[str, list[T]]:
    """Call every case once a round, and return what it gave in each.

    The order is turned by one from round to round, so that none is always the first.

    Args:
        cases: by name, a function that returns what it measured: its own seconds.
        rounds: how often each is measured.
        warmup: rounds before, whose numbers are dropped.
        title: of the bar.
    """
    names = list(cases)
    found: dict[str, list[T]] = {name: [] for name in names}
    turns = [names[turn:] + names[:turn] for turn in (number % len(names) for number in range(warmup + rounds))]
    order = [(number, name) for number, turned in enumerate(turns) for name in turned]
    for number, name in progress(order, title):
        measured = cases[name]()
        if number >= warmup:
            found[name].append(measured)
    return found


def seconds_now(device: torch.device) -> float:
    """Return seconds from some fixed point, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class KeptBytes:
    """Bytes that autograd keeps for a backward pass, each storage counted once.

    Args:
        excluded: tensors that are held anyway: weights, inputs.
    """

    def __init__(self, excluded: Iterable[Tensor] = ()) -> None:
        self._excluded = {tensor.untyped_storage().data_ptr() for tensor in excluded}
        self._storages: dict[int, int] = {}

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(self._storages.values())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is kept in the block; its graphs must live until its end, or an address may be given out twice."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._excluded:
            self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int | None:
    """Return how many bytes `run` allocates at its highest, beyond what is held before; None but on CUDA."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return on what it is measured: machine, device, threads, torch, Python and commit."""
    return {
        "machine": machine_name(device),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": source_commit(),
    }


def in_words(where: Mapping[str, Any]) -> str:
    """Return `circumstances` as a line."""
    threads = f"{where['threads']} thread{'s' if where['threads'] != 1 else ''}"
    commit = f"commit {where['commit']}" if where["commit"] else "no commit known"
    return f"{where['machine']} ({where['device']}), {threads}, torch {where['torch']}, {commit}"


def mebibytes(count: int | None) -> str:
    """Return a number of bytes in MiB, a dash for None."""
    return "–" if count is None else f"{count / 2**20:.1f}"
