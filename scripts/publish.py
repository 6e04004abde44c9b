"""Publish a run or a model on the Hub: one commit, private unless --public is given, the card last.

    python scripts/publish.py RUN USER/NAME --dry-run
    python scripts/publish.py RUN USER/NAME --license cc-by-nc-4.0 --ablation ABLATION/results.json

Of a run go model/, run_config.yaml (local paths shortened), metrics.jsonl, results.json, panels/ and curves.png; of a
model folder the model. An upload that was interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from s4mim_hf.command_line import run
from s4mim_hf.errors import InputError
from s4mim_hf.hub.publication import CardOptions, Publication, prepare_publication
from s4mim_hf.hub.publish import check_model_id, publish, rehearse, write_card


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN_OR_MODEL", help="folder of a run, or of a saved model")
    parser.add_argument("repo_id", metavar="USER/NAME", help="where on the Hub")
    parser.add_argument(
        "--public", action="store_true", help="let everybody see it, where it is new (default: private)"
    )
    parser.add_argument("--update", action="store_true", help="replace the model that is there already")
    parser.add_argument("--dry-run", action="store_true", help="show what would go where, and change nothing")
    card = parser.add_argument_group("the card")
    card.add_argument("--license", metavar="ID", help="the model's, as the Hub calls it (default apache-2.0)")
    card.add_argument(
        "--dataset-id", action="append", default=[], metavar="USER/NAME", help="data set of the Hub it was trained on"
    )
    card.add_argument("--ablation", type=Path, metavar="FILE", help="results.json of the ablation that the run is from")
    card.add_argument("--evaluation", type=Path, metavar="FILE", help="what evaluate.py --json wrote of this model")
    card.add_argument("--card", type=Path, metavar="FILE", help="write the card there as well, its pictures beside it")
    return parser.parse_args()


def show(publication: Publication, repo_id: str, console: Console) -> None:
    """Print what goes where."""
    table = Table(title=f"{len(publication.files)} files for the model {repo_id}", title_justify="left", box=box.SIMPLE)
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right")
    for file in publication.files:
        table.add_row(file.path, f"{file.size:,}")
    table.add_section()
    table.add_row("together", f"{publication.size:,}")
    console.print(table)
    if publication.left_out:
        console.print(f"not published: {', '.join(publication.left_out)}", highlight=False, soft_wrap=True)


def main() -> None:
    """Publish, or show what would be published."""
    arguments = parse_arguments()
    check_model_id(arguments.repo_id)
    if arguments.card is not None and arguments.card.is_dir():
        raise InputError(f"--card: {arguments.card} is a folder; name a file")
    options = CardOptions(
        license=arguments.license,
        dataset_ids=tuple(arguments.dataset_id),
        ablation=arguments.ablation,
        evaluation=arguments.evaluation,
    )
    publication = prepare_publication(arguments.source, arguments.repo_id, options)
    console = Console()
    private, repo_id = not arguments.public, arguments.repo_id

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    if arguments.card is not None:
        for path in write_card(publication, arguments.card):
            say(f"written: {path}")
    for note in publication.notes:
        say(note)
    if arguments.dry_run:
        show(publication, repo_id, console)
        for note in rehearse(publication, repo_id, private=private, update=arguments.update):
            say(note)
        say("dry run: nothing was sent")
        return
    done = publish(publication, repo_id, private=private, update=arguments.update, say=say)
    say(f"published: {done.url} (commit {done.commit[:12]})" if done.changed else f"{done.url} has all of it already")


if __name__ == "__main__":
    run(main)
