"""Tables fit where they are read, and hold the numbers that they are made of."""

from __future__ import annotations

import io
import random
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from written_runs import finish_all, planned

from s4mim_hf.experiments.collect import collect
from s4mim_hf.experiments.results import AblationResults
from s4mim_hf.experiments.rows import ROWS
from s4mim_hf.experiments.tables import markdown, percent, plain, terminal_tables

COMMAND = "python scripts/ablate.py --recipe demo --seeds 0,1 'model.backbone_config={model_type: resnet}' " + " ".join(
    f"optim.key{number}={number}" for number in range(20)
)


@pytest.fixture
def results(tmp_path: Path) -> AblationResults:
    plan = planned(tmp_path, *ROWS)
    chance = random.Random(0)
    scores = {(cell.row.name, cell.seed): chance.uniform(0.1, 0.9) for cell in plan.cells}
    finish_all(plan, scores | {("supervised", 0): 0.05, ("fully_supervised", 0): 1.0})
    return collect(plan, COMMAND, "demo")


def cells_of(text: str, name: str) -> list[str]:
    return [
        cell.strip() for line in text.splitlines() if line.startswith(f"| {name} ") for cell in line.split("|")[1:-1]
    ]


def test_numbers() -> None:
    assert percent({"mean": 0.4756, "std": 0.0084, "n": 3}) == "47.6 ± 0.8"
    assert percent({"mean": 0.0121, "std": 0.005, "n": 3}, signed=True) == "+1.2 ± 0.5"
    assert percent({"mean": -0.0121, "std": None, "n": 1}, signed=True) == "-1.2"
    assert percent({"mean": -0.0001, "std": None, "n": 1}, signed=True) == "+0.0"
    assert percent(None) == "-"
    assert plain({"mean": 90.0, "std": 30.0, "n": 2}, 1 / 60) == "1.5 ± 0.5"


def test_markdown_fits_120_columns_and_its_rows_align(results: AblationResults) -> None:
    text = markdown(results)
    assert max(map(len, text.splitlines())) <= 120
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| row")]
    assert [len(table) for table in tables] == [len(ROWS) + 2] * 2
    for table in tables:
        assert len({len(line) for line in table}) == 1
        assert all(len(rule.strip()) >= 3 for rule in table[1].split("|")[1:-1])


def test_markdown_holds_the_numbers_and_how_they_were_made(results: AblationResults) -> None:
    text = markdown(results)
    line = next(line for line in results["tables"][0]["rows"] if line["row"] == "s4mim")
    assert line["share_of_the_way"] is not None
    scores = cells_of(text, "s4mim")[:7]
    assert scores == [
        "s4mim",
        percent(line["last"]),
        percent(line["difference"], signed=True),
        f"{100 * line['share_of_the_way']:.0f}%",
        percent(line["best"]),
        percent(line["student"]),
        "2",
    ]
    better = results["tables"][0]["better_unimatch"]
    assert f"Better UniMatch: {better}, " in text
    for fact in (
        "abc1234",
        "a machine, torch 2.13",
        "Seeds: 0, 1.",
        "whole image at original size",
        "600 optimizer steps",
    ):
        assert fact in text.replace("\n  ", " "), fact
    block = text.split("```bash\n")[1].split("\n```")[0]
    assert shlex.split(block.replace("\\\n", "")) == shlex.split(COMMAND)


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_tables_fit(results: AblationResults, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal_tables(results))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text, "nothing is cut off"
    assert all(name in text for name in ROWS)


def test_one_seed_has_no_spread_and_no_row_to_compare_with_no_column(tmp_path: Path) -> None:
    plan = planned(tmp_path, "s4mim", seeds=(0,))
    finish_all(plan, {("s4mim", 0): 0.4})
    text = markdown(collect(plan, "", "demo"))
    assert "| row   | mIoU, last | best | student |   n |" in text
    assert cells_of(text, "s4mim")[:5] == ["s4mim", "40.0", "90.0", "30.0", "1"]


def test_unfinished_tables_say_so(tmp_path: Path) -> None:
    plan = planned(tmp_path, "supervised", "base")
    finish_all(plan, {("base", 1): 0.4})
    assert "Unfinished: 1 of 4 runs are in these tables." in markdown(collect(plan, "", "demo"))


def test_whether_seeds_have_draws_of_their_own_is_said(results: AblationResults) -> None:
    assert "(seeds, each with its labelled draw)" in markdown(results).replace("\n  ", " ")
    for run in results["runs"]:
        run["split_hash"] = "one"
    assert "(seeds, all of one labelled split)" in markdown(results).replace("\n  ", " ")
