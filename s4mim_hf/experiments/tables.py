"""Results as tables: Markdown of at most 120 columns, and for a terminal of 80 or more."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from s4mim_hf.experiments.results import AblationResults, FractionTable, RowSummary, RunRecord, Spread
from s4mim_hf.experiments.rows import FULLY_SUPERVISED

WIDTH = 120
NOTHING = "-"
MARKDOWN_FILE = "results.md"
Column = tuple[str, Callable[[RowSummary], str]]


def write_markdown(results: AblationResults, folder: Path) -> None:
    """Write `results.md` into `folder`."""
    (folder / MARKDOWN_FILE).write_text(markdown(results), encoding="utf-8")


def markdown(results: AblationResults) -> str:
    """Return the tables with everything that a reader needs to judge and repeat them."""
    parts = [f"# Ablation: {results['recipe']}", *_unfinished(results)]
    for table in results["tables"]:
        parts += [f"## {heading(results, table)}", _markdown_table(score_columns(results), table["rows"])]
        parts += [_paragraph(sentence) for sentence in _below(table)]
        parts += [_markdown_table(cost_columns(), table["rows"])]
    parts += ["## How to read it", _list(_reading(results)), "## How it was made", _list(_facts(results))]
    parts += ["```bash\n" + _wrapped_command(results["command"]) + "\n```"]
    return "\n\n".join(parts) + "\n"


def terminal_tables(results: AblationResults) -> Group:
    """Return the same tables for a terminal."""
    parts: list[Table | Text] = []
    for table in results["tables"]:
        parts.append(_rich_table(heading(results, table), score_columns(results), table["rows"]))
        parts += [Text(sentence) for sentence in _below(table)]
        costs = [column for column in cost_columns() if column[0] != "what it is"]
        parts.append(_rich_table("", costs, table["rows"]))
    parts += [Text(sentence, style="yellow") for sentence in _unfinished(results)]
    return Group(*parts)


def score_columns(results: AblationResults) -> list[Column]:
    """Return headings and cells of the first table."""
    columns: list[Column] = [
        ("row", lambda line: line["row"]),
        ("mIoU, last", lambda line: percent(line["last"])),
    ]
    if results["relative_to"] is not None:
        columns.append((f"- {results['relative_to']}", lambda line: percent(line["difference"], signed=True)))
    if any(line["share_of_the_way"] is not None for table in results["tables"] for line in table["rows"]):
        columns.append(("way", lambda line: _way(line["share_of_the_way"])))
    return [
        *columns,
        ("best", lambda line: percent(line["best"])),
        ("student", lambda line: percent(line["student"])),
        ("n", lambda line: str(0 if line["last"] is None else line["last"]["n"])),
    ]


def cost_columns() -> list[Column]:
    """Return headings and cells of the second table."""
    return [
        ("row", lambda line: line["row"]),
        ("what it is", lambda line: line["title"]),
        ("minutes", lambda line: plain(line["train_seconds"], 1 / 60)),
        ("images/s", lambda line: plain(line["images_per_second"])),
        ("GiB", _memory),
        ("settings", lambda line: line["settings_hash"]),
    ]


def percent(spread: Spread | None, signed: bool = False) -> str:
    """Return "35.5 ± 0.4" of shares; without "±" for a single value, "-" for none."""
    return plain(spread, 100, signed)


def plain(spread: Spread | None, scale: float = 1.0, signed: bool = False) -> str:
    """Return mean and standard deviation times `scale`, one decimal each."""
    if spread is None:
        return NOTHING
    mean = scale * spread["mean"]
    text = f"{mean:+z.1f}" if signed else f"{mean:.1f}"
    return text if spread["std"] is None else f"{text} ± {scale * spread['std']:.1f}"


def _way(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f}%"


def _memory(line: RowSummary) -> str:
    return NOTHING if line["peak_memory_bytes"] is None else f"{line['peak_memory_bytes'] / 2**30:.2f}"


def _markdown_table(columns: Sequence[Column], lines: Sequence[RowSummary]) -> str:
    """Return an aligned table, so that it can be read as it is."""
    cells = [[heading for heading, _ in columns], *([cell(line) for _, cell in columns] for line in lines)]
    # A rule needs three characters.
    widths = [max(3, *(len(row[index]) for row in cells)) for index in range(len(columns))]
    left = [heading in ("row", "what it is", "settings") for heading, _ in columns]
    padded = [
        [
            text.ljust(width) if is_left else text.rjust(width)
            for text, width, is_left in zip(row, widths, left, strict=True)
        ]
        for row in cells
    ]
    rule = ["-" * width if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [padded[0], rule, *padded[1:]])


def _rich_table(title: str, columns: Sequence[Column], lines: Sequence[RowSummary]) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading, _ in columns:
        left = heading in ("row", "settings")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(cell(line) for _, cell in columns))
    return table


def heading(results: AblationResults, table: FractionTable) -> str:
    """Return "1/8 of the labels: 46 labelled and 321 unlabelled images"."""
    runs = ((run["labeled"], run["unlabeled"]) for run in _runs_of(results, table))
    counts = next(
        (f"{some} labelled and {'streamed' if rest is None else rest} unlabelled images" for some, rest in runs), ""
    )
    if not counts or table["fraction"].isdecimal():
        return counts or f"{table['fraction']} labelled"
    return f"{table['fraction']} of the labels: {counts}"


def _runs_of(results: AblationResults, table: FractionTable) -> list[RunRecord]:
    """Return the runs of a table without the ceiling's, whose labels are others."""
    return [
        run
        for run in results["runs"]
        if run["fraction"] == table["fraction"] and run["row"] != FULLY_SUPERVISED and run["labeled"] is not None
    ]


