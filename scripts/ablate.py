"""Compare methods under equal conditions: the ablation's rows over seeds and label fractions, as one table.

python scripts/ablate.py                                                         all rows on the embedded scenes
python scripts/ablate.py --recipe camvid --source CAMVID --labeled 1/8,1/16      labelled draws of raw images
python scripts/ablate.py --recipe custom --rows supervised,s4mim data.path=DIR   what S4MIM gives on your own data

Called again after an interruption it goes on: finished runs are not repeated, and the tables hold every run in the
folder that has the same settings. All rows have equal steps, labelled batches, backbone, augmentation and evaluation;
the headline is the teacher at the last step.
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
from s4mim_hf.engine.config_loading import recipe_names
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.ablation import failure_sentence, run_ablation
from s4mim_hf.experiments.plan import AblationOptions
from s4mim_hf.experiments.rows import ROWS


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--recipe", default="demo", help=f"one of {', '.join(recipe_names())}, or a YAML file (default: demo)")
    add("--rows", metavar="A,B", help="rows to run (default: all; --list-rows)")
    add("--seeds", default="0,1,2", metavar="N,N", help="seeds of the runs and the labelled draws (default: 0,1,2)")
    add("--source", type=Path, metavar="DIR", help="folder of raw images to draw from, laid out as --kind says")
    add("--kind", choices=["folder", *CATALOG], help="what --source is (default: by the recipe's name, else folder)")
    add(
        "--labeled",
        metavar="1/8,92,all",
        help="how many images of --source keep their masks (default: 1/8; all where some have none)",
    )
    add("--validation", metavar="0.2|N|DIR", help="of --source (default: val/ where there is one, else 0.2)")
    add("--classes", metavar="A,B,C", help="class names of --source (default: its classes.json)")
    add("--relative-to", metavar="ROW", help="the row that differences are to (default: base, else supervised)")
    add("--jobs", type=int, default=1, metavar="N", help="runs at once on this machine (default: 1)")
    add("--output", type=Path, metavar="DIR", help="folder to write or to go on in (default: runs/ablation-RECIPE)")
    add("--list-rows", action="store_true", help="show the rows and end")
    add("overrides", nargs="*", metavar="key=value", help="settings for all rows, such as optim.max_steps=4000")
    return parser.parse_intermixed_args()


def options_of(arguments: argparse.Namespace) -> AblationOptions:
    """Read the lists."""
    return AblationOptions(
        recipe=arguments.recipe,
        rows=_names(arguments.rows, "--rows"),
        seeds=[_seed(text) for text in _names(arguments.seeds, "--seeds")],
        labeled=_names(arguments.labeled, "--labeled"),
        source=arguments.source,
        kind=arguments.kind,
        validation=arguments.validation,
        classes=_names(arguments.classes, "--classes") or None,
        relative_to=arguments.relative_to,
        jobs=arguments.jobs,
        output=arguments.output,
        overrides=arguments.overrides,
        command=shlex.join(["python", "scripts/ablate.py", *sys.argv[1:]]),
    )


def _names(text: str | None, option: str) -> list[str]:
    """Read a list; none where the option is not given."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise InputError(f"{option} {text!r} names nothing; leave it out, or give names with commas between")
    return names


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--seeds names {text!r}; seeds are whole numbers, as in --seeds 0,1,2") from None


def rows_table() -> Table:
    """Return every row with what it answers."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("row", "what it is", "what it answers"):
        table.add_column(heading)
    for row in ROWS.values():
        table.add_row(row.name, row.title, row.question)
    return table


def main() -> int:
    """Run the ablation; 1 where a run failed."""
    arguments = parse_arguments()
    if arguments.list_rows:
        Console().print(rows_table())
        return 0
    failures, total = run_ablation(options_of(arguments), Console())
    if failures:
        print(f"error: {failure_sentence(failures, total)}", file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    run(main)
