"""One run from its configuration to its folder: fresh or resumed, with a summary at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from accelerate.utils import ProjectConfiguration, broadcast_object_list
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from s4mim_hf.engine.build import Run, build_accelerator, build_run
from s4mim_hf.engine.checkpoint import (
    check_same_configuration,
    check_same_data,
    latest_checkpoint,
    load_checkpoint,
    read_trainer_state,
)
from s4mim_hf.engine.config_loading import save_run_config, saved_settings, to_dict
from s4mim_hf.engine.results import RESULTS_FILE, peak_memory, source_commit, write_results
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import InferenceConfig
from s4mim_hf.evaluation.protocol_options import options_of
from s4mim_hf.hub.card_facts import read_facts
from s4mim_hf.locking import LOCK_FILE, only_one

CONFIG_FILE = "run_config.yaml"
RUNS = Path("runs")


def train(config: RunConfig, *, resume: bool = False) -> Run:
    """Train as `config` says, into its `output_dir` (None: the next free folder runs/RECIPE, runs/RECIPE-2, ...).

    Args:
        config: the run's configuration.
        resume: go on from the newest checkpoint in `output_dir`; a run that was killed between its last checkpoint and
            its results is measured again and finished.

    Returns:
        the finished run; its folder holds run_config.yaml, metrics.jsonl, checkpoints/, model/, panels/, curves.png
        and results.json.

    Raises:
        InputError: for anything in the configuration, the data or the folder that does not fit.
    """
    # A bar for each file that transformers saves would break up ours.
    disable_progress_bar()
    output_dir = _resumed_folder(config) if resume else _new_folder(config)
    accelerator = build_accelerator(config, output_dir)
    with ExitStack() as held:
        if accelerator.is_main_process:
            output_dir = held.enter_context(_only_run(config, output_dir, resume))
        output_dir = Path(broadcast_object_list([str(output_dir)])[0])
        if resume:
            # Now that no other process writes there.
            _check_resumable(config, output_dir)
        accelerator.project_configuration = ProjectConfiguration(str(output_dir))
        return _train(build_run(config, accelerator, output_dir), resume)


def _train(run: Run, resume: bool) -> Run:
    accelerator = run.trainer.accelerator
    if resume:
        _restore(run)
    elif accelerator.is_main_process:
        _save_config(run.trainer.config, run.output_dir)
    accelerator.wait_for_everyone()
    if run.trainer.config.log.tracker != "none":
        # Steps after the checkpoint are run again; without this they would stand there twice.
        again = {"purge_step": run.trainer.step + 1} if resume else {}
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": again})
    source_commit()
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    run.trainer.train(run.batches())
    accelerator.end_training()
    if accelerator.is_main_process:
        write_results(run)
    return run


@contextmanager
def _only_run(config: RunConfig, folder: Path, resume: bool) -> Iterator[Path]:
    """Make the run's folder, unless it is resumed, and hold it; a folder in which nothing was written goes again.

    Raises:
        InputError: the folder cannot be made, or another process is training in it.
    """
    folder, made = (folder, []) if resume else _make_folder(config, folder)
    busy = f"output_dir={folder} is in use: another process is training there; wait for it to end, or stop it"
    with ExitStack() as held:
        held.callback(_remove_empty, made)
        try:
            held.enter_context(only_one(folder / LOCK_FILE, busy))
        except OSError as error:
            raise InputError(f"output_dir={folder} cannot be written to: {error.strerror}") from None
        yield folder


def _make_folder(config: RunConfig, folder: Path) -> tuple[Path, list[Path]]:
    """Make the run's folder, or the next free one where another run has just made it.

    Before the data and the model are built, which takes a while: a second run must find it taken.

    Returns:
        the folder, and all folders that were made for it, the innermost first.
    """
    while True:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=config.output_dir is not None)
        except OSError as error:
            if not isinstance(error, FileExistsError) or config.output_dir is not None:
                raise InputError(f"output_dir={folder} cannot be made: {error.strerror}; name another folder") from None
            folder = _new_folder(config)
        else:
            return folder, missing


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _save_config(config: RunConfig, folder: Path) -> None:
    """Write run_config.yaml, without the folder's own name, so that the file alone reruns it, into the next free one.

    Raises:
        InputError: another run was started into the same folder, and was faster.
    """
    if (folder / CONFIG_FILE).exists():
        raise InputError(f"output_dir={folder} is another run's by now; give each run its own folder")
    save_run_config(dataclasses.replace(config, output_dir=None), folder / CONFIG_FILE)


def _new_folder(config: RunConfig) -> Path:
    if config.output_dir is None:
        number = 1
        while (folder := RUNS / (config.recipe if number == 1 else f"{config.recipe}-{number}")).exists():
            number += 1
        return folder
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir={folder} is a file; name a folder that does not exist yet")
    if (folder / CONFIG_FILE).is_file() and latest_checkpoint(folder) is None:
        raise InputError(
            f"output_dir={folder} holds a run that ended before its first checkpoint; delete it, or name another folder"
        )
    if folder.is_dir() and any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise InputError(
            f"output_dir={folder} is not empty; name another folder, or pass --resume to go on with its run"
        )
    return folder


def _resumed_folder(config: RunConfig) -> Path:
    if config.output_dir is None:
        raise InputError("--resume needs the run's folder; add output_dir=FOLDER")
    folder = Path(config.output_dir)
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"output_dir={folder} holds no run: it has no {CONFIG_FILE}; name the folder of a run")
    return folder


def _check_resumable(config: RunConfig, folder: Path) -> None:
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        raise InputError(
            f"output_dir={folder} has no checkpoint yet, so nothing can be resumed; start anew in another folder"
        )
    check_same_configuration(saved_settings(folder / CONFIG_FILE), to_dict(config), source=str(folder))
    done = read_trainer_state(checkpoint)["step"]
    if done >= config.optim.max_steps and (folder / RESULTS_FILE).is_file():
        raise InputError(
            f"the run in {folder} is complete: {done} of {config.optim.max_steps} steps; nothing to resume"
        )


def _restore(run: Run) -> None:
    path = latest_checkpoint(run.output_dir)
    assert path is not None
    saved = read_trainer_state(path)
    check_same_data(saved, run.data, path, "prepare the data as it was, or start anew in another folder")
    saved_pool = saved.get("pool_hash")
    if run.pool is not None and saved_pool != run.pool.fingerprint:
        raise InputError(
            f"data.unlabeled.shards now means other shards ({run.pool}, hash {run.pool.fingerprint[:12]}) than the "
            f"checkpoint {path} was trained on (hash {str(saved_pool)[:12]}); name those again, in their order and of "
            "their sizes, or start anew in another folder"
        )
    state = load_checkpoint(path, accelerator=run.trainer.accelerator, teacher=run.trainer.teacher)
    run.trainer.step = state["step"]
    run.trainer.clock.seconds = state["train_seconds"]
    if run.trainer.accelerator.is_main_process:
        run.evaluation.exporter.repair()
    run.trainer.accelerator.wait_for_everyone()
    folder = run.evaluation.exporter.folder
    exported = (read_facts(folder) or {}).get("results") or {}
    if (folder / "config.json").is_file() and exported.get("step", 0) <= state["step"]:
        run.evaluation.best = state["best"]
    # Else what was the best at the checkpoint is gone: model/ is missing, or of a later step, which is run again and
    # may come out otherwise. The next evaluation replaces it.


def show(run: Run, console: Console) -> None:
    """Print the per-class table, where things lie, and what to try next."""
    evaluation, folder = run.evaluation, run.output_dir
    if evaluation.last is None:
        console.print("No validation split: the last teacher is the model, and nothing was measured.")
    else:
        console.print(evaluation.last.table(run.data.id2label))
        best = evaluation.best
        if best["step"] is not None:
            console.print(
                f"teacher at the last step: {100 * evaluation.last.scores.mean_iou:.1f} mIoU (above); best on "
                f"validation: {100 * best['mean_iou']:.1f} at step {best['step']}, which is the one in model/",
                highlight=False,
            )
    memory, kind = peak_memory(run.trainer.accelerator.device)
    console.print(
        f"trained {run.trainer.step} steps in {run.trainer.clock.seconds:.0f} s, evaluation aside; "
        f"peak memory {'unknown' if memory is None else f'{memory / 2**30:.2f} GiB'} ({kind})",
        highlight=False,
    )
    for name, what in (
        ("model", "the model, for AutoModel.from_pretrained"),
        ("panels", "pictures of validation images"),
        ("curves.png", "losses and mIoU over the steps"),
        (RESULTS_FILE, "the numbers above"),
    ):
        if (folder / name).exists():
            console.print(f"  {folder / name}  {what}", highlight=False, soft_wrap=True)
    inference = run.trainer.config.evaluation.inference if run.data.validation is not None else None
    for line in next_steps(folder, run.data.path, inference):
        console.print(line, highlight=False, soft_wrap=True)


def next_steps(folder: Path, data: str, inference: InferenceConfig | None) -> list[str]:
    """Return what to run after training into `folder`: the evaluation as the run evaluated (None: a prediction)."""
    model = folder / "model"
    if inference is None:
        return [f"next: accelerate launch scripts/predict.py {model} IMAGES --output {folder / 'predictions'}"]
    options = options_of(inference)
    command = " ".join(["scripts/evaluate.py", str(model), "--data", data, *(options or [])])
    lines = [f"next: accelerate launch {command}"]
    if options is None:
        lines.append(f"  (by another protocol: no options mean {inference.describe()!r}, by which the table above is)")
    return lines
