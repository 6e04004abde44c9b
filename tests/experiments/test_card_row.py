"""A card shows the rows that the ablation's own tables show."""

from __future__ import annotations

from pathlib import Path

from written_runs import finish, planned

from s4mim_hf.experiments.collect import collect
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
