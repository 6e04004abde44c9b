"""How the reconstruction decoder's cost grows with classes, beside the decoder without gates and the loop over classes.

Legend: B images; S the crop's pixels, r the stride; h = ceil(S / r) positions to a side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from s4mim_hf.errors import InputError
from s4mim_hf.experiments.benchmarks.decoder_reference import (
    draw_class_map,
    run_attention_loop,
    run_class_loop,
    run_ungated,
    run_ungated_attention,
)
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
from s4mim_hf.modeling.mim_attention import AttentionDecoder
from s4mim_hf.modeling.mim_head import ClassWiseDecoder, ConvolutionDecoder
from s4mim_hf.randomness import derive_seed, generator

# Without gates; all classes at once; without gates once per class.
BASIC, ONE_PASS, LOOP = "basic", "one pass", "loop"
CLASSES = (2, 19, 150)
LOOP_CLASSES = (2, 19)
# Of convolutions; None is the decoder of attention.
KERNELS = (3, 5, None)
HEADS = 4


@dataclass(frozen=True)
class ReconstructionSettings:
    """What is reconstructed, and how often it is measured.

    Args:
        size: S, edge of the crop in pixels.
        stride: r, pixels per position of z.
        depth: blocks of the decoder.
        channels: of z and inside the decoder.
        batch: B.
        rounds: how often each case is measured.
        warmup: rounds before, which do not count.
        device: where.

    Raises:
        InputError: a number below 1, channels that attention cannot split, or fewer positions than classes.
    """

    size: int = 513
    stride: int = 4
    depth: int = 4
    channels: int = 64
    batch: int = 1
    rounds: int = 5
    warmup: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        for name in ("size", "stride", "depth", "channels", "batch", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.channels % HEADS:
            raise InputError(f"--channels is {self.channels}; it must be a multiple of the {HEADS} attention heads")
        if self.positions**2 < max(CLASSES):
            raise InputError(
                f"--size {self.size} at --stride {self.stride} has {self.positions} x {self.positions} positions, "
                f"fewer than the {max(CLASSES)} classes that are measured; use a larger --size or a smaller --stride"
            )

    @property
    def positions(self) -> int:
        """h, positions of z to a side."""
        return math.ceil(self.size / self.stride)

    @property
    def token_stride(self) -> int:
        """Pixels per token of the attention decoder: 16, or the next multiple of r."""
        return self.stride * math.ceil(16 / self.stride)


@dataclass
class Case:
    """One decoder at one number of classes.

    Attributes:
        decoder: what it is.
        kernel_size: of its convolutions; None for attention.
        classes: on its map; None where it looks at none.
        run: reconstructs z (B, C, h, w).
        weights: its parameters.
        seconds: forward and backward, by round.
        kept_bytes: what autograd keeps in between, beyond weights, z and the class map.
        peak_bytes: of the device's memory, beyond these; None but on CUDA.
    """

    decoder: str
    kernel_size: int | None
    classes: int | None
    run: Callable[[Tensor], Tensor]
    weights: list[Tensor]
    seconds: list[float] = field(default_factory=list)
    kept_bytes: int = 0
    peak_bytes: int | None = None

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return f"{self.decoder}, {_layers(self.kernel_size)}, {self.classes} classes"

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured, as JSON has it."""
        return {
            "decoder": self.decoder,
            "kernel_size": self.kernel_size,
            "classes": self.classes,
            "seconds": quartiles(self.seconds).to_dict(),
            "all_seconds": self.seconds,
            "kept_bytes": self.kept_bytes,
            "peak_bytes": self.peak_bytes,
        }


@dataclass(frozen=True)
class ReconstructionBenchmark:
    """What was measured.

    Args:
        settings: what was asked for.
        cases: in the table's order.
    """

    settings: ReconstructionSettings
    cases: list[Case]

    def case(self, decoder: str, kernel_size: int | None, classes: int | None) -> Case:
        """Return one case."""
        wanted = (decoder, kernel_size, classes)
        return next(case for case in self.cases if (case.decoder, case.kernel_size, case.classes) == wanted)

    def ratios(self) -> dict[str, Quartiles]:
        """Return what the benchmark is for, by what it says; memory is the same in every round."""
        found = {}
        for size in KERNELS:
            few, some, many = (self.case(ONE_PASS, size, count) for count in CLASSES)
            basic, loop = self.case(BASIC, size, None), self.case(LOOP, size, 19)
            where = _layers(size)
            found[f"time, 150 classes / 2 classes, {where}"] = paired_ratios(many.seconds, few.seconds)
            found[f"time, loop over 19 classes / one pass, {where}"] = paired_ratios(loop.seconds, some.seconds)
            found[f"time, one pass with 19 classes / basic, {where}"] = paired_ratios(some.seconds, basic.seconds)
            share = some.kept_bytes / basic.kept_bytes
            found[f"memory, one pass with 19 classes / basic, {where}"] = quartiles([share])
            found[f"memory, loop over 19 classes / one pass, {where}"] = quartiles([loop.kept_bytes / some.kept_bytes])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {
            "settings": {**asdict(self.settings), "device": str(self.settings.device)},
            "cases": [case.to_dict() for case in self.cases],
            "ratios": {name: ratio.to_dict() for name, ratio in self.ratios().items()},
        }

    def tables(self) -> list[Table]:
        """Return what was measured, and its ratios, for a terminal."""
        settings = self.settings
        on_cuda = settings.device.type == "cuda"
        measured = Table(
            "decoder", "layers", "classes", "forward + backward, ms", "kept, MiB",
            *(["peak, MiB"] if on_cuda else []),
            title=Text(
                f"{settings.batch} x {settings.size} x {settings.size} pixels, float32, z of {settings.channels} "
                f"channels at stride {settings.stride}, depth {settings.depth}; median and quartiles, rounds: "
                f"{settings.rounds}"
            ),
        )  # fmt: skip
        for case in self.cases:
            cells = [case.decoder, _layers(case.kernel_size), "–" if case.classes is None else str(case.classes)]
            cells += [quartiles(case.seconds).text(1000), mebibytes(case.kept_bytes)]
            cells += [mebibytes(case.peak_bytes)] if on_cuda else []
            measured.add_row(*map(Text, cells))
        ratios = Table("ratio", "median, quartiles", title=Text("Side by side"))
        for name, ratio in self.ratios().items():
            ratios.add_row(name, Text(ratio.text(digits=2) if name.startswith("time") else f"{ratio.median:.2f}"))
        return [measured, ratios]


