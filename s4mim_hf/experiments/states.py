"""How far each run of an ablation is: what must not be run again, what goes on, and what may be cleared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from s4mim_hf.engine.checkpoint import (
    differences_that_count,
    has_other_content,
    latest_checkpoint,
    read_trainer_state,
)
from s4mim_hf.engine.config_loading import saved_settings, to_dict
from s4mim_hf.engine.results import RESULTS_FILE
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.cells import Cell

State = Literal["finished", "interrupted", "new"]


def state_of(cell: Cell) -> State:
    """Say whether a run is finished, has a checkpoint to go on from, or starts anew."""
    if _finished_step(cell) is not None:
        return "finished"
    return "new" if latest_checkpoint(cell.folder) is None else "interrupted"


def begins_at(cell: Cell) -> int:
    """Return the step from which a run goes on: its checkpoint's, 0 for a new one, the last of a finished one."""
    state = state_of(cell)
    if state == "finished":
        return cell.config.optim.max_steps
    checkpoint = latest_checkpoint(cell.folder) if state == "interrupted" else None
    return 0 if checkpoint is None else int(read_trainer_state(checkpoint)["step"])


def check_cells(cells: Sequence[Cell]) -> None:
    """Refuse folders of other runs, before any of them could be lost.

    Raises:
        InputError: a run's folder holds something that no ablation made, or a run of another configuration.
    """
    for cell in cells:
        if not _is_filled(cell.folder):
            continue
        if not cell.config_file.is_file():
            raise InputError(
                f"{cell.folder} holds something that this ablation did not make (there is no {cell.config_file.name} "
                "beside it); name another --output, or move it away"
            )
        # What ended before its first checkpoint has nothing to lose.
        other = None if state_of(cell) == "new" else mismatch(cell)
        if other is not None:
            raise InputError(
                f"{cell.folder} holds a run {other}; name another --output, give the settings of before, or "
                "delete that folder"
            )


def mismatch(cell: Cell) -> str | None:
    """Say how the run that is in the cell's folder is another one than the cell; None where it is the same.

    Data may have moved, or be spelt otherwise: what counts are its hashes.
    """
    differing = differences_that_count(saved_settings(cell.config_file), to_dict(cell.config))
    if differing:
        return f"of another configuration ({'; '.join(differing)})"
    checkpoint = latest_checkpoint(cell.folder)
    left = read_run_results(cell) or ({} if checkpoint is None else read_trainer_state(checkpoint))
    split_hash = str(left.get("split_hash"))
    if split_hash != cell.split_hash:
        return (
            f"on another split (hash {split_hash[:12]}) than {cell.config.data.path} has now ({cell.split_hash[:12]})"
        )
    if has_other_content(left, cell.content_hash):
        return f"on other masks, classes or picture sizes than {cell.config.data.path} has now, of the same images"
    return None


def clear(cell: Cell) -> None:
    """Delete what an earlier start of a run left; only where an ablation made it."""
    if _is_filled(cell.folder):
        assert cell.config_file.is_file(), cell.folder
        shutil.rmtree(cell.folder)


def read_run_results(cell: Cell) -> dict[str, Any] | None:
    """Return the run's results.json; None where it has none."""
    path = cell.folder / RESULTS_FILE
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}); delete the folder {cell.folder}, and the run is repeated"
        ) from None
    return dict(results)


def step_of(cell: Cell) -> int:
    """Return the last step that a run has written down; 0 where it has none."""
    try:
        with (cell.folder / "metrics.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().split(b"\n")
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue  # the first one may be cut off, the last one half written
    return 0


def _is_filled(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _finished_step(cell: Cell) -> int | None:
    results = read_run_results(cell)
    return None if results is None else results.get("step")
