"""Measure speed and memory, as ratios of what ran side by side on this machine.

python scripts/benchmark.py reconstruction                          the reconstruction decoder beside its alternatives
python scripts/benchmark.py step --recipe camvid data.path=DIR      a training step of each method
python scripts/benchmark.py loader                                  decoding and augmentation, per core
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from s4mim_hf.command_line import run
from s4mim_hf.engine.config_loading import recipe_names
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.benchmarks.loader import LoaderBenchmark, LoaderSettings, benchmark_loader
from s4mim_hf.experiments.benchmarks.loader_cases import QUICK_CASES
from s4mim_hf.experiments.benchmarks.measuring import circumstances, in_words
from s4mim_hf.experiments.benchmarks.reconstruction import (
    ReconstructionBenchmark,
    ReconstructionSettings,
    benchmark_reconstruction,
)
from s4mim_hf.experiments.benchmarks.step import StepBenchmark, StepSettings, benchmark_step
from s4mim_hf.methods import METHODS


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    decoder = commands.add_parser("reconstruction", help="time and memory of the reconstruction decoder")
    default = ReconstructionSettings()
    decoder.add_argument("--size", type=int, default=default.size, help="edge of the crop in pixels (%(default)s)")
    decoder.add_argument("--stride", type=int, default=default.stride, help="pixels per position (%(default)s)")
    decoder.add_argument("--depth", type=int, default=default.depth, help="blocks of the decoder (%(default)s)")
    decoder.add_argument("--channels", type=int, default=default.channels, help="of features and decoder (%(default)s)")
    decoder.add_argument("--batch", type=int, default=default.batch, help="images (%(default)s)")
    decoder.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    step = commands.add_parser("step", help="time and memory of a training step, by method")
    step.add_argument("--recipe", default="demo", help=f"one of {', '.join(recipe_names())}, or a YAML file (demo)")
    step.add_argument("--methods", default=",".join(METHODS), metavar="A,B,...", help="(%(default)s)")
    step.add_argument(
        "--steps",
        type=int,
        default=StepSettings.steps,
        help="a round measures; more where loading is slow (%(default)s)",
    )
    step.usage = "%(prog)s [options] [key=value ...]"
    step.epilog = "key=value: settings of the recipe, such as data.path=DIR"
    loader = commands.add_parser("loader", help="images a second that a core loads, beside bare decoding and Pillow")
    loader.add_argument("--images", type=Path, metavar="DIR", help="photographs to use in place of made pictures")
    all_rounds = ((decoder, default.rounds), (step, StepSettings.rounds), (loader, LoaderSettings.rounds))
    for command, rounds in all_rounds:
        command.add_argument("--rounds", type=int, default=rounds, help="how often each is measured (%(default)s)")
        command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as well")
        command.add_argument("--quick", action="store_true", help="seconds only: to see that it works, not to quote")
    # Overrides may stand anywhere, which sub-commands with positional arguments would not allow.
    arguments, others = parser.parse_known_args()
    overrides = [text for text in others if arguments.benchmark == "step" and not text.startswith("-")]
    if unknown := [text for text in others if text not in overrides]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides = overrides
    return arguments


def measure_reconstruction(arguments: argparse.Namespace, device: torch.device) -> ReconstructionBenchmark:
    """Run the benchmark of the decoder."""
    sizes = {name: getattr(arguments, name) for name in ("size", "stride", "depth", "channels", "batch", "rounds")}
    if arguments.quick:
        sizes |= {"size": 17 * arguments.stride, "depth": 1, "rounds": 2}
    return benchmark_reconstruction(ReconstructionSettings(**sizes, device=device))


def measure_step(arguments: argparse.Namespace) -> StepBenchmark:
    """Run the benchmark of the training step."""
    counts = {"rounds": arguments.rounds, "steps": arguments.steps}
    if arguments.quick:
        counts = {"rounds": 1, "steps": 1, "warmup": 0}
    settings = StepSettings(
        arguments.recipe,
        tuple(arguments.overrides),
        tuple(name.strip() for name in arguments.methods.split(",")),
        **counts,
    )
    return benchmark_step(settings)


def measure_loader(arguments: argparse.Namespace) -> LoaderBenchmark:
    """Run the benchmark of the loader."""
    if arguments.quick:
        return benchmark_loader(LoaderSettings(arguments.images, rounds=1, warmup=0, cases=QUICK_CASES))
    return benchmark_loader(LoaderSettings(arguments.images, arguments.rounds))


def device_of(name: str) -> torch.device:
    """Return a device.

    Raises:
        InputError: there is no such device.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--device {name} cannot be used ({reason}); use cpu, or cuda where there is a GPU") from None
    return device


def check_file(path: Path) -> None:
    """Refuse what cannot be written as a file, before anything is measured."""
    if not path.parent.is_dir():
        raise InputError(f"--json {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"--json {path} is a folder; name a file")


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write the numbers, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"--json {path} cannot be written to: {error.strerror}; name another file") from None


def main() -> None:
    """Measure, print the tables, and write the JSON file."""
    arguments = parse_arguments()
    if arguments.json is not None:
        check_file(arguments.json)
    console = Console()
    measured: ReconstructionBenchmark | StepBenchmark | LoaderBenchmark
    if arguments.benchmark == "reconstruction":
        device = device_of(arguments.device)
        measured = measure_reconstruction(arguments, device)
    elif arguments.benchmark == "loader":
        measured, device = measure_loader(arguments), torch.device("cpu")
    else:
        measured = measure_step(arguments)
        device = next(iter(measured.costs.values())).device
    where = circumstances(device)
    for table in measured.tables():
        console.print(table)
    console.print(in_words(where), highlight=False, soft_wrap=True)
    if arguments.json is not None:
        content = {"benchmark": arguments.benchmark, "quick": arguments.quick, **where, **measured.to_dict()}
        write_json(content, arguments.json)


if __name__ == "__main__":
    run(main)
