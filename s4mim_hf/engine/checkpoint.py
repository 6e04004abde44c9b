"""Checkpoints of a run: written whole or not at all, and read back only into the configuration that wrote them.

`checkpoints/step_N/` in the run's folder holds accelerate's state (student, optimizer, loss scaler, each process's
random state), `teacher.safetensors`, and `trainer_state.json` (the step, the number of processes, and what the trainer
adds).
`step_N` means: N optimizer steps are done.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.engine.config_loading import differences
from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

FOLDER = "checkpoints"
TEACHER_FILE = "teacher.safetensors"
STATE_FILE = "trainer_state.json"
MAY_DIFFER = (
    "recipe",
    "output_dir",
    "log",
    "panels",
    "checkpoint",
    "data.num_workers",
    "data.path",
    "data.unlabeled.shards",
)
"""Keys (with all below them) that change no computation, so a run may be resumed with other values of them; data is
known by its split and content hashes, and shards by their names and sizes, wherever they lie."""

_STEP = re.compile(r"step_(\d+)")
_LEFTOVER = re.compile(r"\.step_\d+\.(partial|replaced)")


def save_checkpoint(
    directory: Path, step: int, *, accelerator: Accelerator, teacher: Teacher, extra: Mapping[str, Any]
) -> Path:
    """Write `checkpoints/step_<step>` in the run's folder `directory`; every process must call it.

    It is written beside its place and renamed when complete, so a killed run leaves no half checkpoint of that name.

    Args:
        directory: the run's folder, the same on all processes.
        step: optimizer steps done.
        accelerator: holds the prepared student and optimizer.
        teacher: written by the main process.
        extra: JSON values that `load_checkpoint` gives back.

    Returns:
        The checkpoint's folder.

    Raises:
        InputError: it cannot be written; earlier checkpoints stay.
    """
    target = Path(directory) / FOLDER / f"step_{step}"
    partial = target.with_name(f".{target.name}.partial")
    try:
        _write(partial, accelerator, teacher, {**extra, "step": step, "num_processes": accelerator.num_processes})
        if accelerator.is_main_process:
            _put_in_place(partial, target)
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch says that writing has failed, the system why; both may be many lines.
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"the checkpoint {target} cannot be written ({reason}); make room, and go on from the one before it with "
            f"--resume output_dir={directory}"
        ) from error
    accelerator.wait_for_everyone()
    return target


def _write(partial: Path, accelerator: Accelerator, teacher: Teacher, state: Mapping[str, Any]) -> None:
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        teacher.save(partial / TEACHER_FILE)
        (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    accelerator.wait_for_everyone()


def _put_in_place(partial: Path, target: Path) -> None:
    replaced = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    partial.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints in the run's folder `directory`, by rising step."""
    folder = Path(directory) / FOLDER
    if not folder.is_dir():
        return []
    steps = {int(match[1]): path for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))}
    return [steps[step] for step in sorted(steps) if (steps[step] / STATE_FILE).is_file()]


def latest_checkpoint(directory: Path) -> Path | None:
    """Return the complete checkpoint of the highest step in the run's folder `directory`, or None."""
    found = list_checkpoints(directory)
    return found[-1] if found else None


def prune_checkpoints(directory: Path, keep: int) -> None:
    """Delete all but the last `keep` (at least 1) checkpoints in the run's folder, and what killed runs left behind.

    For the main process only, and not while a checkpoint is being written.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}, but at least 1 checkpoint must stay")
    for path in list_checkpoints(directory)[:-keep]:
        shutil.rmtree(path)
    folder = Path(directory) / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path)


def read_trainer_state(path: Path) -> dict[str, Any]:
    """Return the step and the extra values of the checkpoint `path`, without loading any weights.

    Raises:
        InputError: if `path` is no complete checkpoint.
    """
    file = Path(path) / STATE_FILE
    if not file.is_file():
        raise InputError(
            f"{path} is not a complete checkpoint: it holds no {STATE_FILE}; give a {FOLDER}/step_N folder"
        )
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); resume from another checkpoint") from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise InputError(f"{file} names no step; resume from another checkpoint")
    return state


def load_checkpoint(path: Path, *, accelerator: Accelerator, teacher: Teacher) -> dict[str, Any]:
    """Load the checkpoint `path` into the prepared student and optimizer, the random state and the teacher.

    Call it after `accelerator.prepare` (before, only the random state would be restored), on every process.

    Returns:
        What `save_checkpoint` was given as `extra`, with `step` (optimizer steps done) and `num_processes`.

    Raises:
        InputError: if it is incomplete or damaged, of another model, or of another number of processes (which would
            train on other batches).
    """
    path = Path(path)
    state = read_trainer_state(path)
    saved_processes = state.get("num_processes")
    if saved_processes != accelerator.num_processes:
        raise InputError(
            f"{path} was written by {saved_processes} processes and this run has {accelerator.num_processes}, "
            f"so it would not continue the same run; launch it with {saved_processes}"
        )
    teacher.load(path / TEACHER_FILE)
    try:
        accelerator.load_state(str(path))
    except torch.OutOfMemoryError:
        raise
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: the student or the optimizer cannot be restored ({reason}); resume from another checkpoint"
        ) from error
    return state


def differences_that_count(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return `differences` of nested configurations but for the keys of `MAY_DIFFER`."""
    lines = {line: f"{line.partition(':')[0]}." for line in differences(saved, now)}
    return [line for line, key in lines.items() if not any(key.startswith(f"{free}.") for free in MAY_DIFFER)]


def check_same_data(saved: Mapping[str, Any], data: PreparedData, path: Path, remedy: str) -> None:
    """Refuse data that is not what a checkpoint was trained on.

    Args:
        saved: what `read_trainer_state` returned.
        data: what is there now.
        path: the checkpoint's folder.
        remedy: what to do, the end of the sentence.

    Raises:
        InputError: images are in other splits, or the same ones have other masks, classes or picture sizes.
    """
    if saved["split_hash"] != data.split_hash:
        raise InputError(
            f"{data.path} now holds another split (hash {data.split_hash[:12]}) than the checkpoint {path} was trained "
            f"on ({saved['split_hash'][:12]}); {remedy}"
        )
    if has_other_content(saved, data.content_hash):
        raise InputError(
            f"{data.path} now holds other masks, classes or picture sizes than the checkpoint {path} was trained on, "
            f"for the same images; {remedy}"
        )


def has_other_content(saved: Mapping[str, Any], content_hash: str | None) -> bool:
    """Say whether a run's data had another content hash; not where one is unknown: older code, or embedded data."""
    return len({saved.get("content_hash"), content_hash} - {None}) > 1


def check_same_configuration(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    source: str = "the checkpoint",
) -> None:
    """Refuse to resume into another configuration.

    Args:
        saved, now: nested configurations; tuples count as lists.
        source: what `saved` was read from, for the message.

    Raises:
        InputError: naming every key that differs, with the saved and the present value.
    """
    if differing := differences_that_count(saved, now):
        hint = ""
        if any(": (not set) -> " in line for line in differing):
            hint = "; what is not set is newer than the run: write the value that it had into its run_config.yaml"
        raise InputError(
            f"{source} is a checkpoint of another configuration ({'; '.join(differing)}); "
            f"resume with the saved values, or train into another output_dir{hint}"
        )
