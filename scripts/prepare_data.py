"""Turn images and masks into the three splits that training reads (labelled, unlabelled, validation), or check them.

    python scripts/prepare_data.py folder --source photos --output data/photos --classes road,tree,sky --labeled 1/8
    python scripts/prepare_data.py check data/photos

"python scripts/prepare_data.py KIND --help" shows how the data of each kind must lie, and which options it has.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from s4mim_hf.command_line import run
from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import DRAWS, KINDS, PROTOCOLS, PrepareOptions, option_name, refusal, takes
from s4mim_hf.data.prepare import Report, prepare
from s4mim_hf.data.sources import layout_of
from s4mim_hf.errors import InputError

# Each field of `PrepareOptions` that the command line gives, in the order of the help text.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "source": {"help": "where the raw data is: {source}"},
    "output": {"type": Path, "required": True, "help": "folder to write: new or empty"},
    "labeled": {
        "metavar": "1/8|92|all",
        "help": "training images that keep their masks, drawn by --seed; a smaller draw lies inside a larger one, and "
        "every class is in it where there is room (default: all that have one)",
    },
    "labeled_ids": {
        "metavar": "FILE|URL",
        "help": "the ids that keep their masks, one a line, instead of a draw; published lists are read as they are",
    },
    "unlabeled_ids": {"metavar": "FILE|URL", "help": "the ids used without masks (default: all others)"},
    "validation": {
        "metavar": "0.2|N|DIR|none",
        "help": "part of the training images with masks, their number, a folder laid out as the source, or none "
        "(default: the source's own validation images where there are some, else 0.2)",
    },
    "draw": {
        "choices": DRAWS,
        "default": "plain",
        "help": "plain: all images alike; balanced: always for the class that the fewest drawn images show "
        "(default: plain)",
    },
    "group_by": {
        "metavar": "REGEX",
        "help": "keep images together whose ids have the same match of this expression, or of its first group: "
        "'^(.*)_' for the frames of a video that are called VIDEO_FRAME",
    },
    "seed": {
        "type": int,
        "default": 0,
        "help": "of the labelled draw; drawn validation images are the same for all seeds (default: 0)",
    },
    "classes": {
        "metavar": "A,B,C",
        "type": lambda text: text.split(","),
        "help": "class names in the order of their ids (default: those that the source names)",
    },
    "annotations": {
        "type": Path,
        "metavar": "JSON|DIR",
        "help": "folder: shapes instead of masks, as LabelMe's JSON files or a COCO export; coco: a file of instances",
    },
    "color_table": {
        "type": Path,
        "metavar": "FILE",
        "help": "the class of each colour, where masks are in RGB; JSON, CSV, or CamVid's and CVAT's label files",
    },
    "protocol": {
        "choices": PROTOCOLS,
        "help": "what a draw chooses from: classic: the 1,464 images of train; blended: those that SBD labels as well "
        "(default: classic)",
    },
    "sbd": {
        "type": Path,
        "metavar": "DIR",
        "help": "SBD's labels, where they are not beside VOC's: benchmark_RELEASE, or SegmentationClassAug",
    },
    "image_column": {"metavar": "NAME", "help": "the column with the pictures (default: the one that is called so)"},
    "label_column": {"metavar": "NAME", "help": "the column with the masks (default: the one that is called so)"},
    "train_split": {"metavar": "NAME", "help": "the split to train on (default: train)"},
    "validation_split": {
        "metavar": "NAME",
        "help": "the split to validate on (default: validation where there is one)",
    },
    "label_map": {
        "type": Path,
        "metavar": "JSON",
        "help": 'the new id, or the class\'s name, of each old id: {{"7": "road", "8": 255}}; 255 = ignored',
    },
    "config_name": {"metavar": "NAME", "help": "the configuration, where the data set has several"},
    "name": {"help": "what the data set is called (default: the source's name)"},
    "max_side": {
        "type": int,
        "metavar": "PX",
        "help": "store pictures whose longer side has more pixels shrunk to that; prediction then does the same",
    },
    "push_to_hub": {"metavar": "USER/NAME", "help": "push what was written to this data set of the Hub"},
    "private": {
        "flag": "--public",
        "dest": "private",
        "action": "store_false",
        "help": "let everybody see what is pushed, where that data set is new (default: private)",
    },
}


class KindParser(argparse.ArgumentParser):
    """Shows in its help how the data of its kind must lie, which is read from that kind's module only then."""

    kind: str | None = None

    def format_help(self) -> str:
        """Return the help text."""
        if self.kind is not None:
            self.description = layout_of(self.kind)
        return super().format_help()


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: an option belongs to another kind of source.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=KindParser)
    for kind, about in KINDS.items():
        form = argparse.RawDescriptionHelpFormatter
        command = kinds.add_parser(kind, help=about.summary, formatter_class=form, allow_abbrev=False)
        command.kind = kind
        for field, settings in ARGUMENTS.items():
            if takes(kind, field):
                given = {**settings, "help": settings["help"].format(source=about.source)}
                command.add_argument(given.pop("flag", option_name(field)), **given)
    check = kinds.add_parser("check", help="check a prepared folder, or a raw one, and print what is in it")
    check.add_argument("folder", metavar="DIR", help="a prepared folder, or one with images/ and masks/")
    check.add_argument("--json", type=Path, metavar="FILE", help="write all numbers and problems there as well")
    known, unknown = parser.parse_known_args(arguments)
    options = {option_name(field): field for field in ARGUMENTS} | {"--public": "private"}
    for text in unknown:
        option = text.partition("=")[0]
        if option in options and known.kind in KINDS:
            raise InputError(refusal(known.kind, options[option], option))
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return known


