"""A card shows the rows that the ablation's own tables show."""

from __future__ import annotations

from pathlib import Path

from raw_trees import write_tree
from written_runs import finish, planned

from s4mim_hf.experiments.collect import collect
from s4mim_hf.experiments.plan import AblationOptions, AblationPlan, plan_ablation
from s4mim_hf.experiments.results import write_results
from s4mim_hf.experiments.tables import markdown
from s4mim_hf.hub.ablation_row import ablation_row


def test_the_rows_of_a_card_are_those_of_the_tables(tmp_path: Path) -> None:
    plan = planned(tmp_path, "supervised", "fully_supervised", "base", "s4mim", "unimatch")
    values = {"supervised": 0.2, "fully_supervised": 0.6, "base": 0.3, "s4mim": 0.34, "unimatch": 0.1}
    for cell in plan.cells:
        finish(cell, values[cell.row.name] + cell.seed / 50, config_hash=f"{cell.row.name}-{cell.seed}")
    results = collect(plan, "python scripts/ablate.py", "demo")
    write_results(results, tmp_path)
    table = {
        cells[0]: cells[1:3]
        for line in markdown(results).splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 7
    }
    text = ablation_row(tmp_path / "results.json", "s4mim-1")
    assert (
        "one run, with seed 1, of the row `s4mim` of an ablation of the recipe `demo` with 16 labelled images" in text
    )
    for name in values:
        last, difference = table[name]
        shown = f"**{name}**" if name == "s4mim" else name
        by_seed = ", ".join(f"{100 * (values[name] + seed / 50):.1f}" for seed in plan.seeds)
        assert f"| {shown} | {last} | {'–' if difference == '-' else difference} | {by_seed} |" in text
    assert "not finished" not in text
    assert "| **fully_supervised** |" in ablation_row(tmp_path / "results.json", "fully_supervised-0")


# Each run has a score of its own, so that one in the place of another is seen.
SCORES = {
    ("1/4", "supervised", 0): 0.21,
    ("1/4", "supervised", 1): 0.22,
    ("1/4", "base", 0): 0.31,
    ("all", "fully_supervised", 0): 0.71,
    ("all", "fully_supervised", 1): 0.72,
    ("all", "supervised", 0): 0.81,
    ("all", "supervised", 1): 0.82,
    ("all", "base", 0): 0.91,
    ("all", "base", 1): 0.92,
}


def drawn(folder: Path, *labeled: str, rows: tuple[str, ...]) -> AblationPlan:
    """Write an ablation over label fractions of raw images; the run of base with 1/4 and seed 1 has failed."""
    source = write_tree(folder / "raw", masked=20)
    options = AblationOptions(rows=rows, seeds=[0, 1], source=source, labeled=labeled, output=folder / "out")
    plan = plan_ablation(options)
    for cell in plan.cells:
        key = (cell.fraction, cell.row.name, cell.seed)
        if key in SCORES:
            finish(cell, SCORES[key], config_hash="-".join(map(str, key)))
    write_results(collect(plan, "python scripts/ablate.py", "demo"), folder / "out")
    return plan


def by_seed(text: str) -> dict[str, str]:
    """Return the last column of a card's table by row."""
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return {cells[0]: cells[-1] for cells in lines[2:]}


def test_runs_with_all_labels_are_shown_in_their_own_table_and_as_the_ceiling(tmp_path: Path) -> None:
    plan = drawn(tmp_path, "1/4", "all", rows=("supervised", "fully_supervised", "base"))
    assert plan.fractions == ["1/4", "all"]
    results = tmp_path / "out" / "results.json"
    quarter = ablation_row(results, "1/4-base-0")
    assert by_seed(quarter) == {"supervised": "21.0, 22.0", "fully_supervised": "71.0, 72.0", "base": "31.0, –"}
    assert "| supervised | 21.5 ± 0.7 |" in quarter
    assert "over the seeds 0, 1, each with its labelled draw;" in quarter
    everything = ablation_row(results, "all-base-0")
    assert by_seed(everything) == {"supervised": "81.0, 82.0", "fully_supervised": "71.0, 72.0", "base": "91.0, 92.0"}
    # All labels are one draw.
    assert "over the seeds 0, 1, all of one labelled split;" in everything


def test_the_card_of_the_ceiling_reads_the_table_that_it_shows(tmp_path: Path) -> None:
    drawn(tmp_path, "1/4", rows=("supervised", "fully_supervised", "base"))
    text = ablation_row(tmp_path / "out" / "results.json", "all-fully_supervised-1")
    assert by_seed(text) == {"supervised": "21.0, 22.0", "fully_supervised": "71.0, 72.0", "base": "31.0, –"}
    assert "over the seeds 0, 1, each with its labelled draw;" in text


def test_the_ceiling_alone_reads_its_own_runs(tmp_path: Path) -> None:
    drawn(tmp_path / "raw", "1/4", rows=("fully_supervised",))
    text = ablation_row(tmp_path / "raw" / "out" / "results.json", "all-fully_supervised-0")
    assert "all of one labelled split;" in text
    # Of the embedded scenes each seed renders its own, all labels or not.
    plan = planned(tmp_path / "scenes", "fully_supervised")
    for cell in plan.cells:
        finish(cell, 0.5, config_hash=f"scenes-{cell.seed}")
    write_results(collect(plan, "python scripts/ablate.py", "demo"), tmp_path / "scenes")
    assert "each with its labelled draw;" in ablation_row(tmp_path / "scenes" / "results.json", "scenes-0")
