"""An ablation's numbers as a figure. mIoU is a share in [0, 1] in results, and in percent here."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.transforms import blended_transform_factory

from s4mim_hf.errors import InputError
from s4mim_hf.experiments.results import AblationResults, FractionTable, RowSummary, Spread
from s4mim_hf.experiments.rows import FULLY_SUPERVISED, SUPERVISED
from s4mim_hf.experiments.tables import heading, percent

OURS = "s4mim"

# Inches; a README shows a figure about 900 pixels wide, 100 to an inch.
_WIDTH, _RIGHT, _ROW, _ABOVE, _BELOW, _PAD = 9.0, 2.3, 0.28, 0.45, 0.35, 0.1
# Okabe and Ito's colours, which colour-blind people can tell apart; the base and ours differ in shape as well.
_BLUE, _BLACK, _GREY = "#0072B2", "#000000", "#6E6E6E"


@dataclass(frozen=True)
class FigureRow:
    """One line of a panel; numbers in percent.

    Args:
        name: the row's name.
        title: what stands beside it.
        seeds: mIoU of each finished run.
        mean: of these; None where none is finished.
        std: the sample standard deviation; None for fewer than two.
        score: the headline in words, "47.6 ± 0.8".
        difference: to the base in words, "+1.2 ± 0.5"; empty where there is none.
    """

    name: str
    title: str
    seeds: list[float]
    mean: float | None
    std: float | None
    score: str
    difference: str


def figure_rows(results: AblationResults, table: FractionTable) -> list[FigureRow]:
    """Return what the panel of one label fraction shows, in the table's order."""
    return [
        FigureRow(
            name=row["row"],
            title=row["title"],
            seeds=_seed_values(results, table["fraction"], row["row"]),
            mean=None if row["last"] is None else 100 * row["last"]["mean"],
            std=None if row["last"] is None or row["last"]["std"] is None else 100 * row["last"]["std"],
            score=_score(row),
            difference=_in_words(row["difference"], signed=True),
        )
        for row in table["rows"]
    ]


def _seed_values(results: AblationResults, fraction: str, row: str) -> list[float]:
    # The ceiling's runs use all labels, so they belong to every fraction.
    return [
        100 * run["last"]
        for run in results["runs"]
        if run["row"] == row and run["last"] is not None and (row == FULLY_SUPERVISED or run["fraction"] == fraction)
    ]


def _score(row: RowSummary) -> str:
    if row["last"] is None:
        return "not finished"
    missing = row["planned"] - row["last"]["n"]
    return _in_words(row["last"]) + (f" ({row['last']['n']} of {row['planned']})" if missing else "")


def _in_words(spread: Spread | None, signed: bool = False) -> str:
    return "" if spread is None else percent(spread, signed).replace("-", "−")


def draw_ablation(results: AblationResults, path: Path) -> None:
    """Write one PNG of an ablation: a panel per label fraction, a line per row with its mean, spread and seeds.

    Raises:
        InputError: the results hold no table.
    """
    figure = ablation_figure(results)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=200)
    os.replace(partial, path)


def ablation_figure(results: AblationResults) -> Figure:
    """Return the figure that `draw_ablation` writes.

    Raises:
        InputError: the results hold no table.
    """
    tables = [table for table in results["tables"] if table["rows"]]
    if not tables:
        raise InputError("the ablation's results hold no table, so nothing can be drawn; let it finish some runs first")
    measured = "; ".join(part for part in (results["evaluated_on"], results["protocol"]) if part)
    title = _wrapped(f"{results['data']}: mIoU of the teacher at the last step, in %", 85)
    caption = _wrapped(f"{measured}\n{_provenance(results)}", 155)
    panels = [_ABOVE + _ROW * len(table["rows"]) + _BELOW for table in tables]
    head, foot = 0.15 + 0.2 * len(title.splitlines()), 0.4 + 0.14 * len(caption.splitlines())
    height = head + sum(panels) + foot
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(figure)
    left = 3 * _PAD + max(_text_width(row["title"]) for table in tables for row in table["rows"])
    shared: Axes | None = None
    bottom = height - head
    for table, panel in zip(tables, panels, strict=True):
        bottom -= panel
        inches = (left, bottom + _BELOW, _WIDTH - left - _RIGHT, panel - _ABOVE - _BELOW)
        rectangle = (inches[0] / _WIDTH, inches[1] / height, inches[2] / _WIDTH, inches[3] / height)
        shared = figure.add_axes(rectangle, sharex=shared)
        _draw_panel(shared, results, table)
        top = (bottom + panel - _ABOVE / 2) / height
        figure.text(_PAD / _WIDTH, top, _panel_title(results, table), fontsize=9.5, va="center", weight="bold")
    figure.text(_PAD / _WIDTH, 1 - 0.1 / height, title, fontsize=11, weight="bold", va="top")
    figure.text(_PAD / _WIDTH, 0.08 / height, caption, fontsize=7.5, color=_GREY, va="bottom", linespacing=1.3)
    anchor = (_PAD / _WIDTH, (foot - 0.05) / height)
    handles = _legend_handles(tables)
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=anchor,
        ncols=len(handles),
        frameon=False,
        fontsize=8.5,
        borderaxespad=0,
        borderpad=0,
    )
    return figure


