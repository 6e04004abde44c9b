"""The ablation's figure: the numbers that reach its axes, and the file that it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image
from written_runs import finish_all, planned

from s4mim_hf.errors import InputError
from s4mim_hf.experiments.collect import collect
from s4mim_hf.experiments.figures import ablation_figure, draw_ablation
from s4mim_hf.experiments.results import AblationResults

SCORES = {
    ("supervised", 0): 0.30,
    ("supervised", 1): 0.34,
    ("fully_supervised", 0): 0.60,
    ("fully_supervised", 1): 0.62,
    ("base", 0): 0.40,
    ("base", 1): 0.42,
    ("s4mim", 0): 0.45,
    ("s4mim", 1): 0.44,
}


def results_of(folder: Path, scores: dict[tuple[str, int], float]) -> AblationResults:
    plan = planned(folder, "supervised", "fully_supervised", "base", "s4mim")
    finish_all(plan, scores)
    return collect(plan, "the command", "demo")


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def small_marks(axes: Axes) -> dict[int, list[float]]:
    """Return by row the places of the marks that stand for single runs."""
    marks = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "none"]
    return {int(line.get_ydata()[0]): sorted(line.get_xdata()) for line in marks}


def test_rows_numbers_and_lines_are_those_of_the_runs(tmp_path: Path) -> None:
    results = results_of(tmp_path, SCORES)
    figure = ablation_figure(results)
    (axes,) = figure.axes
    titles = [row["title"] for row in results["tables"][0]["rows"]]
    assert [label.get_text() for label in axes.get_yticklabels()] == titles
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is at the top"

    means = {container.lines[0].get_ydata()[0]: container.lines[0].get_xdata()[0] for container in axes.containers}
    assert means == pytest.approx({0: 32.0, 1: 61.0, 2: 41.0, 3: 44.5})
    bars = [container.lines[2][0].get_segments()[0][:, 0] for container in axes.containers]
    # Of two numbers the sample standard deviation is their distance over the root of 2.
    assert bars[0] == pytest.approx([32 - 4 / 2**0.5, 32 + 4 / 2**0.5])
    assert bars[3] == pytest.approx([44.5 - 1 / 2**0.5, 44.5 + 1 / 2**0.5])
    marks = small_marks(axes)
    assert marks[0] == pytest.approx([30, 34])
    assert marks[1] == pytest.approx([60, 62]), "the ceiling's runs count for every fraction"
    assert marks[3] == pytest.approx([44, 45])

    upright = sorted(line.get_xdata()[0] for line in axes.lines if list(line.get_xdata()) == [line.get_xdata()[0]] * 2)
    assert upright == pytest.approx([32, 61]), "floor and ceiling"
    assert texts(axes)[-4:-2] == ["44.5 ± 0.7", "+3.5 ± 2.1"]
    assert "−9.0 ± 1.4" in texts(axes), "supervised against the base, with a true minus"
    assert texts(axes)[-2:] == ["mIoU", "vs. base"]


def test_what_the_reader_must_know_stands_in_the_figure(tmp_path: Path) -> None:
    results = results_of(tmp_path, SCORES)
    everything = " ".join(" ".join(text.get_text().split()) for text in ablation_figure(results).texts)
    for expected in (results["data"], "16 labelled and 256 unlabelled images, 2 seeds", "whole image at original size",
                     "scenes validation, 64 images", "seeds 0, 1", "commit abc1234", "600 steps"):  # fmt: skip
        assert expected in everything
    assert "UNFINISHED" not in everything


def test_unfinished_rows_say_so(tmp_path: Path) -> None:
    some = {key: value for key, value in SCORES.items() if key[0] != "s4mim" and key != ("base", 1)}
    results = results_of(tmp_path, some)
    figure = ablation_figure(results)
    (axes,) = figure.axes
    assert "not finished" in texts(axes)
    assert "40.0 (1 of 2)" in texts(axes)
    assert len(axes.containers) == 3
    assert "UNFINISHED" in " ".join(text.get_text() for text in figure.texts)


def test_each_label_fraction_has_its_panel_on_one_scale(tmp_path: Path) -> None:
    results = results_of(tmp_path, SCORES)
    second = {**results["tables"][0], "fraction": "1/2"}
    figure = ablation_figure({**results, "tables": [results["tables"][0], second]})
    first, other = figure.axes
    assert first.get_xlim() == other.get_xlim()
    assert first.get_position().y0 > other.get_position().y1, "in the table's order, none over another"


def test_the_file_is_one_picture_of_a_readme_s_width(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    draw_ablation(results_of(tmp_path / "runs", SCORES), output / "ablation.png")
    assert [path.name for path in output.iterdir()] == ["ablation.png"]
    with Image.open(output / "ablation.png") as picture:
        assert picture.width == 1800
        assert 500 < picture.height < 900


def test_no_table_is_a_sentence(tmp_path: Path) -> None:
    results = results_of(tmp_path, SCORES)
    with pytest.raises(InputError, match="no table"):
        draw_ablation({**results, "tables": []}, tmp_path / "none.png")


def test_a_panel_shows_the_runs_of_its_label_fraction_and_the_ceiling_s(tmp_path: Path) -> None:
    results = results_of(tmp_path, SCORES)
    ceiling = "fully_supervised"
    more = [
        {**run, "fraction": "1/2", "last": run["last"] + 0.1, "labeled": 128, "unlabeled": 144}
        for run in results["runs"]
        if run["row"] != ceiling
    ]
    second = {**results["tables"][0], "fraction": "1/2"}
    both = {**results, "runs": [*results["runs"], *more], "tables": [results["tables"][0], second]}
    figure = ablation_figure(both)  # type: ignore[arg-type]
    first, other = (small_marks(axes) for axes in figure.axes)
    assert (first[0], first[1], first[3]) == (pytest.approx([30, 34]), pytest.approx([60, 62]), pytest.approx([44, 45]))
    assert (other[0], other[1], other[3]) == (pytest.approx([40, 44]), pytest.approx([60, 62]), pytest.approx([54, 55]))
    titles = " ".join(text.get_text() for text in figure.texts)
    assert "16 labelled and 256 unlabelled images" in titles
    assert "1/2 of the labels: 128 labelled and 144 unlabelled images" in titles
