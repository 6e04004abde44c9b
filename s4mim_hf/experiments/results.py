"""What an ablation leaves behind: the schema of its `results.json`.

Every mIoU, and every difference of two, is a share in [0, 1] (tables print hundred times that). `null` means: not
measured. Folders are relative to the folder of `results.json`, with forward slashes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypedDict

FORMAT_VERSION = 1
RESULTS_FILE = "results.json"


class Spread(TypedDict):
    """Numbers of several runs in short."""

    mean: float
    std: float | None
    """The sample standard deviation (n - 1); None for a single number."""
    n: int


class EvaluationPoint(TypedDict):
    """One evaluation while a run went on; mIoU of the teacher and, where it is measured, of the student."""

    step: int
    teacher: float | None
    student: float | None


class RunRecord(TypedDict):
    """One finished run."""

    fraction: str
    """How much of the data is labelled: as it was asked for ("1/8", "92", "all"), or the number of labelled images."""
    row: str
    seed: int
    folder: str
    split_hash: str
    labeled: int | None
    """Labelled images."""
    unlabeled: int | None
    last: float | None
    """mIoU of the teacher at the last step: the headline."""
    best: float | None
    """mIoU of the teacher at `best_step`, chosen by this very number: secondary."""
    best_step: int | None
    student: float | None
    """mIoU of the student at the last step."""
    evaluations: list[EvaluationPoint]
    train_seconds: float | None
    """Time inside the loop without evaluations, pictures and checkpoints."""
    images_per_second: float | None
    peak_memory_bytes: int | None
    memory_kind: str | None
    commit: str | None
    config_hash: str | None
    """The run's own, with its seed and its data."""
    settings_hash: str | None
    """Of all settings that change what is computed, but the seed; all runs of a row share it."""
    machine: str | None
    torch: str | None
    threads: int | None
    jobs: int | None
    """How many runs of the ablation shared the machine."""


class RowSummary(TypedDict):
    """One line of a table."""

    row: str
    title: str
    planned: int
    """How many runs it is the mean of when all are done."""
    last: Spread | None
    best: Spread | None
    student: Spread | None
    difference: Spread | None
    """Of `last` to the row `relative_to`, paired by draw and seed; None for that row itself."""
    share_of_the_way: float | None
    """(row - supervised) / (fully_supervised - supervised), of mean `last` over the seeds that all three have."""
    train_seconds: Spread | None
    images_per_second: Spread | None
    peak_memory_bytes: int | None
    """The largest of its runs."""
    memory_kind: str | None
    settings_hash: str
    """Its runs' own; several, with "/" between, where they were run by versions with different settings."""


class FractionTable(TypedDict):
    """The table of one label fraction. The row `fully_supervised` has the same runs in each of them."""

    fraction: str
    rows: list[RowSummary]
    """In the table's order: floor, ceiling, base, ..."""
    better_unimatch: str | None
    """The name of the UniMatch row with the higher mean `last`, where the table has both."""


class FailedRun(TypedDict):
    """A run that ended with an error."""

    fraction: str
    row: str
    seed: int
    sentence: str
    """The last line of its error."""
    log: str


class AblationResults(TypedDict):
    """The whole of `results.json`."""

    format_version: int
    complete: bool
    """Whether every planned run is finished."""
    recipe: str
    data: str
    """What was trained on, in words."""
    protocol: str | None
    evaluated_on: str | None
    relative_to: str | None
    """The row that differences are to; None where no row serves."""
    seeds: list[int]
    steps: int
    """Optimizer steps of every run."""
    labeled_batch_size: int
    """Labelled images per step, the same for every row."""
    unlabeled_batch_size: int
    tables: list[FractionTable]
    runs: list[RunRecord]
    failed: list[FailedRun]
    commits: list[str]
    machines: list[str]
    command: str
    notes: list[str]
    """What a reader should know, in sentences: rows left out, runs that shared a machine."""


def write_results(results: AblationResults, folder: Path) -> None:
    """Write `results.json` into `folder`, all at once."""
    path = folder / RESULTS_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