def benchmark_reconstruction(settings: ReconstructionSettings) -> ReconstructionBenchmark:
    """Measure every decoder on the same features, round by round side by side."""
    device, side = settings.device, settings.positions
    draws = generator(0, "benchmark-features")
    features = torch.randn(settings.batch, settings.channels, side, side, generator=draws).to(device).requires_grad_()
    maps = {
        count: draw_class_map(side, count, generator(0, "benchmark-classes", count))
        .repeat(settings.batch, 1, 1)
        .to(device)
        for count in CLASSES
    }
    cases = _build_cases(settings, maps)
    for case in progress(cases, "memory"):
        kept = KeptBytes([features, *maps.values(), *case.weights])
        with kept.counting():
            output = case.run(features)
        del output
        case.kept_bytes = kept.total
        case.peak_bytes = _peak_bytes(case, features)
    found = measure_interleaved(
        {case.key: partial(_seconds, case, features) for case in cases},
        settings.rounds,
        settings.warmup,
        "reconstruction",
    )
    for case in cases:
        case.seconds = found[case.key]
    return ReconstructionBenchmark(settings, cases)


def _build_cases(settings: ReconstructionSettings, maps: dict[int, Tensor]) -> list[Case]:
    common: dict[str, Any] = {
        "channels": settings.channels,
        "depth": settings.depth,
        "expansion": 2,
        "patch": settings.stride,
    }
    torch.manual_seed(derive_seed(0, "benchmark-weights"))
    cases = []
    for size in KERNELS:
        decoder: ConvolutionDecoder | AttentionDecoder
        if size is None:
            token_patch = settings.token_stride
            decoder = AttentionDecoder(settings.channels, **common, heads=HEADS, token_patch=token_patch)
        else:
            decoder = ConvolutionDecoder(settings.channels, **common, kernel_size=size)
        decoder = decoder.to(settings.device)
        weights: list[Tensor] = list(decoder.parameters())
        cases.append(Case(BASIC, size, None, partial(_without_gates, decoder), weights))
        cases += [Case(ONE_PASS, size, count, partial(_on_map, decoder, maps[count]), weights) for count in CLASSES]
        cases += [
            Case(LOOP, size, count, partial(_in_a_loop, decoder, maps[count], count), weights) for count in LOOP_CLASSES
        ]
    return cases


def _layers(kernel_size: int | None) -> str:
    return "attention" if kernel_size is None else f"kernel {kernel_size}"


def _without_gates(decoder: ConvolutionDecoder | AttentionDecoder, features: Tensor) -> Tensor:
    if isinstance(decoder, AttentionDecoder):
        return run_ungated_attention(decoder, features)
    return run_ungated(decoder, features)


def _on_map(decoder: ClassWiseDecoder, class_map: Tensor, features: Tensor) -> Tensor:
    found: Tensor = decoder(features, class_map)
    return found


def _in_a_loop(
    decoder: ConvolutionDecoder | AttentionDecoder, class_map: Tensor, count: int, features: Tensor
) -> Tensor:
    if isinstance(decoder, AttentionDecoder):
        return run_attention_loop(decoder, features, class_map, count)
    return run_class_loop(decoder, features, class_map, count)


def _peak_bytes(case: Case, features: Tensor) -> int | None:
    """Measure a case's memory, from the same start as all others': no gradients, and the device has run it before."""
    if features.device.type == "cuda":
        _seconds(case, features)
    _drop_gradients(case, features)
    return peak_bytes(partial(_seconds, case, features), features.device)


def _drop_gradients(case: Case, features: Tensor) -> None:
    for tensor in (features, *case.weights):
        tensor.grad = None


def _seconds(case: Case, features: Tensor) -> float:
    """Reconstruct and go back once; the gradient that comes in is all ones, so no loss takes time."""
    _drop_gradients(case, features)
    started = seconds_now(features.device)
    output = case.run(features)
    output.backward(torch.ones_like(output))
    return seconds_now(features.device) - started
