"""Finished runs as files, with numbers of our choice, for tests that train nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from s4mim_hf.engine.config_loading import save_run_config
from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.plan import AblationOptions, AblationPlan, plan_ablation


def planned(output: Path, *rows: str, seeds: tuple[int, ...] = (0, 1)) -> AblationPlan:
    return plan_ablation(AblationOptions(rows=rows, seeds=seeds, output=output))


def finish(cell: Cell, last: float | None, **more: object) -> None:
    """Write what a run leaves, with the teacher's mIoU `last` at its last step."""
    cell.folder.mkdir(parents=True)
    save_run_config(cell.config, cell.config_file)
    results = {
        "step": cell.config.optim.max_steps,
        "split_hash": cell.split_hash,
        "protocol": "whole image at original size",
        "evaluated_on": "scenes validation, 64 images",
        "last_teacher": {"mean_iou": last},
        "best_teacher": {"step": 450, "mean_iou": 0.9},
        "last_student": {"mean_iou": 0.3},
        "evaluation": [{"step": 600, "teacher": last, "student": 0.3}],
        "train_seconds": 60.0,
        "images_per_second": 40.0,
        "peak_memory_bytes": 2**30,
        "memory_kind": "process resident",
        "commit": "abc1234",
        "config_hash": "0123456789ab",
    }
    (cell.folder / "results.json").write_text(json.dumps(results | more))
    around = {
        "settings_hash": "ba9876543210",
        "labeled": 16,
        "unlabeled": 256,
        "machine": "a machine",
        "torch": "2.13",
        "threads": 1,
        "jobs": 1,
    }
    (cell.folder / "circumstances.json").write_text(json.dumps(around))


def finish_all(plan: AblationPlan, last: Mapping[tuple[str, int], float]) -> None:
    """Finish the runs of these rows and seeds."""
    for cell in plan.cells:
        if (cell.row.name, cell.seed) in last:
            finish(cell, last[cell.row.name, cell.seed])
