"""Tables of runs with known numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from written_runs import finish, finish_all, planned

from s4mim_hf.experiments.collect import collect
from s4mim_hf.experiments.plan import AblationOptions, plan_ablation
from s4mim_hf.experiments.results import AblationResults, RowSummary, write_results
from s4mim_hf.experiments.runner import Failure


def row(results: AblationResults, name: str) -> RowSummary:
    return next(line for line in results["tables"][0]["rows"] if line["row"] == name)


def test_a_whole_table(tmp_path: Path) -> None:
    plan = planned(tmp_path, "supervised", "fully_supervised", "base", "s4mim")
    finish_all(
        plan,
        {
            ("supervised", 0): 0.20, ("supervised", 1): 0.30,
            ("fully_supervised", 0): 0.60, ("fully_supervised", 1): 0.70,
            ("base", 0): 0.30, ("base", 1): 0.38,
            ("s4mim", 0): 0.35, ("s4mim", 1): 0.47,
        },
    )  # fmt: skip
    results = collect(plan, "python scripts/ablate.py", "demo")
    assert results["complete"]
    assert (results["relative_to"], results["steps"], results["labeled_batch_size"]) == ("base", 600, 4)
    assert [line["row"] for line in results["tables"][0]["rows"]] == ["supervised", "fully_supervised", "base", "s4mim"]
    s4mim = row(results, "s4mim")
    assert s4mim["last"] == {"mean": pytest.approx(0.41), "std": pytest.approx(0.06 * math.sqrt(2)), "n": 2}
    # Differences 0.05 and 0.09.
    assert s4mim["difference"] == {"mean": pytest.approx(0.07), "std": pytest.approx(0.02 * math.sqrt(2)), "n": 2}
    assert s4mim["share_of_the_way"] == pytest.approx((0.41 - 0.25) / (0.65 - 0.25))
    assert row(results, "base")["difference"] is None
    assert row(results, "supervised")["share_of_the_way"] == 0
    assert s4mim["train_seconds"] == {"mean": 60.0, "std": 0.0, "n": 2}
    assert (s4mim["peak_memory_bytes"], s4mim["memory_kind"]) == (2**30, "process resident")
    assert s4mim["settings_hash"] == "ba9876543210"
    assert results["commits"] == ["abc1234"]
    assert results["machines"] == ["a machine, torch 2.13, 1 thread a run"]
    assert results["tables"][0]["better_unimatch"] is None
    first = results["runs"][0]
    assert (first["folder"], first["row"]) == ("runs/all/fully_supervised/seed_0", "fully_supervised")
    assert first["evaluations"] == [{"step": 600, "teacher": 0.6, "student": 0.3}]
    write_results(results, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_an_unfinished_table_pairs_what_is_there(tmp_path: Path) -> None:
    plan = planned(tmp_path, "supervised", "fully_supervised", "base", "s4mim", seeds=(0, 1, 2))
    done = {("base", 0): 0.3, ("base", 1): 0.5, ("s4mim", 1): 0.55, ("s4mim", 2): 0.1, ("supervised", 1): 0.2}
    finish_all(plan, done)
    failed = next(cell for cell in plan.cells if cell.row.name == "s4mim" and cell.seed == 0)
    results = collect(plan, "", "demo", [Failure(failed, "the loss is nan")])
    assert not results["complete"]
    assert row(results, "s4mim")["difference"] == {"mean": pytest.approx(0.05), "std": None, "n": 1}
    assert row(results, "s4mim")["share_of_the_way"] is None
    assert (row(results, "fully_supervised")["last"], row(results, "fully_supervised")["planned"]) == (None, 3)
    assert results["failed"] == [
        {
            "fraction": "16",
            "row": "s4mim",
            "seed": 0,
            "sentence": "the loss is nan",
            "log": "runs/16/s4mim/seed_0.log",
        }
    ]


def test_the_better_unimatch_counts(tmp_path: Path) -> None:
    plan = planned(tmp_path, "unimatch", "unimatch_ema")
    finish_all(plan, {("unimatch", 0): 0.4, ("unimatch", 1): 0.5})
    assert collect(plan, "", "demo")["tables"][0]["better_unimatch"] is None
    finish_all(plan_of_rest := planned(tmp_path, "unimatch_ema"), {("unimatch_ema", 0): 0.4, ("unimatch_ema", 1): 0.6})
    assert plan_of_rest.cells
    assert collect(plan, "", "demo")["tables"][0]["better_unimatch"] == "unimatch_ema"


def test_runs_of_older_results_and_without_a_number(tmp_path: Path) -> None:
    plan = planned(tmp_path, "supervised", seeds=(0, 1))
    finish(plan.cells[0], None, best_teacher={"step": None, "mean_iou": -1.0})
    finish(plan.cells[1], 0.25)
    (plan.cells[1].folder / "results.json").write_text(
        json.dumps({"step": 600, "split_hash": "0" * 64, "last_teacher": {"mean_iou": 0.25}})
    )
    (plan.cells[1].folder / "circumstances.json").unlink()
    results = collect(plan, "", "demo")
    line = row(results, "supervised")
    assert line["last"] == {"mean": 0.25, "std": None, "n": 1}
    assert line["best"] is None
    assert results["runs"][1]["train_seconds"] is None
    assert results["runs"][1]["machine"] is None


def test_what_limits_the_numbers_is_said(tmp_path: Path) -> None:
    plan = planned(tmp_path, "supervised", seeds=(0, 1))
    finish(plan.cells[0], 0.2, commit="abc1234")
    finish(plan.cells[1], 0.3, commit="abc1234-dirty")
    around = json.loads((plan.cells[1].folder / "circumstances.json").read_text())
    (plan.cells[1].folder / "circumstances.json").write_text(json.dumps(around | {"jobs": 2, "settings_hash": "other"}))
    results = collect(plan, "", "demo")
    assert row(results, "supervised")["settings_hash"] == "ba9876543210/other"
    assert results["notes"] == [
        "1 or 2 runs at once shared the machine, and so their times and images per second",
        "the runs are of 2 commits: abc1234, abc1234-dirty",
    ]


def test_images_of_a_step_are_those_of_all_its_micro_batches(tmp_path: Path) -> None:
    twice = ["optim.gradient_accumulation_steps=2", "data.unlabeled_batch_size=3"]
    plan = plan_ablation(AblationOptions(rows=["base"], seeds=[0], output=tmp_path, overrides=twice))
    results = collect(plan, "", "demo")
    assert (results["labeled_batch_size"], results["unlabeled_batch_size"]) == (8, 6)