def _text_width(text: str) -> float:
    """Return the inches that a row's title takes at most."""
    font = FontProperties(size=9, weight="bold")
    return float(TextPath((0, 0), text, prop=font).get_extents().width) / 72


def _wrapped(text: str, width: int) -> str:
    return "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, width))


def _provenance(results: AblationResults) -> str:
    """Say which runs the numbers are from, and how they were put together."""
    batch = f"{results['labeled_batch_size']} + {results['unlabeled_batch_size']}"
    seeds = results["seeds"]
    parts = [
        f"recipe {results['recipe']}",
        f"{results['steps']} steps of {batch} images",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
    ]
    if len(seeds) > 1:
        parts.append("± is the standard deviation over seeds, of differences paired by seed")
    if results["commits"]:
        parts.append(f"commit {', '.join(results['commits'])}")
    if not results["complete"]:
        parts.append("UNFINISHED: some runs are still to come")
    return "; ".join(parts)


def _legend_handles(tables: list[FractionTable]) -> list[Line2D]:
    measured = {row["row"]: row["last"]["n"] for table in tables for row in table["rows"] if row["last"] is not None}
    run: dict[str, Any] = {"color": _BLACK, "marker": "o", "linestyle": "none"}
    handles = [Line2D([], [], **run, markersize=5.5, label="one run")]
    if max(measured.values(), default=1) > 1:
        handles = [
            Line2D([], [], color=_BLACK, marker="o", markersize=5.5, linewidth=1.8, label="mean ± standard deviation"),
            Line2D([], [], **run, markersize=3, markerfacecolor="none", label="one run"),
        ]
    if SUPERVISED in measured:
        handles.append(Line2D([], [], color=_GREY, linestyle="--", linewidth=1, label="floor: supervised"))
    if FULLY_SUPERVISED in measured:
        handles.append(Line2D([], [], color=_GREY, linestyle=":", linewidth=1.4, label="ceiling: all labels"))
    return handles


def _draw_panel(axes: Axes, results: AblationResults, table: FractionTable) -> None:
    rows = figure_rows(results, table)
    for position, row in enumerate(rows):
        _draw_row(axes, position, row, is_base=row.name == results["relative_to"])
        if row.mean is not None and row.name in (SUPERVISED, FULLY_SUPERVISED):
            style, width = ("--", 1.0) if row.name == SUPERVISED else (":", 1.4)
            axes.axvline(row.mean, color=_GREY, linestyle=style, linewidth=width, zorder=1)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=9)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.name == OURS else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.04)
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    base = results["relative_to"]
    # A row above the first one, at the height of the panel's title.
    _beside(axes, -0.6 - _ABOVE / 2 / _ROW, ["mIoU", f"vs. {base.replace('_', ' ')}" if base else ""], weight="bold")


def _draw_row(axes: Axes, position: int, row: FigureRow, is_base: bool) -> None:
    color = _BLUE if row.name == OURS else _GREY if row.name in (SUPERVISED, FULLY_SUPERVISED) else _BLACK
    marker = "D" if row.name == OURS else "s" if is_base else "o"
    axes.axhline(position, color=_GREY, alpha=0.15, linewidth=0.6, zorder=0)
    if len(row.seeds) > 1:
        below = [position + 0.3] * len(row.seeds)
        axes.plot(row.seeds, below, "o", color=color, markersize=3, markerfacecolor="none", alpha=0.8, zorder=2)
    if row.mean is not None:
        axes.errorbar(
            row.mean, position, xerr=row.std, fmt=marker, color=color, markersize=5.5, elinewidth=1.8, zorder=3
        )
    _beside(axes, position, [row.score, row.difference], color=color, weight="bold" if row.name == OURS else "normal")


def _beside(axes: Axes, position: float, texts: list[str], **style: Any) -> None:
    """Write the two columns at the right of a panel, at a height in rows."""
    for inches, text in zip((-_RIGHT + 0.15, -0.95), texts, strict=True):
        place = blended_transform_factory(axes.figure.transFigure, axes.transData)
        axes.text(1 + inches / _WIDTH, position, text, transform=place, fontsize=9, va="center", **style)


def _panel_title(results: AblationResults, table: FractionTable) -> str:
    seeds = max(row["last"]["n"] if row["last"] is not None else 0 for row in table["rows"])
    return f"{heading(results, table)}, {seeds} seed{'s' if seeds != 1 else ''}"
