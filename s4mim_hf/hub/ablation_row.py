"""What an ablation says of the row that a model is a run of, in Markdown for its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s4mim_hf.errors import InputError
from s4mim_hf.hub.card_facts import read_json
from s4mim_hf.hub.card_text import table

# The row whose runs have all labels, whatever the table's fraction; this package may not import the rows.
_CEILING, _ALL = "fully_supervised", "all"


def ablation_row(path: Path, config_hash: str | None) -> str:
    """Find the run of a configuration in an ablation's results.json, and return its row among the others.

    Args:
        path: the ablation's `results.json`.
        config_hash: the run's, as its own `results.json` has it.

    Raises:
        InputError: the file is none of an ablation, or holds no such run.
    """
    results = read_json(path)
    if not {"tables", "runs", "relative_to", "seeds", "steps"} <= set(results):
        raise InputError(f"--ablation: {path} is no results.json of an ablation; give the one in the ablation's folder")
    if config_hash is None:
        raise InputError("--ablation needs a finished run of that ablation, with its results.json; give its folder")
    run = next((run for run in results["runs"] if run["config_hash"] == config_hash), None)
    if run is None:
        raise InputError(
            f"--ablation: {path} has no run of this configuration (hash {config_hash}); give the folder of one of its "
            f"{len(results['runs'])} runs, or another file"
        )
    tables = [found for found in results["tables"] if any(line["row"] == run["row"] for line in found["rows"])]
    # The ceiling is in all of them, and of no fraction itself.
    shown = next((found for found in tables if found["fraction"] == run["fraction"]), tables[0])
    rows = _rows(results, shown, run["row"])
    return "\n\n".join([_introduction(results, run), rows, _reading(results, shown)])


def _introduction(results: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    unfinished = "" if results["complete"] else " The ablation is not finished: numbers may still change."
    labels = f" with {run['labeled']} labelled images" if run.get("labeled") is not None else ""
    return (
        f"This model is one run, with seed {run['seed']}, of the row `{run['row']}` of an ablation of the recipe "
        f"`{results['recipe']}`{labels}: equal steps ({results['steps']}), labelled batches, backbone, augmentation "
        f"and evaluation for all rows. mIoU in percent of the teacher at the last step; "
        f"data: {results['evaluated_on']}; protocol: {results['protocol']}.{unfinished}"
    )


def _rows(results: Mapping[str, Any], shown: Mapping[str, Any], own: str) -> str:
    """Return all rows, so that none that a reader would compare with is missing, the model's own in bold."""
    reference, seeds = results["relative_to"], results["seeds"]
    heading = ["row", "mIoU, last", *([f"difference to {reference}"] if reference else [])]
    # Of one run with its seed a reader must see whether it is a lucky one.
    heading.append(f"by seed ({', '.join(map(str, seeds))})")
    last = {(run["row"], run["seed"]): run["last"] for run in _runs(results, shown)}
    lines = []
    for row in shown["rows"]:
        name = f"**{row['row']}**" if row["row"] == own else row["row"]
        difference = [_spread(row["difference"], signed=True)] if reference else []
        by_seed = [last.get((row["row"], seed)) for seed in seeds]
        scores = ", ".join("–" if score is None else f"{100 * score:.1f}" for score in by_seed)
        lines.append([name, _spread(row["last"]), *difference, scores])
    return table(heading, lines)


def _runs(results: Mapping[str, Any], shown: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the runs of a table: those of its fraction, and the ceiling's, which all tables share.

    Other rows have runs with all labels too where that is a fraction of the ablation; those are of its table alone.
    """
    return [
        run for run in results["runs"] if run["fraction"] == (_ALL if run["row"] == _CEILING else shown["fraction"])
    ]


def _spread(spread: Mapping[str, Any] | None, signed: bool = False) -> str:
    if spread is None:
        return "–"
    mean = 100 * spread["mean"]
    text = f"{mean:+z.1f}" if signed else f"{mean:.1f}"
    return text if spread["std"] is None else f"{text} ± {100 * spread['std']:.1f}"


def _reading(results: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, results["seeds"]))
    if len(results["seeds"]) == 1:
        return f"One run a row (seed {seeds}): that says little, because nothing here tells how far apart two runs are."
    # A prepared folder is one labelled split for all seeds; of raw images each seed draws its own.
    # All labels may be one split beside seeded draws, so the ceiling counts only where the table has nothing else.
    runs = _runs(results, shown)
    of_fraction = [run for run in runs if run["row"] != _CEILING] or runs
    drawn = len({run["split_hash"] for run in of_fraction}) > 1
    splits = "each with its labelled draw" if drawn else "all of one labelled split"
    return f"Mean ± sample standard deviation over the seeds {seeds}, {splits}; differences are paired by seed."