def options_of(arguments: argparse.Namespace) -> PrepareOptions:
    """Return what is asked for."""
    return PrepareOptions(**vars(arguments))


def table_of(report: Report) -> Table:
    """Return a table with one line a split."""
    table = Table(title=f"{report.name}: {len(report.classes)} classes, hash {report.split_hash[:12]}")
    table.add_column("split")
    for heading in ("images", "smallest", "largest", "classes present"):
        table.add_column(heading, justify="right")
    for split, numbers in report.splits.items():
        present = f"{len(numbers.ids)} of {len(report.classes)}" if split != "unlabeled" else "-"
        smallest, largest = (f"{width}x{height}" for width, height in (numbers.smallest, numbers.largest))
        table.add_row(split, str(numbers.images), smallest, largest, present)
    return table


def check_folder(folder: str, json_file: Path | None) -> int:
    """Check a folder, print what is in it, and return 2 where training would fail."""
    from s4mim_hf.data.checking import check

    # Before a check that may take an hour.
    if json_file is not None and not json_file.parent.is_dir():
        raise InputError(f"cannot write --json {json_file}: there is no folder {json_file.parent}; give another file")
    report = check(folder)
    for table in report.tables():
        Console().print(table)
    for kind, sentences in (("note", report.notes), ("warning", report.warnings), ("error", report.problems)):
        for sentence in sentences:
            print(f"{kind}: {sentence}", file=sys.stderr, flush=True)
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write --json {json_file}: {error.strerror or error}; give another file") from None
    if not report.problems:
        print("nothing that training would fail with")
    return 2 if report.problems else 0


def main() -> int:
    """Prepare the data, show its splits, and say what to run next."""
    arguments = parse_arguments()
    if arguments.kind == "check":
        return check_folder(arguments.folder, arguments.json)
    options = options_of(arguments)
    report = prepare(options, say=lambda note: print(f"note: {note}", file=sys.stderr, flush=True))
    Console().print(table_of(report))
    recipe = options.kind if options.kind in CATALOG else "custom"
    path = shlex.quote(f"data.path={options.output}")
    if report.address is not None:
        print(f"pushed to {report.address}")
    print(f"written to {options.output}; train on it with")
    print(f"  accelerate launch scripts/train.py --recipe {recipe} {path}")
    return 0


if __name__ == "__main__":
    run(main)
