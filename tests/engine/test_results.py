"""results.json: what a run cost and where it came from, over resumptions, inside and outside a git tree."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from s4mim_hf.engine.build import build_accelerator, build_run
from s4mim_hf.engine.config_loading import load_run_config, save_run_config
from s4mim_hf.engine.hooks import Hook, LoggingHook
from s4mim_hf.engine.results import config_hash, peak_memory, source_commit, summary
from s4mim_hf.engine.run import show, train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.engine.trainer import Trainer, TrainingClock

ConfigMaker = Callable[..., RunConfig]


def results_of(config: RunConfig) -> dict[str, Any]:
    return json.loads((Path(str(config.output_dir)) / "results.json").read_text())


def test_the_file_holds_time_memory_source_and_every_evaluation(tiny_config: ConfigMaker) -> None:
    config = tiny_config("optim.gradient_accumulation_steps=2", "data.unlabeled_batch_size=3")
    started = time.monotonic()
    run = train(config)
    wall = time.monotonic() - started
    results = results_of(config)
    assert 0 < results["train_seconds"] < wall
    # 4 steps of 2 micro-batches of 2 labelled and 3 unlabelled images.
    assert results["images_per_second"] == pytest.approx(4 * 2 * 5 / run.trainer.clock.seconds, abs=1e-3)
    assert results["memory_kind"] == "process resident"
    # torch alone takes more than 50 MB and this machine's memory is the limit.
    assert 50e6 < results["peak_memory_bytes"] < 1e12
    assert results["config_hash"] == config_hash(config)
    assert results["commit"] == source_commit()
    assert results["device"].endswith(" cores")
    assert results["processes"] == 1
    assert results["versions"]["torch"] == torch.__version__
    assert [entry["step"] for entry in results["evaluation"]] == [2, 4]
    assert results["evaluation"][-1]["teacher"] == results["last_teacher"]["mean_iou"]
    assert results["evaluation"][-1]["student"] == results["last_student"]["mean_iou"]
    shown = io.StringIO()
    show(run, Console(file=shown, width=200))
    assert "trained 4 steps in " in shown.getvalue()
    assert " GiB (process resident)" in shown.getvalue()


def test_time_and_evaluations_go_on_over_a_resumption(tiny_config: ConfigMaker) -> None:
    config = tiny_config("method.name=supervised", "checkpoint.keep=2", "evaluation.evaluate_student=false")
    train(config)
    folder = Path(str(config.output_dir))
    before = results_of(config)
    shutil.rmtree(folder / "checkpoints" / "step_4")
    state_file = folder / "checkpoints" / "step_2" / "trainer_state.json"
    state = json.loads(state_file.read_text())
    assert 0 < state["train_seconds"] < before["train_seconds"]
    state_file.write_text(json.dumps({**state, "train_seconds": 5000.0}))
    started = time.monotonic()
    train(config, resume=True)
    after = results_of(config)
    assert 5000 < after["train_seconds"] < 5000 + time.monotonic() - started
    # Without unlabelled images only the labelled ones are read.
    assert after["images_per_second"] == pytest.approx(4 * 2 / after["train_seconds"], abs=1e-3)
    assert after["evaluation"] == before["evaluation"]
    assert [(entry["step"], entry["student"]) for entry in after["evaluation"]] == [(2, None), (4, None)]


def test_the_clock_leaves_out_what_it_is_paused_for() -> None:
    moments = iter([10.0, 13.0, 50.0, 51.0])
    clock = TrainingClock(now=lambda: next(moments))
    clock.start()
    with clock.paused():
        assert clock.seconds == 3
    clock.stop()
    assert clock.seconds == 4


def test_only_reading_the_losses_is_training_time_of_the_hooks(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    config = tiny_config("method.name=supervised", "log.tracker=none")
    run = build_run(config, build_accelerator(config, tmp_path), tmp_path)
    passed = [0.0]

    class Slow(Hook):
        """Takes an hour."""

        def after_step(self, trainer: Trainer) -> None:
            passed[0] += 3600

    assert [type(hook) for hook in run.trainer.hooks if hook.is_part_of_training] == [LoggingHook]
    run.trainer.hooks.append(Slow())
    batches = run.batches()

    def one_second_each() -> Any:
        for batch in batches:
            passed[0] += 1
            yield batch

    run.trainer.clock = TrainingClock(now=lambda: passed[0])
    run.trainer.train(one_second_each())
    assert passed[0] == 4 + 4 * 3600
    assert run.trainer.clock.seconds == 4
    assert summary(run)["train_seconds"] == 4


def test_the_hash_ignores_the_folder_and_nothing_else(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    config = tiny_config(output="one")
    name = config_hash(config)
    assert len(name) == 12
    assert int(name, 16) >= 0
    assert config_hash(tiny_config(output="two")) == name
    assert config_hash(dataclasses.replace(config, output_dir=None)) == name
    save_run_config(config, tmp_path / "saved.yaml")
    assert config_hash(load_run_config(tmp_path / "saved.yaml", [])) == name
    for change in ("seed=1", "method.threshold=0.5", "optim.learning_rate=0.3", "log.interval=2"):
        assert config_hash(tiny_config(change, output="one")) != name


def test_the_hash_is_that_of_the_written_out_settings() -> None:
    """Recorded once: it must not depend on the process, the platform or the order of fields."""
    config = load_run_config("demo", ["output_dir=somewhere"])

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value

    settings = plain(config)
    del settings["output_dir"]
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    assert config_hash(config) == hashlib.sha256(text.encode()).hexdigest()[:12]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_the_source_trees_own(tmp_path: Path) -> None:
    package = tmp_path / "project" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    describe = source_commit.__wrapped__
    assert describe(package) is None
    git(tmp_path, "init", "-q", "project")
    # In someone else's tree, but no part of it, as an environment inside a project is.
    assert describe(package) is None
    git(package, "add", "__init__.py")
    git(package, "commit", "-q", "-m", "first")
    commit = git(package, "rev-parse", "HEAD")
    found = describe(package)
    assert found
    assert commit.startswith(found)
    (package / "__init__.py").write_text("changed = True\n")
    assert describe(package) == f"{found}-dirty"


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit.__wrapped__(Path(__file__).resolve().parents[2] / "s4mim_hf") is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not show a process's memory so")
def test_memory_of_the_process_is_its_high_water_mark_in_bytes() -> None:
    found, kind = peak_memory(torch.device("cpu"))
    assert kind == "process resident"
    shown = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    assert shown[1] == "kB"
    assert found == pytest.approx(int(shown[0]) * 1024, rel=0.02)
