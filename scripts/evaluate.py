"""Evaluate a segmenter: mean IoU and accuracies, by class and over all, as the Hub's mean_iou counts them.

    python scripts/evaluate.py MODEL --data DIR
    accelerate launch scripts/evaluate.py MODEL --data DIR --sliding-window --json scores.json

Images are shown at their own size, normalised by the model's image processor; where that remembers a --max-side, larger
ones are shrunk to it, and scored at their labels' size.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import reduce
from rich.console import Console
from torch import Tensor

from s4mim_hf.command_line import join_processes, run
from s4mim_hf.data.prepared import PreparedData, load_prepared
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.evaluator import EvaluationResult, Evaluator
from s4mim_hf.evaluation.protocol_options import add_protocol_options, inference_of
from s4mim_hf.hub.load import load_model

if TYPE_CHECKING:
    from s4mim_hf.evaluation.hub_metric import MetricCollector


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a saved model, or Hub id")
    parser.add_argument("--data", required=True, help="prepared data folder, or 'synthetic'")
    parser.add_argument("--split", choices=["validation", "labeled"], default="validation", help="default validation")
    add_protocol_options(parser, center_crop=True)
    parser.add_argument("--metric", default="ours", help="ours, hub, or a folder with the Hub's metric; adds a check")
    parser.add_argument("--batch-size", type=int, default=4, help="images of one size at once (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    return parser.parse_args()


def load_reference(metric: str, state: PartialState, data: PreparedData) -> MetricCollector | None:
    """Load the Hub's metric before any work is done; None where only our own is asked for."""
    if metric == "ours":
        return None
    # This file has the name of the library that the metric needs, and its folder comes first on the path.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
    from s4mim_hf.evaluation.hub_metric import MetricCollector, load_hub_metric

    if state.num_processes > 1:
        raise InputError(f"--metric {metric} compares in one process only; run without accelerate launch")
    reference = load_hub_metric("mean_iou" if metric == "hub" else metric)
    if reference is None:
        raise InputError(
            "the Hub's mean_iou cannot be had (no connection, or HF_HUB_OFFLINE is set); "
            "use --metric ours, or --metric FOLDER with a copy of it"
        )
    return MetricCollector(reference, len(data.id2label), data.ignore_index)


def check_classes(model: Any, data: PreparedData, model_name: str) -> None:
    """Refuse a model that predicts other classes than the data has."""
    if model.config.num_labels != len(data.id2label):
        raise InputError(
            f"{model_name} predicts {model.config.num_labels} classes, but {data.path} has {len(data.id2label)}; "
            "evaluate on data with the model's classes"
        )
    for class_id, name in data.id2label.items():
        if model.config.id2label[class_id] != name:
            raise InputError(
                f"class {class_id} is {model.config.id2label[class_id]!r} in {model_name}, "
                f"but {name!r} in {data.path}; "
                "evaluate on data with the model's classes in the model's order"
            )


def check_processor(processor: Any, model_name: str) -> None:
    """Refuse a processor that makes other pixels of a picture than the evaluation does."""
    factor = getattr(processor, "rescale_factor", None)
    if getattr(processor, "do_flip_channel_order", None):
        what = "swaps red and blue (do_flip_channel_order)"
    elif not getattr(processor, "do_rescale", None) or not math.isclose(factor or 0, 1 / 255, rel_tol=1e-3):
        what = f"does not scale pictures to 0 .. 1 (do_rescale, and a rescale_factor of {factor})"
    elif not getattr(processor, "do_normalize", None):
        what = "does not normalise pictures (do_normalize)"
    else:
        return
    raise InputError(
        f"the image processor of {model_name} {what}, but here pictures are scaled to 0 .. 1 and normalised by its "
        "image_mean and image_std, as those of models trained here; evaluate such a model"
    )


def main() -> None:
    """Evaluate and print; with a reference metric, compare with it."""
    arguments = parse_arguments()
    state = join_processes()
    inference = inference_of(arguments)
    if arguments.json is not None and arguments.json.is_dir():
        raise InputError(f"--json: {arguments.json} is a folder; name a file")
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        raise InputError(f"--json: there is no folder {arguments.json.absolute().parent}; create it first")
    data = load_prepared(arguments.data, unlabeled=False)
    model, processor = load_model(arguments.model)
    check_classes(model, data, arguments.model)
    check_processor(processor, arguments.model)
    rows = data.validation if arguments.split == "validation" else data.labeled
    collector = load_reference(arguments.metric, state, data)
    evaluator = Evaluator(
        rows,
        id2label=data.id2label,
        ignore_index=data.ignore_index,
        image_mean=processor.image_mean,
        image_std=processor.image_std,
        inference=inference,
        max_side=getattr(processor, "max_side", None),
        batch_size=arguments.batch_size,
        data_name=f"{data.name} {arguments.split}, {0 if rows is None else len(rows)} images",
        device=state.device,
        rank=state.process_index,
        world_size=state.num_processes,
        reduce=sum_over_processes,
        progress=state.is_main_process,
        on_prediction=collector,
    )
    result = evaluator.evaluate(model.to(state.device))
    if state.is_main_process:
        show(result, data, arguments)
        if collector is not None:
            compare(result, collector.compute())


def sum_over_processes(counts: Tensor) -> Tensor:
    """Sum counts over all processes."""
    return reduce(counts, "sum")


def show(result: EvaluationResult, data: PreparedData, arguments: argparse.Namespace) -> None:
    """Print the table, and write the JSON file where one is asked for."""
    Console().print(result.table(data.id2label))
    if arguments.json is not None:
        content = {
            **result.to_dict(data.id2label),
            "model": arguments.model,
            "split": arguments.split,
            "split_hash": data.split_hash,
        }
        try:
            arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--json: {arguments.json} cannot be written: {error}; give another file") from None


def compare(result: EvaluationResult, theirs: dict[str, Any]) -> None:
    """Print both metrics' means and how far they are apart."""
    from s4mim_hf.evaluation.hub_metric import largest_difference

    for name in ("mean_iou", "mean_accuracy", "overall_accuracy"):
        print(f"{name}: ours {getattr(result.scores, name):.6f}, reference {float(np.asarray(theirs[name])):.6f}")
    difference = largest_difference(result.scores, theirs)
    print("all five numbers agree" if difference < 1e-9 else f"they DIFFER by up to {difference:.3g}")


if __name__ == "__main__":
    run(main)
