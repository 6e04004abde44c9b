"""A run's networks, read back from its folder: configuration, data, and the weights of its newest checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.engine.build import Triple, build_network
from s4mim_hf.engine.build_data import load_data
from s4mim_hf.engine.checkpoint import TEACHER_FILE, check_same_data, latest_checkpoint, read_trainer_state
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.run import CONFIG_FILE
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.errors import InputError
from s4mim_hf.modeling import S4MIMForSemiSupervisedSegmentation

_STUDENT_FILE = "model.safetensors"  # accelerate's name


@dataclass
class FinishedRun:
    """What a run learned.

    Attributes:
        config: the run's configuration.
        data: what it learned from.
        student: with the heads that its method needs, in eval mode, on the CPU.
        teacher: the student's moving average.
        statistics: mean and standard deviation of its images.
        step: optimizer steps that are in the weights.
    """

    config: RunConfig
    data: PreparedData
    student: S4MIMForSemiSupervisedSegmentation
    teacher: Teacher
    statistics: tuple[Triple, Triple]
    step: int


def load_finished_run(folder: Path, data_path: str | None = None) -> FinishedRun:
    """Build a run's networks again and load the newest checkpoint's weights.

    Args:
        folder: the run's folder.
        data_path: where its data lies now; None: where it lay then.

    Raises:
        InputError: the folder holds no run or no checkpoint, its data has changed, or the weights do not fit.
    """
    # A bar for each file that transformers loads says nothing to who asked for a picture.
    disable_progress_bar()
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder} holds no run: it has no {CONFIG_FILE}; name the folder of a run")
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        raise InputError(f"{folder} has no checkpoint; train it to its end, or name another run")
    state = read_trainer_state(checkpoint)
    config = load_run_config(folder / CONFIG_FILE)
    if data_path is not None:
        config = replace(config, data=replace(config.data, path=data_path))
    data = load_data(config.data)
    check_same_data(state, data, checkpoint, "prepare the data as it was")
    # How it was run: the weights are the same without, and a machine without a GPU has neither.
    anywhere = replace(config.model, sync_batch_norm=False, mim_attention="auto")
    student, _, statistics = build_network(replace(config, model=anywhere), data)
    teacher = Teacher(student.segmenter)
    teacher.load(checkpoint / TEACHER_FILE)
    load_student(student, checkpoint)
    return FinishedRun(config, data, student.eval(), teacher, statistics, state["step"])


def load_student(student: S4MIMForSemiSupervisedSegmentation, checkpoint: Path) -> None:
    """Load the student of the checkpoint `checkpoint` into one that is built alike.

    Raises:
        InputError: the weights cannot be read, or do not fit.
    """
    path = checkpoint / _STUDENT_FILE
    try:
        # A distributed run saves its wrapper's names.
        weights = {name.removeprefix("module."): tensor for name, tensor in load_file(str(path)).items()}
        student.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: the student's weights cannot be loaded ({reason}); use another run") from error
