"""Tables hold what earlier calls finished in the same folder, where it belongs to the same comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from raw_trees import write_tree
from written_runs import finish, finish_all, planned

from s4mim_hf.errors import InputError
from s4mim_hf.experiments.collect import collect
from s4mim_hf.experiments.plan import AblationOptions, AblationPlan, plan_ablation
from s4mim_hf.experiments.tables import markdown


def plan_of(output: Path, *overrides: str, rows: tuple[str, ...] = ("s4mim",), **more: Any) -> AblationPlan:
    options = AblationOptions(rows=rows, seeds=[0], output=output, overrides=overrides)
    return plan_ablation(replace(options, **more))


def names(plan: AblationPlan) -> list[str]:
    return [cell.name for cell in plan.earlier]


def test_finished_rows_and_seeds_of_earlier_calls_are_in_the_tables(tmp_path: Path) -> None:
    scores = {("supervised", 0): 0.2, ("base", 0): 0.3, ("base", 2): 0.4}
    finish_all(planned(tmp_path, "supervised", "base", "unimatch", seeds=(0, 2)), scores)
    plan = plan_of(tmp_path)
    assert names(plan) == ["16, supervised, seed 0", "16, base, seed 0", "16, base, seed 2"]
    assert [cell.name for cell in plan.cells] == ["16, s4mim, seed 0"]
    assert [row.name for row in plan.rows] == ["supervised", "base", "s4mim"]
    assert (plan.seeds, plan.relative_to) == ([0, 2], "base")
    assert not collect(plan, "", "demo")["complete"]
    finish(plan.cells[0], 0.5)
    results = collect(plan, "", "demo")
    assert results["complete"]
    lines = {line["row"]: line for line in results["tables"][0]["rows"]}
    assert lines["base"]["last"] == {"mean": pytest.approx(0.35), "std": pytest.approx(0.05 * 2**0.5), "n": 2}
    assert lines["s4mim"]["difference"] == {"mean": pytest.approx(0.2), "std": None, "n": 1}
    assert "Finished runs of earlier calls with the same settings" in markdown(results).replace("\n  ", " ")
    # Called with all of them, none is an earlier one.
    assert plan_of(tmp_path, rows=("supervised", "base", "s4mim"), seeds=[0, 2]).earlier == []


def test_other_settings_other_data_and_unfinished_runs_are_left_out(tmp_path: Path) -> None:
    finish_all(planned(tmp_path, "supervised", "base", seeds=(0,)), {("supervised", 0): 0.2, ("base", 0): 0.3})
    assert len(plan_of(tmp_path, "log.interval=7").earlier) == 2
    assert plan_of(tmp_path, "optim.max_steps=700").earlier == []
    # One row's own setting.
    assert names(plan_of(tmp_path, "method.threshold=0.5")) == ["16, supervised, seed 0"]
    assert plan_of(tmp_path, "data.path=synthetic:7").earlier == []
    (tmp_path / "runs" / "16" / "base" / "seed_0" / "results.json").write_text("{")
    (tmp_path / "runs" / "16" / "supervised" / "seed_0" / "results.json").unlink()
    (tmp_path / "runs" / "notes" / "mine" / "seed_0").mkdir(parents=True)
    (tmp_path / "runs" / "notes" / "mine" / "seed_0" / "results.json").write_text("{}")
    assert plan_of(tmp_path).earlier == []


def test_draws_are_told_apart_by_their_split_hash(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=20)
    output = tmp_path / "out"
    for cell in plan_of(output, rows=("base", "fully_supervised"), source=source, labeled=["1/4"]).cells:
        finish(cell, 0.4)
    plan = plan_of(output, source=source, labeled=["1/2"])
    assert names(plan) == ["1/4, base, seed 0", "all, fully_supervised, seed 0"]
    assert plan.fractions == ["1/2", "1/4"]
    tables = collect(plan, "", "demo")["tables"]
    assert [[line["row"] for line in table["rows"]] for table in tables] == [
        ["fully_supervised", "s4mim"],
        ["fully_supervised", "base"],
    ]
    assert plan_of(output, source=source, labeled=["1/2"], validation="5").earlier == []


def test_differences_may_be_to_an_earlier_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows of this ablation: s4mim"):
        plan_of(tmp_path, relative_to="supervised")
    finish_all(planned(tmp_path, "supervised", seeds=(0,)), {("supervised", 0): 0.2})
    assert plan_of(tmp_path, relative_to="supervised").relative_to == "supervised"
