"""Predict class maps: as pictures, as a data set, or as pseudo-labels to train on.

    python scripts/predict.py MODEL IMAGES... --output DIR
    accelerate launch scripts/predict.py MODEL POOL --output DIR --format parquet
    python scripts/predict.py MODEL POOL --output DIR --pseudo-labels 0.95 --labeled DATA

IMAGES are image files, folders, patterns such as 'photos/**/*.jpg' (in quotes), shards of a pool such as
'POOL/pool-*.tar' or '*.parquet', a prepared data folder, or one data set that datasets.load_dataset reads, on disk or
on the Hub (hf://datasets/USER/NAME[/CONFIG] or USER/NAME).

--format png (default for files) writes masks/NAME.png, whose values are class ids, and overlays/NAME.png with a legend,
at the image's own size. --format parquet (default for data sets and pools) writes shards with columns name, height,
width, mask, confidence and mean_confidence. --pseudo-labels TAU writes a prepared folder that train.py takes by
data.path=DIR: pixels whose class has a probability below TAU are ignored, and images stay byte for byte what they are.

Run again after an interruption: what is there is kept, and the results are those of one run (with --batch-size above 1
up to rounding). A PNG is kept unless it says that it is of other bytes than its picture file has now; those are
replaced, and counted. Parquet knows pictures by their names: after some were replaced give another --output.
Pseudo-labels of pictures that were replaced are refused. Exit codes: 0 all is predicted; 1 some images cannot be, each
of them named with the reason, and all others are; 2 the command cannot be carried out (bad input, a full disk), said in
one sentence. Under a launcher of several processes both are exit code 1.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from rich.console import Console

from s4mim_hf.command_line import join_processes, run
from s4mim_hf.data.prepared import PreparedData, load_prepared
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import shrinking_in_words
from s4mim_hf.evaluation.protocol_options import add_protocol_options, inference_of
from s4mim_hf.hub.load import load_model, model_palette
from s4mim_hf.prediction.claims import claimed, model_in_words, weights_hash
from s4mim_hf.prediction.predictor import Predictor
from s4mim_hf.prediction.pseudo_labels import PseudoLabelOptions, digest_of, digests_of
from s4mim_hf.prediction.sources import ImageSource, open_images
from s4mim_hf.prediction.summary import Summary
from s4mim_hf.prediction.tasks import ModelFacts, PictureTask, Process, PseudoLabelTask, ShardTask, Task

# One process may have much more to do than another, and the others wait.
_PATIENCE = timedelta(days=30)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a saved model, or Hub id")
    parser.add_argument("images", nargs="+", help="files, folders, patterns, shards, or one data set: see above")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--split", help="of a data set (default: unlabeled of prepared data, or the only one)")
    parser.add_argument("--image-column", help="of a data set or of parquet shards, or the images' suffix in tars")
    parser.add_argument("--format", choices=["png", "parquet"], help="default: png for files, parquet for data sets")
    parser.add_argument(
        "--overlay", action=argparse.BooleanOptionalAction, help="with png, write overlays (default), or not"
    )
    parser.add_argument(
        "--confidence", action="store_true", help="with png, write confidences/NAME.png: 255 x probability, rounded"
    )
    parser.add_argument("--pseudo-labels", type=float, metavar="TAU", help="0 < TAU <= 1: write data to train on")
    parser.add_argument(
        "--min-known", type=float, metavar="SHARE",
        help="with --pseudo-labels: images with a smaller share of known pixels become unlabelled ones (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--labeled", metavar="DATA",
        help="with --pseudo-labels: prepared data whose labelled and validation images are merged; the same images "
        "in the pool (byte for byte) are left out",
    )  # fmt: skip
    add_protocol_options(parser, center_crop=False)
    parser.add_argument("--batch-size", type=int, default=1, help="images of one size at once (default 1)")
    return parser.parse_args()


def main() -> int:
    """Predict what is not there yet; return 1 where some images cannot be predicted."""
    arguments = parse_arguments()
    check_options(arguments)
    inference = inference_of(arguments)
    state = join_processes(_PATIENCE)
    source = open_images(arguments.images, arguments.output, split=arguments.split, image_column=arguments.image_column)
    human = None if arguments.labeled is None else load_prepared(arguments.labeled, unlabeled=False)
    model, processor = load_model(arguments.model)
    facts = ModelFacts(
        name=model_in_words(arguments.model),
        weights=weights_hash(model),
        protocol=inference.describe() + shrinking_in_words(getattr(processor, "max_side", None)),
        id2label=model.config.id2label,
        palette=model_palette(model),
        max_side=getattr(processor, "max_side", None),
    )
    known = frozenset[bytes]() if human is None else digests_of(human)
    predictor = Predictor(
        model.to(state.device),
        processor,
        inference,
        classes=len(facts.id2label),
        batch_size=arguments.batch_size,
        leaves_out=(lambda data: digest_of(data) in known) if known else None,
    )
    task = build_task(arguments, source, facts, human)
    return carry_out(task, predictor, state, arguments, facts)


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    pseudo = arguments.pseudo_labels is not None
    for name, value in (("--min-known", arguments.min_known), ("--labeled", arguments.labeled)):
        if value is not None and not pseudo:
            raise InputError(f"{name} belongs to --pseudo-labels TAU; give both, or neither")
    pictures = {"--overlay": arguments.overlay is not None, "--confidence": arguments.confidence}
    for name in (name for name, given in pictures.items() if given):
        if pseudo or arguments.format == "parquet":
            other = "--pseudo-labels" if pseudo else "--format parquet, which always holds confidences,"
            raise InputError(f"{name} belongs to --format png; {other} takes no such option")
    if pseudo:
        if arguments.format is not None:
            raise InputError("--pseudo-labels writes prepared data, which has one format; leave --format out")
        PseudoLabelOptions(arguments.pseudo_labels, arguments.min_known or 0.0)


def build_task(
    arguments: argparse.Namespace, source: ImageSource, facts: ModelFacts, human: PreparedData | None
) -> Task:
    """Return what is to be written."""
    if arguments.pseudo_labels is not None:
        options = PseudoLabelOptions(arguments.pseudo_labels, arguments.min_known or 0.0)
        return PseudoLabelTask(source, facts, arguments.output, options, human)
    if (arguments.format or ("parquet" if source.is_data_set else "png")) == "parquet":
        if arguments.overlay is not None or arguments.confidence:
            raise InputError("--overlay and --confidence belong to --format png; add it, or leave them out")
        return ShardTask(source, facts, arguments.output)
    overlays = arguments.overlay is not False
    return PictureTask(source, facts, arguments.output, overlays=overlays, confidences=arguments.confidence)


def carry_out(task: Task, predictor: Predictor, state: Any, arguments: argparse.Namespace, facts: ModelFacts) -> int:
    """Predict in all processes; the main one holds the folder, and says what came of it."""
    more = {"model": facts.name, "classes": list(facts.id2label.values())}
    claim = claimed(task.folder, arguments.output, task.identity, more) if state.is_main_process else nullcontext()
    with claim:
        # Nobody writes before the folder is sure to be this call's.
        state.wait_for_everyone()
        found = gather_object([predict_share(task, predictor, state)])
        if not state.is_main_process:
            return 0
        total = Summary()
        for outcome in found:
            if isinstance(outcome, str):
                raise InputError(outcome)
            total.merge(outcome)
        for table in total.tables(facts.id2label):
            Console().print(table)
        print(task.finish(total, print))
    return 1 if total.bad else 0


def predict_share(task: Task, predictor: Predictor, state: Any) -> Summary | str:
    """Return what came of one process's share; an error in words, so that no process waits for one that has left."""
    try:
        return task.predict(predictor, Process(state.process_index, state.num_processes))
    except InputError as error:
        return str(error)


if __name__ == "__main__":
    run(main)
