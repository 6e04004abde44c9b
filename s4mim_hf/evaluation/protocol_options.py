"""The evaluation protocol on a command line: its options, what they mean, and the options that mean a given one."""

from __future__ import annotations

import argparse

from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import InferenceConfig, Protocol

_WINDOW = InferenceConfig().window
_SCALES = (0.75, 1.0, 1.25)


def add_protocol_options(parser: argparse.ArgumentParser, *, center_crop: bool) -> None:
    """Add --sliding-window, --window, --tta and, where only the centre may count, --center-crop."""
    protocol = parser.add_mutually_exclusive_group()
    protocol.add_argument("--sliding-window", action="store_true", help="average overlapping windows")
    if center_crop:
        protocol.add_argument("--center-crop", type=int, metavar="N", help="count the N x N centre only")
    parser.add_argument(
        "--window", type=int, metavar="PX", help=f"with --sliding-window: side of a window (default {_WINDOW})"
    )
    parser.add_argument("--tta", action="store_true", help="average scales 0.75, 1, 1.25 and mirrored images")


def inference_of(arguments: argparse.Namespace) -> InferenceConfig:
    """Return the protocol that the options name.

    Raises:
        InputError: a side is not positive, or --window is given where nothing is cut into windows.
    """
    crop: int | None = getattr(arguments, "center_crop", None)
    for option, side in (("--window", arguments.window), ("--center-crop", crop)):
        if side is not None and side < 1:
            raise InputError(f"{option} is {side}; it must be at least 1")
    if arguments.window is not None and not arguments.sliding_window:
        raise InputError(f"--window {arguments.window} belongs to --sliding-window; give both, or neither")
    protocol: Protocol = "sliding_window" if arguments.sliding_window else "whole"
    return InferenceConfig(
        protocol=protocol if crop is None else "center_crop",
        window=crop or arguments.window or _WINDOW,
        scales=_SCALES if arguments.tta else (1.0,),
        flip=arguments.tta,
    )


def options_of(inference: InferenceConfig) -> list[str] | None:
    """Return the options of scripts/evaluate.py that mean this protocol; None where no options do."""
    options = {
        "whole": [],
        "sliding_window": ["--sliding-window", "--window", str(inference.window)],
        "center_crop": ["--center-crop", str(inference.window)],
    }[inference.protocol]
    if inference.averages:
        options.append("--tta")
    parser = argparse.ArgumentParser()
    add_protocol_options(parser, center_crop=True)
    found = inference_of(parser.parse_args(options))
    return options if found.describe() == inference.describe() else None
