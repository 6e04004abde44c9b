"""The published results: what README and cards say is what the ablation's results.json says."""

from __future__ import annotations

import json
import re
import shlex
import statistics
from pathlib import Path
from typing import Any

import pytest

from s4mim_hf.experiments.rows import ROWS, check_overrides, row_overrides, rows_of
from s4mim_hf.experiments.tables import markdown, percent
from s4mim_hf.hub.ablation_row import ablation_row
from s4mim_hf.hub.public_text import secret_in

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "model_cards" / "results").glob("*.json"))


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def load(repository: Path, name: str) -> Any:
    return json.loads((repository / "model_cards" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def cells(results: Any) -> dict[str, str]:
    """Return "37.9 ± 2.5 (-2.4 ± 2.1)" by row: the headline and its paired difference to the base."""
    found = {}
    for line in results["tables"][0]["rows"]:
        if line["last"] is not None:
            difference = "" if line["difference"] is None else f" ({percent(line['difference'], signed=True)})"
            found[line["row"]] = f"{percent(line['last'])}{difference}"
    return found


def test_there_are_results() -> None:
    assert "demo" in NAMES


def test_the_table_of_the_readme_is_that_of_the_results(text: str, repository: Path) -> None:
    table = text.partition("<!-- the results table -->")[2].lstrip().partition("\n\n")[0].splitlines()
    heading, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    columns = [re.search(r"\]\(model_cards/results/(\w+)\.md\)", cell)[1] for cell in heading[1:]]
    assert sorted(columns) == NAMES
    scores = [cells(load(repository, name)) for name in columns]
    expected = [[f"`{row}`", *(found.get(row, "–") for found in scores)] for row in ROWS]
    assert lines == expected


def spread(values: list[float], sign: str = "") -> str:
    mean, deviation = 100 * sum(values) / len(values), 100 * statistics.stdev(values)
    return f"{mean:{sign}.1f} ± {deviation:.1f}"


def rows_below(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table whose first line begins with `heading`, without that line."""
    table = text.partition(heading)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def differences(results: Any, row: str, other: str) -> list[float]:
    last = {(run["row"], run["seed"]): run["last"] for run in results["runs"]}
    return [last[row, seed] - last[other, seed] for seed in results["seeds"]]


# A data set's first table in the README: how it begins, and by the first words of each line its row.
FIRST_TABLES = {
    "demo": (
        "| demo, 2400 steps | mIoU |",
        {
            "labelled images alone": "supervised",
            "one strong view": "base",
            "UniMatch": "unimatch",
            "two strong views": "base_two_views",
            "the same with three views": "base_three_views",
            "**S4MIM**": "s4mim",
            "all labels": "fully_supervised",
        },
    ),
    "msrc21": (
        "| MSRC-21, 44 masks, 1800 steps | mIoU |",
        {
            "labelled images alone": "supervised",
            "one strong view": "base",
            "UniMatch": "unimatch",
            "two strong views": "base_two_views",
            "**S4MIM**": "s4mim",
            "all labels": "fully_supervised",
        },
    ),
}
PARTS = {
    "a third strong view": ("base_three_views", "base_two_views"),
    "class-wise instead of basic": ("class_wise_mim", "basic_mim"),
    "aggregation": ("aggregation", "class_wise_mim"),
    "semantic space, on top": ("s4mim", "aggregation"),
    "semantic space alone": ("semantic_only", "base_two_views"),
    "all three terms on UniMatch": ("s4mim_on_unimatch", "unimatch"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_table_of_the_readme_is_that_of_the_results(text: str, repository: Path, name: str) -> None:
    results = load(repository, name)
    heading, rows = FIRST_TABLES[name]
    lines = rows_below(text, heading)
    assert len(lines) == len(rows)
    for (title, score, lead, by_draw), (words, row) in zip(lines, rows.items(), strict=True):
        assert title.startswith(words)
        assert score == spread([run["last"] for run in results["runs"] if run["row"] == row])
        if row in ("s4mim", "fully_supervised"):
            assert (lead, by_draw) == ("", "")
            continue
        leads = differences(results, "s4mim", row)
        assert lead == spread(leads, "+")
        assert [float(each) for each in by_draw.split(",")] == [round(100 * each, 1) for each in leads]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_readme_says_of_the_way_to_the_ceiling_is_of_the_results(
    text: str, repository: Path, name: str
) -> None:
    heading, _ = FIRST_TABLES[name]
    found = re.search(r"S4MIM goes (\d+) % of the way .*?\(([\d, and-]+) by draw\)", text.partition(heading)[2], re.S)
    assert found is not None
    results = load(repository, name)
    gains, way = (differences(results, row, "supervised") for row in ("s4mim", "fully_supervised"))
    assert int(found[1]) == round(100 * sum(gains) / sum(way))
    by_draw = [round(100 * gain / all_of_it) for gain, all_of_it in zip(gains, way, strict=True)]
    assert [int(share) for share in re.findall(r"-?\d+", found[2])] == by_draw


def test_what_the_readme_says_that_a_part_adds_is_of_the_results(text: str, repository: Path) -> None:
    lines = rows_below(text, "| what a part adds, demo | mIoU |")
    for (title, gain), (words, pair) in zip(lines, PARTS.items(), strict=True):
        assert title.startswith(words)
        assert gain.startswith(spread(differences(load(repository, "demo"), *pair), "+"))


@pytest.mark.parametrize("name", NAMES)
def test_the_markdown_is_rendered_from_the_results(repository: Path, name: str) -> None:
    results = load(repository, name)
    assert (repository / "model_cards" / "results" / f"{name}.md").read_text(encoding="utf-8") == markdown(results)
    index = (repository / "model_cards" / "README.md").read_text(encoding="utf-8")
    assert f"](results/{name}.md)" in index


@pytest.mark.parametrize("name", NAMES)
def test_the_card_shows_every_row_as_the_results_have_it(repository: Path, name: str) -> None:
    card = (repository / "model_cards" / f"{name}.md").read_text(encoding="utf-8")
    found = re.search(r"This model is one run, with seed (\d+), of the row `(\w+)` of an ablation", card)
    assert found is not None
    run = next(run for run in load(repository, name)["runs"] if (run["row"], run["seed"]) == (found[2], int(found[1])))
    assert ablation_row(repository / "model_cards" / "results" / f"{name}.json", run["config_hash"]) in card


@pytest.mark.parametrize("name", NAMES)
def test_results_name_no_place_of_a_machine(repository: Path, name: str) -> None:
    text = json.dumps(load(repository, name), ensure_ascii=False)
    assert secret_in(text, repository) is None
    assert re.search(r"[\s\"=]/\w+/", text) is None


@pytest.mark.parametrize("name", NAMES)
def test_means_are_of_the_runs_and_differences_are_paired(repository: Path, name: str) -> None:
    results = load(repository, name)
    last = {(run["row"], run["seed"]): run["last"] for run in results["runs"]}
    for line in results["tables"][0]["rows"]:
        values = [last[line["row"], seed] for seed in results["seeds"] if (line["row"], seed) in last]
        if values:
            assert line["last"]["mean"] == pytest.approx(sum(values) / len(values))
            assert line["last"]["n"] == len(values)
        if line["difference"] is not None:
            pairs = [
                last[line["row"], seed] - last[results["relative_to"], seed]
                for seed in results["seeds"]
                if (line["row"], seed) in last and (results["relative_to"], seed) in last
            ]
            assert line["difference"]["mean"] == pytest.approx(sum(pairs) / len(pairs))


def check_taken(command: list[str], recipe: str, names: list[str]) -> None:
    """Check that the ablation takes a command's overrides for all rows of these names."""
    assert command[1] == "scripts/ablate.py"
    overrides = [argument for argument in command if re.fullmatch(r"[a-z_.]+=.*", argument)]
    rows = rows_of(names)
    check_overrides(rows, recipe, overrides)
    for row in rows:
        assert row_overrides(row, recipe, overrides)[0] == f"method.name={row.method}"


@pytest.mark.parametrize("name", NAMES)
def test_the_command_is_one_that_the_ablation_takes(repository: Path, name: str) -> None:
    results = load(repository, name)
    check_taken(shlex.split(results["command"]), results["recipe"], [run["row"] for run in results["runs"]])


def test_the_commands_of_the_tables_not_yet_run_are_taken(text: str) -> None:
    code = text.partition("<!-- the commands of what is not run -->")[2].partition("```bash\n")[2].partition("```")[0]
    commands = [shlex.split(line) for line in code.replace("\\\n", " ").splitlines()]
    recipes = [command[command.index("--recipe") + 1] if "--recipe" in command else "demo" for command in commands]
    assert recipes == ["msrc21", "camvid", "msrc21"]
    for command, recipe in zip(commands, recipes, strict=True):
        names = command[command.index("--rows") + 1].split(",") if "--rows" in command else list(ROWS)
        check_taken(command, recipe, names)
