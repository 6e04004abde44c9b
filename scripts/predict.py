"""Predict class maps: masks as palette PNGs at the images' own size, and overlays with a legend.

    python scripts/predict.py MODEL IMAGES... --output DIR
    accelerate launch scripts/predict.py MODEL IMAGES... --output DIR

IMAGES are image files, folders, or one prepared data folder, whose unlabelled images are predicted. Run again after an
interruption: what is there is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from s4mim_hf.command_line import run
from s4mim_hf.data.catalog import Color
from s4mim_hf.errors import InputError, some
from s4mim_hf.evaluation.inference import InferenceConfig, shrinking_in_words
from s4mim_hf.evaluation.prediction import FolderPredictor, claim_output, find_inputs
from s4mim_hf.hub.load import load_model, model_palette
from s4mim_hf.visualization import overlay, with_legend


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a saved model, or Hub id")
    parser.add_argument("images", nargs="+", help="image files, folders, or one prepared data folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write masks/ and overlays/ into")
    parser.add_argument("--sliding-window", action="store_true", help="average overlapping windows")
    parser.add_argument("--window", type=int, default=513, help="side of a window in pixels (default 513)")
    parser.add_argument("--tta", action="store_true", help="average scales 0.75, 1, 1.25 and mirrored images")
    parser.add_argument("--overlay", action=argparse.BooleanOptionalAction, default=True, help="write overlays")
    parser.add_argument("--batch-size", type=int, default=1, help="images of one size at once (default 1)")
    return parser.parse_args()


def main() -> None:
    """Predict what is not there yet; unreadable images are left out, named, and make the exit code 2."""
    arguments = parse_arguments()
    state = PartialState()
    if arguments.window < 1:
        raise InputError(f"--window is {arguments.window}; it must be at least 1")
    inputs = find_inputs(arguments.images, arguments.output)
    model, processor = load_model(arguments.model)
    inference = InferenceConfig(
        protocol="sliding_window" if arguments.sliding_window else "whole",
        window=arguments.window,
        scales=(0.75, 1.0, 1.25) if arguments.tta else (1.0,),
        flip=arguments.tta,
    )
    palette = model_palette(model)
    predictor = FolderPredictor(
        model.to(state.device),
        processor,
        inference,
        arguments.output,
        palette=palette,
        draw=partial(draw_overlay, id2label=model.config.id2label, palette=palette) if arguments.overlay else None,
        batch_size=arguments.batch_size,
    )
    if state.is_main_process:
        protocol = inference.describe() + shrinking_in_words(getattr(processor, "max_side", None))
        claim_output(arguments.output, {"model": arguments.model, "protocol": protocol})
    state.wait_for_everyone()
    waiting = [item for item in inputs if not predictor.is_done(item)]
    # Nobody may write before everybody has seen what is waiting, or the shares would overlap.
    state.wait_for_everyone()
    mine = waiting[state.process_index :: state.num_processes]
    failures = gather_object(list(predictor.predict(mine, progress=state.is_main_process).items()))
    if state.is_main_process:
        report(arguments.output, len(inputs), len(waiting), failures)


def draw_overlay(
    image: np.ndarray, label: np.ndarray, id2label: Mapping[int, str], palette: Sequence[Color]
) -> np.ndarray:
    """Lay a prediction over its image, with the legend of its classes below."""
    # No class is ignored in a prediction: 255, where it occurs, is the 256th class.
    painted = overlay(image, label, palette, ignore_index=-1)
    return with_legend(painted, label, id2label, palette)


def report(output: Path, found: int, waiting: int, failures: list[tuple[str, str]]) -> None:
    """Say what was written; raise InputError where images could not be read."""
    done, kept = waiting - len(failures), found - waiting
    if done == 0 and kept == 0:
        # Nothing was written that the record could be about.
        (output / "prediction.json").unlink(missing_ok=True)
    print(f"{done} predicted, {kept} kept from before, {len(failures)} unreadable; masks are in {output / 'masks'}")
    for name, error in failures:
        print(f"unreadable: {name}: {error}", file=sys.stderr)
    if failures:
        names = some(name for name, _ in failures)
        raise InputError(f"{len(failures)} of {found} images could not be read ({names}); replace them and run again")


if __name__ == "__main__":
    run(main)
