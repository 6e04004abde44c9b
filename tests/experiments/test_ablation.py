"""The whole command on runs that are finished already: what it writes, and how it ends where it cannot."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from written_runs import finish_all, planned

from s4mim_hf.errors import InputError
from s4mim_hf.experiments.ablation import run_ablation
from s4mim_hf.experiments.plan import AblationOptions

ROWS = ("base", "basic_mim", "class_wise_mim")


def compare(output: Path) -> str:
    """Call for one row; return what is printed."""
    console = Console(file=io.StringIO(), width=80)
    assert run_ablation(AblationOptions(rows=["base"], seeds=[0], output=output), console) == ([], 1)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_tables_are_written_though_a_picture_cannot_be_drawn(tmp_path: Path) -> None:
    finish_all(planned(tmp_path, *ROWS, seeds=(0,)), dict.fromkeys([(row, 0) for row in ROWS], 0.4))
    shown = compare(tmp_path)
    assert "1 run in" in shown
    assert "note: finished runs of earlier calls with the same settings" in shown
    assert "note: reconstructions.png is not drawn: " in shown
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "runs", "results.json", "results.md", "ablation.png"}


def test_an_output_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    finish_all(planned(tmp_path, "base", seeds=(0,)), {("base", 0): 0.4})
    (tmp_path / "results.md").mkdir()
    with pytest.raises(InputError, match=r"cannot be written to \(Is a directory\); what is finished stays"):
        compare(tmp_path)
