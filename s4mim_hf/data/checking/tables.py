"""The tables of a check, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from s4mim_hf.data.checking.counts import Size, SplitNumbers
from s4mim_hf.data.checking.findings import Seen
from s4mim_hf.data.checking.report import CheckReport, class_ids

_PREPARED_HEADINGS = {"labeled": "labeled", "unlabeled": "unlabeled", "validation": "validation"}
_RAW_HEADINGS = {"labeled": "with mask", "unlabeled": "without mask", "validation": "validation"}
_KINDS_SHOWN = 3
_BAR_CELLS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NAME_WIDTH = 22
_LOOK: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "title_justify": "left"}
NONE = "-"


def split_table(report: CheckReport) -> Table:
    """Return one column a split, one line a number."""
    seen = report.seen
    about = f"{len(seen.classes)} classes" if seen.classes else "classes without names"
    hashed = f"hash {report.split_hash[:12]}" if report.split_hash else "not prepared yet"
    table = Table(title=Text(f"{report.name}: {about}, {hashed}"), **_LOOK)
    table.add_column("")
    for split in seen.splits:
        table.add_column(_headings(seen)[split], justify="right", no_wrap=True)
    columns = [_column(seen, split) for split in seen.splits]
    for title in columns[0]:
        table.add_row(title, *(column[title] for column in columns))
    return table


def _headings(seen: Seen) -> Mapping[str, str]:
    return _PREPARED_HEADINGS if seen.prepared else _RAW_HEADINGS


def _column(seen: Seen, split: str) -> dict[str, str | Text]:
    """Return the numbers of a split by their titles, which are the same for all splits."""
    numbers, twins = seen.splits[split], seen.twins
    smallest, median, largest = [*numbers.sizes(0, 0.5, 1), None, None, None][:3]
    cells: dict[str, str | Text] = {
        "images": f"{numbers.images:,}",
        "that do not decode": _bad(numbers.images - numbers.decoded),
        "smallest": _size(smallest),
        "median size": _size(median),
        "largest": _size(largest),
        "kinds": _kinds(numbers),
    }
    labels: dict[str, str | Text] = {
        "usable masks": Text(f"{numbers.masks:,}", style="" if numbers.masks == numbers.images else "red"),
        "classes found": f"{len(numbers.classes_found)}" + (f" of {len(seen.classes)}" if seen.classes else ""),
        "ids of no class": _bad(len(numbers.odd_ids)),
        "ignored pixels": _percent(numbers.ignored_share),
    }
    has_labels = split != "unlabeled" and numbers.images
    cells |= labels if has_labels else dict.fromkeys(labels, NONE)
    cells["repeated pictures"] = f"{twins.within[split]:,}"
    for other in seen.splits:
        if any(count for (_, second), count in twins.across.items() if second == other):
            cells[f"also {_headings(seen)[other]}"] = _shared(seen, split, other)
    return cells


def _size(size: Size | None) -> str:
    return f"{size[0]}x{size[1]}" if size else NONE


def _kinds(numbers: SplitNumbers) -> str:
    common = numbers.kinds.most_common()
    lines = [kind if len(common) == 1 else f"{kind} {count:,}" for kind, count in common[:_KINDS_SHOWN]]
    rest = sum(count for _, count in common[_KINDS_SHOWN:])
    return "\n".join([*lines, f"others {rest:,}"] if rest else lines) or NONE


def _bad(count: int) -> str | Text:
    return Text(f"{count:,}", style="red") if count else "0"


def _shared(seen: Seen, split: str, other: str) -> str | Text:
    if split == other:
        return NONE
    count = seen.twins.across[split, other]
    return _bad(count) if "validation" in (split, other) else f"{count:,}"


def class_table(report: CheckReport) -> Table:
    """Return one line a class: its share of the pixels that are not ignored, and the images that hold it."""
    seen = report.seen
    table = Table(title="share of labelled pixels and images, by class", **_LOOK)
    table.add_column("id", justify="right")
    table.add_column("class", no_wrap=True, max_width=_NAME_WIDTH)
    shown = [split for split in ("labeled", "validation") if seen.splits[split].masks]
    for split in shown:
        table.add_column(_headings(seen)[split], justify="right", no_wrap=True)
        if split == shown[0]:
            table.add_column("", no_wrap=True, min_width=_BAR_CELLS)
        table.add_column("images", justify="right", no_wrap=True)
    largest = max((seen.splits[shown[0]].share(each) for each in class_ids(seen)), default=0.0) if shown else 0.0
    for class_id in class_ids(seen):
        cells: list[str | Text] = [str(class_id), seen.classes[class_id] if seen.classes else "?"]
        for split in shown:
            numbers = seen.splits[split]
            share, images = numbers.share(class_id), numbers.images_with[class_id]
            cells.append(_percent(share) if images else Text(NONE, style="yellow"))
            if split == shown[0]:
                cells.append(bar(share, largest))
            cells.append(f"{images:,}" if images else Text("0", style="yellow"))
        table.add_row(*cells)
    return table


def _percent(share: float) -> str:
    """Return a share with three digits that say something: 12.3%, 1.23%, 0.12%, <0.01%."""
    if 0 < share < 0.0001:
        return "<0.01%"
    return f"{share:.1%}" if share >= 0.1 or share == 0 else f"{share:.2%}"


def bar(value: float, largest: float) -> str:
    """Return a bar of up to 10 cells, which is full for the `largest` value; of a value above 0 something is seen."""
    eighths = round(8 * _BAR_CELLS * value / largest) if largest else 0
    eighths = max(eighths, int(value > 0))
    whole, part = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")
