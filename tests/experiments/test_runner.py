"""Runs as processes: however they are interrupted, they go on to the very result of an unbroken run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import TINY
from written_runs import finish, planned

from s4mim_hf.engine.checkpoint import TEACHER_FILE, latest_checkpoint, read_trainer_state
from s4mim_hf.engine.config_loading import save_run_config
from s4mim_hf.engine.run import train
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.plan import AblationOptions, plan_ablation
from s4mim_hf.experiments.runner import Failure, child_environment, failure_of, last_line, only_call, run_cells
from s4mim_hf.experiments.states import state_of


class Watcher:
    """Does something between two looks at the processes."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.act = act
        self.said: list[tuple[str, str]] = []

    def started(self, cell: Cell) -> None:
        self.said.append(("started", cell.name))

    def waiting(self) -> None:
        self.act()

    def ended(self, cell: Cell, failure: Failure | None) -> None:
        self.said.append(("ended" if failure is None else "failed", cell.name))


def checkpoint_step(cell: Cell) -> int:
    path = latest_checkpoint(cell.folder)
    return 0 if path is None else int(read_trainer_state(path)["step"])


def results_of(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    return {key: results[key] for key in ("last_teacher", "best_teacher", "last_student", "evaluation", "step")}


def test_a_killed_run_goes_on_to_the_result_of_an_unbroken_one(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*TINY, f"data.path={prepared}", "optim.max_steps=60", "evaluation.interval=60", "log.tracker=none"]
    options = AblationOptions(rows=["s4mim"], seeds=[1], output=tmp_path, overrides=overrides)
    cell = plan_ablation(options).cells[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    # However the parent ends, the run ends with it: the pipe that it reads is closed.
    save_run_config(cell.config, cell.config_file)
    command = [sys.executable, "-P", "-m", "s4mim_hf.experiments.one_run", str(cell.config_file), "--end-with-parent"]
    with cell.log_file.open("wb") as log:
        orphan = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
    assert orphan.stdin is not None
    while checkpoint_step(cell) < 2:
        assert orphan.poll() is None, cell.log_file.read_text()
        time.sleep(0.01)
    orphan.stdin.close()
    assert orphan.wait(30) == 1
    assert state_of(cell) == "interrupted"
    begun = checkpoint_step(cell)

    # SIGTERM to us ends the run as Ctrl-C does.
    def terminate() -> None:
        if checkpoint_step(cell) > begun:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_cells([cell], 1, Watcher(terminate))
    assert signal.getsignal(signal.SIGTERM) is before
    assert state_of(cell) == "interrupted"

    watcher = Watcher()
    assert run_cells([cell], 1, watcher) == []
    assert watcher.said == [("started", cell.name), ("ended", cell.name)]
    assert state_of(cell) == "finished"
    assert cell.log_file.read_text().count("goes on ---") == 2

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        unbroken = train(replace(cell.config, output_dir=str(tmp_path / "unbroken")))
    finally:
        torch.set_num_threads(threads)
    assert results_of(cell.folder) == results_of(unbroken.output_dir)
    teachers = [load_file(str(folder / "checkpoints" / "step_60" / TEACHER_FILE)) for folder in
                (cell.folder, unbroken.output_dir)]  # fmt: skip
    assert all(torch.equal(value, teachers[1][key]) for key, value in teachers[0].items())
    around = json.loads((cell.folder / "circumstances.json").read_text())
    assert (around["labeled"], around["unlabeled"], around["threads"], around["jobs"]) == (4, 4, 1, 1)


def test_threads_are_shared_among_runs_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert child_environment(1)["OMP_NUM_THREADS"] == str(cores)
    assert child_environment(2)["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert child_environment(10_000)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert child_environment(2)["OMP_NUM_THREADS"] == "3"


def test_the_last_line_of_a_log_is_the_error(tmp_path: Path) -> None:
    log = tmp_path / "seed_0.log"
    log.write_text("train s4mim:  25%|##  | 1/4\rtrain s4mim:  50%|#### | 2/4\n\nerror: the loss is nan\n\n")
    assert last_line(log) == "the loss is nan"
    log.write_text("Traceback:\n  x\nRuntimeError: CUDA out of memory\r\n")
    assert last_line(log) == "RuntimeError: CUDA out of memory"
    log.write_text("")
    assert last_line(log) == ""


def test_how_a_process_ended(tmp_path: Path) -> None:
    cell = planned(tmp_path, "base", seeds=(0,)).cells[0]
    cell.log_file.parent.mkdir(parents=True)
    cell.log_file.write_text("")
    sentences = {}
    for code in (0, 1, -signal.SIGKILL, -signal.SIGSEGV):
        failure = failure_of(cell, code)
        assert failure is not None
        sentences[code] = failure.sentence
    assert sentences == {
        0: "ended with code 0",
        1: "ended with code 1",
        -signal.SIGKILL: "ended by SIGKILL (out of memory, or ended by hand)",
        -signal.SIGSEGV: "ended by SIGSEGV",
    }
    finish(cell, 0.4)
    assert failure_of(cell, 0) is None


def test_two_calls_do_not_share_a_folder(tmp_path: Path) -> None:
    busy = pytest.raises(InputError, match=r"another call of ablate\.py is at work")
    with only_call(tmp_path / "out"), busy, only_call(tmp_path / "out"):
        pass
    with only_call(tmp_path / "out"):
        pass
    shutil.move(tmp_path / "out" / ".lock", tmp_path / "out" / "thesis.txt")
    with pytest.raises(InputError, match="holds something that no ablation made"), only_call(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"), only_call(tmp_path / "file"):
        pass
