"""Turn images and masks into the three splits that training reads: labelled, unlabelled, validation.

    python scripts/prepare_data.py folder --source photos --output data/photos --classes road,tree,sky --labeled 1/8

SOURCE holds images/ and masks/ (8-bit class maps at the same relative paths, 255 = ignored), with train/ and val/ below
both or not. An image without a mask is unlabelled.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from s4mim_hf.command_line import run
from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.plan import PrepareOptions
from s4mim_hf.data.prepare import Report, prepare_folder, prepare_synthetic
from s4mim_hf.errors import InputError

FOLDER_OPTIONS = ("source", "labeled", "labeled_ids", "unlabeled_ids", "validation", "classes")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("kind", choices=["folder", *CATALOG, "synthetic"], help="your own folder, or a data set that is known by name")
    add("--source", type=Path, help="folder with images/ and masks/ (not for synthetic)")
    add("--output", type=Path, required=True, help="folder to write: new or empty")
    add("--labeled", metavar="1/8|92|all", help="training images that keep their masks (default: all that have one)")
    add("--labeled-ids", type=Path, metavar="FILE", help="the ids that keep their masks, one a line, instead of a draw")
    add("--unlabeled-ids", type=Path, metavar="FILE", help="the ids used without masks (default: all others)")
    add(
        "--validation",
        metavar="0.2|N|DIR|none",
        help="part of the training images with masks, their number, a folder with images/ and masks/, or none "
        "(default: val/ where there is one, else 0.2)",
    )
    add("--classes", metavar="A,B,C", help="class names in the order of their ids (default: SOURCE/classes.json)")
    add("--name", help="what the data set is called (default: the source folder's name)")
    add("--seed", type=int, default=0, help="of the labelled draw; drawn validation images are the same for all seeds")
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> Report:
    """Check which options go together, and prepare the data."""
    if arguments.kind == "synthetic":
        given = [option for option in FOLDER_OPTIONS if getattr(arguments, option) is not None]
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} is not for synthetic data, which has its own splits")
        return prepare_synthetic(arguments.output, arguments.seed, arguments.name)
    if arguments.source is None:
        raise InputError(f"--source is needed for {arguments.kind!r}: the folder that holds images/ and masks/")
    options = PrepareOptions(
        source=arguments.source,
        output=arguments.output,
        kind=arguments.kind,
        name=arguments.name,
        labeled=arguments.labeled,
        labeled_ids=arguments.labeled_ids,
        unlabeled_ids=arguments.unlabeled_ids,
        validation=arguments.validation,
        classes=None if arguments.classes is None else arguments.classes.split(","),
        seed=arguments.seed,
    )
    return prepare_folder(options, say=lambda note: print(f"note: {note}", file=sys.stderr, flush=True))


def table_of(report: Report) -> Table:
    """Return a table with one line a split."""
    table = Table(title=f"{report.name}: {len(report.classes)} classes, hash {report.split_hash[:12]}")
    table.add_column("split")
    for heading in ("images", "smallest", "largest", "classes present"):
        table.add_column(heading, justify="right")
    for split, numbers in report.splits.items():
        present = f"{len(numbers.ids)} of {len(report.classes)}" if split != "unlabeled" else "-"
        table.add_row(split, str(numbers.images), numbers.smallest, numbers.largest, present)
    return table


def main() -> None:
    """Prepare the data, show its splits, and say what to run next."""
    arguments = parse_arguments()
    report = prepare(arguments)
    Console().print(table_of(report))
    recipe = arguments.kind if arguments.kind in CATALOG else "custom"
    path = shlex.quote(f"data.path={arguments.output}")
    print(f"written to {arguments.output}; train on it with")
    print(f"  accelerate launch scripts/train.py --recipe {recipe} {path}")


if __name__ == "__main__":
    run(main)