def _below(table: FractionTable) -> list[str]:
    better = table["better_unimatch"]
    if better is None:
        return []
    line = next(line for line in table["rows"] if line["row"] == better)
    return [f"Better UniMatch: {better}, {percent(line['last'])}."]


def _unfinished(results: AblationResults) -> list[str]:
    planned = sum(line["planned"] for line in results["tables"][0]["rows"])
    planned += sum(
        line["planned"] for table in results["tables"][1:] for line in table["rows"] if line["row"] != FULLY_SUPERVISED
    )
    if results["complete"]:
        return []
    return [f"Unfinished: {len(results['runs'])} of {planned} runs are in these tables."]


def _reading(results: AblationResults) -> list[str]:
    """Return what the columns mean."""
    runs = "seeds, each with its labelled draw" if _draws_vary(results) else "seeds, all of one labelled split"
    lines = [
        f"mIoU in percent on validation, mean ± sample standard deviation over n runs ({runs}). **mIoU, "
        "last**, the headline, is the teacher's at the last step; *best* is the teacher's highest on these same "
        "images, so chosen by them; *student* is the student's at the last step."
    ]
    if results["relative_to"] is not None:
        lines.append(
            f"*- {results['relative_to']}*: mean difference to that row, paired by draw and seed, ± its sample "
            "standard deviation."
        )
    lines += [
        "*way*: (row - supervised) / (fully_supervised - supervised), of means.",
        "*minutes* of training without evaluation, pictures and checkpoints; *images/s* labelled and unlabelled images "
        "read; *GiB* the highest memory of its runs"
        + _memory_kinds(results)
        + "; *settings* is a hash of all settings that change what is computed, but the seed.",
    ]
    return lines


def _draws_vary(results: AblationResults) -> bool:
    """Whether the runs of a label fraction have several splits; one seed alone does not tell, and is a draw."""
    splits: dict[str, set[str]] = {}
    for run in results["runs"]:
        splits.setdefault(run["fraction"], set()).add(run["split_hash"])
    return len(results["seeds"]) < 2 or not splits or any(len(hashes) > 1 for hashes in splits.values())


def _memory_kinds(results: AblationResults) -> str:
    kinds = dict.fromkeys(run["memory_kind"] for run in results["runs"] if run["memory_kind"])
    return f" ({', '.join(kinds)})" if kinds else ""


def _facts(results: AblationResults) -> list[str]:
    """Return data, splits, protocol, and what was equal for all rows."""
    has_mean_teacher = any(run["row"] == "mean_teacher" for run in results["runs"])
    exception = " (mean_teacher by default without CutMix)" if has_mean_teacher else ""
    facts = [
        f"Data: {results['data']}.",
        f"Evaluation: {results['evaluated_on'] or NOTHING}; {results['protocol'] or NOTHING}.",
        f"Recipe {results['recipe']}; every row: {results['steps']} optimizer steps of {results['labeled_batch_size']} "
        f"labelled images (and {results['unlabeled_batch_size']} unlabelled ones where it uses them), the same "
        f"backbone, augmentation{exception}, schedule and evaluation.",
        f"Seeds: {', '.join(map(str, results['seeds']))}.",
        *(f"Split hashes, {name}: {hashes}." for name, hashes in _split_hashes(results)),
        f"Commit: {', '.join(results['commits']) or 'unknown (no git tree)'}.",
        *(f"Machine: {machine}." for machine in results["machines"]),
        *(f"{note[0].upper()}{note[1:]}." for note in results["notes"]),
    ]
    failed = [
        f"Failed: {run['fraction']}, {run['row']}, seed {run['seed']}: {run['sentence']}" for run in results["failed"]
    ]
    return facts + failed


def _split_hashes(results: AblationResults) -> list[tuple[str, str]]:
    """Return for each fraction the first digits of its draws' hashes, by seed."""
    found: dict[str, dict[int, str]] = {}
    for run in results["runs"]:
        found.setdefault(run["fraction"], {})[run["seed"]] = run["split_hash"][:12]
    lines = []
    for fraction, hashes in found.items():
        same = len(set(hashes.values())) == 1
        each = ", ".join(f"seed {seed} {digest}" for seed, digest in sorted(hashes.items()))
        lines.append((fraction, f"{next(iter(hashes.values()))} for all seeds" if same else each))
    return lines


def _paragraph(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _list(items: Sequence[str]) -> str:
    return "\n".join(
        textwrap.fill(item, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False,
                      break_on_hyphens=False)
        for item in items
    )  # fmt: skip


def _wrapped_command(command: str) -> str:
    """Break a command line between its arguments."""
    lines = [""]
    for argument in map(shlex.quote, shlex.split(command)):
        if lines[-1] and len(lines[-1]) + len(argument) + 3 > WIDTH:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {argument}" if lines[-1] else argument
    return "\n".join(lines)
