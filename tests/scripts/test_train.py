"""scripts/train.py as people start it: several processes of one run, and several runs at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from s4mim_hf.engine.build import build_accelerator, build_evaluator
from s4mim_hf.engine.finished_run import load_finished_run

SMALL = [
    "model.backbone_config={model_type: resnet, embedding_size: 8, hidden_sizes: [8, 12, 16, 24], "
    "depths: [1, 1, 1, 1], layer_type: basic}",
    "model.decoder_channels=12",
    "model.low_level_channels=6",
    "method.name=supervised",
    "data.views.crop_size=64",
    "data.num_workers=0",
    "optim.warmup_steps=0",
    "panels.count=0",
    "log.tracker=none",
]


def start(repository: Path, folder: Path, *overrides: str, processes: int = 1) -> subprocess.Popen[str]:
    """Start a run of the demo in `folder`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(repository / "scripts" / "train.py")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *SMALL, *overrides],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(run: subprocess.Popen[str]) -> str:
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    return output


def results_of(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def test_runs_that_are_started_at_once_take_folders_of_their_own(repository: Path, tmp_path: Path) -> None:
    runs = [start(repository, tmp_path, "optim.max_steps=1", f"seed={seed}") for seed in (1, 2)]
    for run in runs:
        end(run)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["demo", "demo-2"]
    texts = [(tmp_path / "runs" / name / "run_config.yaml").read_text() for name in ("demo", "demo-2")]
    assert sorted(line for text in texts for line in text.splitlines() if line.startswith("seed")) == [
        "seed: 1",
        "seed: 2",
    ]
    assert all(results_of(tmp_path / "runs" / name)["step"] == 1 for name in ("demo", "demo-2"))


def test_two_processes_score_one_student(repository: Path, tmp_path: Path) -> None:
    end(start(repository, tmp_path, "optim.max_steps=6", "output_dir=run", processes=2))
    run = load_finished_run(tmp_path / "run")
    evaluator = build_evaluator(run.config, build_accelerator(run.config, tmp_path), run.data, run.statistics)
    assert evaluator is not None
    results = results_of(tmp_path / "run")
    for name, network in (("last_student", run.student.segmenter), ("last_teacher", run.teacher.model)):
        assert evaluator.evaluate(network).scores.mean_iou == pytest.approx(results[name]["mean_iou"], abs=1e-12), name


def test_a_run_that_goes_on_is_not_resumed_a_second_time(repository: Path, tmp_path: Path) -> None:
    settings = ["checkpoint.interval=1", "evaluation.interval=100000", "output_dir=run"]
    runs = [start(repository, tmp_path, *settings, "optim.max_steps=100000")]
    deadline = time.monotonic() + 300
    try:
        while not list((tmp_path / "run" / "checkpoints").glob("step_*")):
            assert runs[0].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        runs.append(start(repository, tmp_path, "--resume", *settings, "optim.max_steps=100000"))
        said, _ = runs[1].communicate(timeout=300)
    finally:
        for run in runs:
            run.kill()
            run.communicate()
    assert runs[1].returncode == 2
    assert "output_dir=run is in use: another process is training there" in " ".join(said.split())
