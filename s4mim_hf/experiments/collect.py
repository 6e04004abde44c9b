"""From the folders of finished runs to the tables' numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.one_run import CIRCUMSTANCES_FILE
from s4mim_hf.experiments.plan import AblationPlan, settings_hash
from s4mim_hf.experiments.results import (
    FORMAT_VERSION,
    AblationResults,
    EvaluationPoint,
    FailedRun,
    FractionTable,
    RowSummary,
    RunRecord,
    Spread,
)
from s4mim_hf.experiments.rows import FULLY_SUPERVISED, SUPERVISED, UNIMATCH_ROWS, Row
from s4mim_hf.experiments.runner import Failure
from s4mim_hf.experiments.states import read_run_results
from s4mim_hf.experiments.statistics import paired_difference, share_of_the_way, spread_of

Records = Sequence[RunRecord]


def collect(plan: AblationPlan, command: str, recipe: str, failures: Sequence[Failure] = ()) -> AblationResults:
    """Read every finished run of the plan, those of earlier calls included, and compare.

    Args:
        plan: the runs.
        command: the command line.
        recipe: what the runs started from.
        failures: runs that failed in this call.
    """
    found = {cell: results for cell in plan.shown if (results := read_run_results(cell)) is not None}
    records = {cell: _record(plan, cell, results) for cell, results in found.items()}
    first: Mapping[str, Any] = next(iter(found.values()), {})
    optim, data = plan.cells[0].config.optim, plan.cells[0].config.data
    accumulation = optim.gradient_accumulation_steps
    runs = list(records.values())
    return AblationResults(
        format_version=FORMAT_VERSION,
        complete=len(records) == len(plan.shown),
        recipe=recipe,
        data=plan.source.description,
        protocol=first.get("protocol"),
        evaluated_on=first.get("evaluated_on"),
        relative_to=plan.relative_to,
        seeds=plan.seeds,
        steps=optim.max_steps,
        labeled_batch_size=data.labeled_batch_size * accumulation,
        unlabeled_batch_size=data.unlabeled_batch_size * accumulation,
        tables=[_table(plan, fraction, records) for fraction in plan.fractions],
        runs=runs,
        failed=[
            FailedRun(
                fraction=failure.cell.fraction,
                row=failure.cell.row.name,
                seed=failure.cell.seed,
                sentence=failure.sentence,
                log=_relative(plan, failure.cell.log_file.as_posix()),
            )
            for failure in failures
        ],
        commits=_distinct(record["commit"] for record in runs),
        machines=_distinct(_machine(record) for record in runs),
        command=command,
        notes=[*plan.notes, *_notes(plan, runs)],
    )


def better_unimatch(table: Sequence[RowSummary]) -> str | None:
    """Return the UniMatch row with the higher mean at the last step; None unless the table has both with a number."""
    means = {line["row"]: line["last"]["mean"] for line in table if line["row"] in UNIMATCH_ROWS and line["last"]}
    return max(means, key=lambda row: means[row]) if len(means) == len(UNIMATCH_ROWS) else None


def summarize(
    row: Row, records: Records, *, planned: int, settings: str, others: Mapping[str, Records], relative_to: str | None
) -> RowSummary:
    """Put the runs of a row at one label fraction together.

    Args:
        row: the row.
        records: its finished runs.
        planned: how many there will be.
        settings: hash of the settings that its runs would have now.
        others: finished runs of every row at this fraction, by name.
        relative_to: the row that the difference is to.
    """
    last = _by_seed(records)
    reference = _by_seed(others.get(relative_to or "", ()))
    floor, ceiling = (_by_seed(others.get(name, ())) for name in (SUPERVISED, FULLY_SUPERVISED))
    memory = [record["peak_memory_bytes"] for record in records if record["peak_memory_bytes"] is not None]
    return RowSummary(
        row=row.name,
        title=row.title,
        planned=planned,
        last=spread_of(list(last.values())),
        best=_spread(records, lambda record: record["best"]),
        student=_spread(records, lambda record: record["student"]),
        difference=None if row.name == relative_to else paired_difference(last, reference),
        share_of_the_way=share_of_the_way(last, floor, ceiling),
        train_seconds=_spread(records, lambda record: record["train_seconds"]),
        images_per_second=_spread(records, lambda record: record["images_per_second"]),
        peak_memory_bytes=max(memory, default=None),
        memory_kind=next((record["memory_kind"] for record in records if record["memory_kind"]), None),
        settings_hash="/".join(_distinct(record["settings_hash"] for record in records)) or settings,
    )


def _table(plan: AblationPlan, fraction: str, records: Mapping[Cell, RunRecord]) -> FractionTable:
    cells = {row.name: found for row in plan.rows if (found := plan.cells_of(fraction, row))}
    done = {name: [records[cell] for cell in row_cells if cell in records] for name, row_cells in cells.items()}
    lines = [
        summarize(
            row,
            done[row.name],
            planned=len(cells[row.name]),
            settings=settings_hash(cells[row.name][0].config),
            others=done,
            relative_to=plan.relative_to,
        )
        for row in plan.rows
        if row.name in cells
    ]
    return FractionTable(fraction=fraction, rows=lines, better_unimatch=better_unimatch(lines))


def _record(plan: AblationPlan, cell: Cell, results: Mapping[str, Any]) -> RunRecord:
    path = cell.folder / CIRCUMSTANCES_FILE
    around = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    best = results.get("best_teacher") or {}
    measured = best.get("step") is not None
    return RunRecord(
        fraction=cell.fraction,
        row=cell.row.name,
        seed=cell.seed,
        folder=_relative(plan, cell.folder.as_posix()),
        split_hash=results["split_hash"],
        labeled=around.get("labeled"),
        unlabeled=around.get("unlabeled"),
        last=(results.get("last_teacher") or {}).get("mean_iou"),
        best=best["mean_iou"] if measured else None,
        best_step=best["step"] if measured else None,
        student=(results.get("last_student") or {}).get("mean_iou"),
        evaluations=[
            EvaluationPoint(step=point["step"], teacher=point["teacher"], student=point["student"])
            for point in results.get("evaluation", [])
        ],
        train_seconds=results.get("train_seconds"),
        images_per_second=results.get("images_per_second"),
        peak_memory_bytes=results.get("peak_memory_bytes"),
        memory_kind=results.get("memory_kind"),
        commit=results.get("commit"),
        config_hash=results.get("config_hash"),
        settings_hash=around.get("settings_hash"),
        machine=around.get("machine"),
        torch=around.get("torch"),
        threads=around.get("threads"),
        jobs=around.get("jobs"),
    )


def _relative(plan: AblationPlan, path: str) -> str:
    return path.removeprefix(f"{plan.output.as_posix()}/")


def _by_seed(records: Records) -> dict[int, float]:
    return {record["seed"]: record["last"] for record in records if record["last"] is not None}


def _spread(records: Records, value: Callable[[RunRecord], float | None]) -> Spread | None:
    return spread_of([number for record in records if (number := value(record)) is not None])


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value is not None))


def _machine(record: RunRecord) -> str | None:
    if record["machine"] is None:
        return None
    threads = "1 thread" if record["threads"] == 1 else f"{record['threads']} threads"
    return f"{record['machine']}, torch {record['torch']}, {threads} a run"


def _notes(plan: AblationPlan, runs: Records) -> list[str]:
    """Return what limits the numbers: shared machines, several commits."""
    notes = []
    jobs = sorted({record["jobs"] for record in runs if record["jobs"] is not None})
    if jobs and jobs[-1] > 1:
        at_once = " or ".join(str(number) for number in jobs)
        notes.append(f"{at_once} runs at once shared the machine, and so their times and images per second")
    commits = _distinct(record["commit"] for record in runs)
    if len(commits) > 1:
        notes.append(f"the runs are of {len(commits)} commits: {', '.join(commits)}")
    if len(plan.fractions) > 1 and any(row.name == FULLY_SUPERVISED for row in plan.rows):
        notes.append(f"the runs of {FULLY_SUPERVISED} are the same in every table")
    return notes
