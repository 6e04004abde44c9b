"""What a person sees while the runs go on: a bar with the time left and the steps of each run, or a line a run."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.runner import Failure
from s4mim_hf.experiments.states import begins_at, read_run_results, step_of

# Rows cost differently: the time left is estimated over long stretches.
_ESTIMATE_SECONDS = 3600.0


class RunsWatcher:
    """Shows how runs go; a context manager around them.

    Args:
        console: where to; a bar on a terminal, else one line per ended run.
        total: runs in all, those included that were finished before.
        finished: of these.
        to_run: those that are started now.
        after_each: called when a run has ended.
    """

    def __init__(
        self, console: Console, *, total: int, finished: int, to_run: list[Cell], after_each: Callable[[], None]
    ) -> None:
        self._console = console
        self._total, self._done = total, finished
        self._after_each = after_each
        self._steps_ended = 0
        self._begun_at = {cell: begins_at(cell) for cell in to_run}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=_ESTIMATE_SECONDS,
            transient=True,
        )
        steps = sum(cell.config.optim.max_steps - self._begun_at[cell] for cell in to_run)
        self._all = self._bar.add_task(self._runs_done(), total=steps, unit="steps")
        self._tasks: dict[Cell, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self, cell: Cell) -> None:
        """Give the run a bar of its own."""
        self._tasks[cell] = self._bar.add_task(
            cell.name, total=cell.config.optim.max_steps, completed=self._begun_at[cell], unit="steps"
        )

    def waiting(self) -> None:
        """Read how far the runs are."""
        if not self._console.is_terminal:
            return
        going = 0
        for cell, task in self._tasks.items():
            step = step_of(cell)
            self._bar.update(task, completed=step)
            going += max(0, step - self._begun_at[cell])
        self._bar.update(self._all, completed=self._steps_ended + going)

    def ended(self, cell: Cell, failure: Failure | None) -> None:
        """Take the run's bar away and say in a line what came out."""
        self._bar.remove_task(self._tasks.pop(cell))
        self._done += failure is None
        self._steps_ended += cell.config.optim.max_steps - self._begun_at[cell]
        self._bar.update(self._all, completed=self._steps_ended, description=self._runs_done())
        outcome = _outcome(cell) if failure is None else f"failed: {failure.sentence}"
        self._console.print(
            f"{self._runs_done()}: {cell.name}: {outcome}", highlight=False, markup=False, soft_wrap=True
        )
        self._after_each()

    def _runs_done(self) -> str:
        return f"{self._done} of {self._total} runs"


def _outcome(cell: Cell) -> str:
    results = read_run_results(cell) or {}
    score = (results.get("last_teacher") or {}).get("mean_iou")
    seconds = results.get("train_seconds")
    words = "no mIoU" if score is None else f"{100 * score:.1f} mIoU"
    return words if seconds is None else f"{words}, trained for {seconds / 60:.1f} min"
