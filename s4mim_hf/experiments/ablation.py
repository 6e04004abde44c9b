"""The whole ablation: plan, check, prepare, run what is missing, compare, draw."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
from rich.console import Console

from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.engine.build import build_method_for, check_batch_sizes
from s4mim_hf.engine.build_data import check_unlabeled, load_data
from s4mim_hf.engine.build_model import check_crop, planned_strides
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.collect import collect
from s4mim_hf.experiments.figures import draw_ablation, draw_reconstructions
from s4mim_hf.experiments.plan import AblationOptions, AblationPlan, plan_ablation
from s4mim_hf.experiments.progress import RunsWatcher
from s4mim_hf.experiments.results import AblationResults, write_results
from s4mim_hf.experiments.runner import Failure, only_call, run_cells
from s4mim_hf.experiments.states import check_cells, state_of
from s4mim_hf.experiments.tables import MARKDOWN_FILE, terminal_tables, write_markdown


def run_ablation(options: AblationOptions, console: Console) -> tuple[list[Failure], int]:
    """Run what is not finished yet, and compare all rows.

    The ablation's folder then holds `results.json` (see `s4mim_hf.experiments.results`), `results.md`,
    `ablation.png`, `reconstructions.png` where both kinds of image modelling are among the rows, the runs as
    runs/FRACTION/ROW/seed_N with a .yaml and a .log beside each, and data/ where draws were made.

    Returns:
        the failures, and the number of all runs; the tables hold those that did not fail.

    Raises:
        InputError: before any run starts, for anything that does not fit; later only where nothing can be written.
    """
    if "LOCAL_RANK" in os.environ:
        raise InputError("ablate.py starts its runs itself: call it with python, without a launcher")
    # A bar for each split that is loaded would break up ours.
    datasets.disable_progress_bars()
    plan = plan_ablation(options)
    for note in plan.notes:
        _say(console, f"note: {note}")
    check_cells(plan.cells)
    with only_call(plan.output):
        plan.source.prepare(
            dict.fromkeys((cell.fraction, cell.seed) for cell in plan.cells),
            say=lambda note: _say(console, f"note: {note}"),
        )
        _check_methods(plan)
        with _writing(plan.output):
            failures = _run(plan, options, console)
            results = _write(plan, options, failures)
            console.print(terminal_tables(results))
            made = [MARKDOWN_FILE, "results.json"]
            made += _draw(plan, results, console) if results["complete"] else []
    for name in made:
        _say(console, f"  {plan.output / name}")
    return failures, len(plan.cells)


def failure_sentence(failures: Sequence[Failure], total: int) -> str:
    """Say which runs failed, why, and where to read on."""
    shown = [f"{failure.cell.name}: {failure.sentence} (log: {failure.cell.log_file})" for failure in failures[:3]]
    more = [f"and {len(failures) - 3} more"] if len(failures) > 3 else []
    return f"{len(failures)} of {total} runs failed: {'; '.join([*shown, *more])}"


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn a full disk, or one that is gone, into a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--output {output} cannot be written to ({error.strerror or error}); what is finished stays: make room, "
            "and give the same command again"
        ) from error


def _check_methods(plan: AblationPlan) -> None:
    """Check every row against the data of its first draw, as a run would: settings may only fail together."""
    loaded: dict[str, PreparedData] = {}
    checked: set[tuple[str, str]] = set()
    for cell in plan.cells:
        if (cell.fraction, cell.row.name) in checked:
            continue
        checked.add((cell.fraction, cell.row.name))
        path = cell.config.data.path
        data = loaded[path] = loaded.get(path) or load_data(cell.config.data)
        stride, patch_size = planned_strides(cell.config.model)
        check_crop(cell.config, patch_size)
        # No check depends on the statistics' and the channels' values.
        method = build_method_for(cell.config, data, ((0.5,) * 3, (0.5,) * 3), stride, (1, 1))
        check_unlabeled(cell.config, data, method)
        check_batch_sizes(cell.config, method, processes=1)


def _run(plan: AblationPlan, options: AblationOptions, console: Console) -> list[Failure]:
    states = {cell: state_of(cell) for cell in plan.cells}
    to_run = [cell for cell in plan.cells if states[cell] != "finished"]
    count = Counter(states.values())
    runs = "1 run" if len(plan.cells) == 1 else f"{len(plan.cells)} runs"
    _say(
        console,
        f"{runs} in {plan.output}: {count['finished']} finished, {count['interrupted']} to go on from a checkpoint, "
        f"{count['new']} to start; {options.jobs} at once",
    )
    if not to_run:
        return []

    def write_tables() -> None:
        _write(plan, options, [])

    watcher = RunsWatcher(
        console, total=len(plan.cells), finished=count["finished"], to_run=to_run, after_each=write_tables
    )
    try:
        with watcher:
            return run_cells(to_run, options.jobs, watcher)
    except KeyboardInterrupt:
        console.print("all runs have ended; the same command goes on from their last checkpoints", highlight=False)
        raise


def _write(plan: AblationPlan, options: AblationOptions, failures: Sequence[Failure]) -> AblationResults:
    results = collect(plan, options.command, plan.cells[0].config.recipe, failures)
    write_results(results, plan.output)
    write_markdown(results, plan.output)
    return results


def _draw(plan: AblationPlan, results: AblationResults, console: Console) -> list[str]:
    """Draw what can be drawn, and return the files' names."""
    draw_ablation(results, plan.output / "ablation.png")
    made = ["ablation.png"]
    pair = _pair(plan.shown)
    if pair is None:
        return made
    basic, class_wise = pair
    data_path = class_wise.config.data.path
    try:
        draw_reconstructions(basic.folder, class_wise.folder, plan.output / "reconstructions.png", data_path=data_path)
    except InputError as error:
        # The tables are what counts, and somebody may have deleted checkpoints.
        _say(console, f"note: reconstructions.png is not drawn: {error}")
        return made
    return [*made, "reconstructions.png"]


def _pair(cells: Sequence[Cell]) -> tuple[Cell, Cell] | None:
    """Return the first two runs of either kind of image modelling on the same draw."""
    kinds = [
        {(cell.fraction, cell.seed): cell for cell in cells if cell.row.name == name}
        for name in ("basic_mim", "class_wise_mim")
    ]
    draw = next((draw for draw in kinds[0] if draw in kinds[1]), None)
    return None if draw is None else (kinds[0][draw], kinds[1][draw])


def _say(console: Console, text: str) -> None:
    """Print a line as it is, however long."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
