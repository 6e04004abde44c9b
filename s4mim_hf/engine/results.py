"""`results.json`: what a run found, what it cost, and from which source and configuration."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import operator
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import s4mim_hf
from s4mim_hf.engine.build import Run
from s4mim_hf.engine.config_loading import to_dict
from s4mim_hf.engine.run_config import RunConfig

RESULTS_FILE = "results.json"
_SOURCE = Path(s4mim_hf.__file__).resolve().parent


def summary(run: Run) -> dict[str, Any]:
    """Return the run's results: the last teacher (the headline), the best one, the last student, and what it cost.

    Besides the scores:
        split_hash, content_hash: of the data; see `PreparedData`.
        pool, pool_hash: the shards of streamed unlabelled images, where there are any, in words and by their hash.
        evaluation: mean IoU of teacher and student at each evaluation so far, null where it was not measured.
        train_seconds: see `TrainingClock`; summed over the parts of a resumed run.
        images_per_second: training images read, labelled and unlabelled, of all processes.
        peak_memory_bytes, memory_kind: see `peak_memory`; of the main process, and of a resumed run's last part.
        device, processes: see `machine_name`, and how many trained together; of a resumed run's last part, as versions.
        versions: see `versions`.
        commit: see `source_commit`; of a resumed run's last part.
        config_hash: see `config_hash`.
    """
    evaluation, trainer = run.evaluation, run.trainer
    results: dict[str, Any] = {
        "step": trainer.step,
        "method": trainer.config.method.name,
        "seed": trainer.config.seed,
        "data": run.data.name,
        "split_hash": run.data.split_hash,
        "content_hash": run.data.content_hash,
    }
    if run.pool is not None:
        results |= {"pool": str(run.pool), "pool_hash": run.pool.fingerprint}
    if evaluation.last is not None:
        results |= {
            "protocol": evaluation.last.protocol,
            "evaluated_on": evaluation.last.data,
            "last_teacher": evaluation.last.scores.to_dict(),
            "best_teacher": evaluation.best,
        }
    if evaluation.last_student is not None:
        results["last_student"] = evaluation.last_student.scores.to_dict()
    records = [record for record in evaluation.metrics.read() if record["kind"] == "evaluation"]
    memory, memory_kind = peak_memory(trainer.accelerator.device)
    seconds = trainer.clock.seconds
    return results | {
        "evaluation": [
            {"step": record["step"], "teacher": record["teacher_mean_iou"], "student": record.get("student_mean_iou")}
            for record in records
        ],
        "train_seconds": round(seconds, 3),
        "images_per_second": round(_images_per_step(run) * trainer.step / seconds, 3) if seconds > 0 else None,
        "peak_memory_bytes": memory,
        "memory_kind": memory_kind,
        "device": machine_name(trainer.accelerator.device),
        "processes": trainer.accelerator.num_processes,
        "versions": versions(),
        "commit": source_commit(),
        "config_hash": config_hash(trainer.config),
    }


def write_results(run: Run) -> None:
    """Write the summary into the run's folder, whole or not at all."""
    path = run.output_dir / RESULTS_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(summary(run), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _images_per_step(run: Run) -> int:
    config = run.trainer.config
    images = config.data.labeled_batch_size
    if run.trainer.method.needs_unlabeled:
        images += config.data.unlabeled_batch_size
    return images * config.optim.gradient_accumulation_steps * run.trainer.accelerator.num_processes


def peak_memory(device: torch.device) -> tuple[int | None, str]:
    """Return the highest memory use so far in bytes, and of what it is.

    Returns:
        "device allocated": by tensors on a GPU, since its statistics were last reset; elsewhere "process resident": of
        the process in main memory, since it started (None on a system that does not say).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "device allocated"
    try:
        import resource
    except ImportError:  # Windows
        return None, "process resident"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return (peak if sys.platform == "darwin" else peak * 1024), "process resident"


def machine_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    place = "" if device.type == "cpu" else f" ({device.type})"
    return f"{name}, {os.cpu_count()} cores{place}"


def versions() -> dict[str, str]:
    """Return the versions of what a run computes with, by name."""
    names = ("s4mim-hf", "torch", "transformers", "accelerate", "datasets")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # this package, run from its source tree
    return found


def config_hash(config: RunConfig, without: Sequence[str] = ("output_dir",)) -> str:
    """Return 12 hexadecimal digits that configurations share exactly when they differ at most in `without`.

    Args:
        config: the configuration.
        without: dotted keys that do not count, with all below them.
    """
    settings = to_dict(config)
    for key in without:
        *sections, name = key.split(".")
        del functools.reduce(operator.getitem, sections, settings)[name]
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@functools.cache
def source_commit(folder: Path = _SOURCE) -> str | None:
    """Return the commit of this package's source tree as `git describe --always --dirty` names it.

    Read once per process: what runs is the code that was loaded, whatever is committed while it runs.

    Args:
        folder: the package's folder.

    Returns:
        the name, "-dirty" at its end where tracked files were changed; None outside a git tree, and where the package
        lies inside someone else's, as an environment in a project's folder does.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    # A git hook sets variables that point every git command at its own repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
