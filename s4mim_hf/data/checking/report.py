"""The result of a check, as data and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from s4mim_hf.data.checking.counts import SplitNumbers
from s4mim_hf.data.checking.findings import Seen, find_problems, find_warnings


@dataclass(frozen=True)
class CheckReport:
    """What a check has found.

    Attributes:
        name: what the data set is called.
        seen: all numbers.
        split_hash: the hash of a prepared folder's splits; None for data that is not prepared yet.
        problems: what training would fail with, or be silently wrong with, in sentences; empty where all is well.
        warnings: what training works with, but a person should know.
        notes: what else was seen where the images were looked for.
    """

    name: str
    seen: Seen
    split_hash: str | None = None
    problems: Sequence[str] = field(default_factory=tuple)
    warnings: Sequence[str] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)

    def tables(self) -> list[Table]:
        """Return the splits and the classes as tables that fit 80 columns."""
        from s4mim_hf.data.checking.tables import class_table, split_table

        return [split_table(self), class_table(self)]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in a form that JSON can say; a share is None where there is nothing to share."""
        seen = self.seen
        return {
            "name": self.name,
            "form": "prepared" if seen.prepared else "raw",
            "hash": self.split_hash,
            "splits": {split: _numbers(seen, split) for split in seen.splits},
            "classes": [_class(seen, class_id) for class_id in class_ids(seen)],
            "lookalikes": {
                "of": "a draw" if seen.drawn else "validation",
                "pictures": seen.lookalikes.pictures,
                "alike": seen.lookalikes.alike,
                "examples": list(seen.lookalikes.examples),
            },
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


def make_report(
    name: str,
    seen: Seen,
    *,
    split_hash: str | None = None,
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> CheckReport:
    """Judge what was seen.

    Args:
        name: what the data set is called.
        seen: all numbers.
        split_hash: of a prepared folder.
        problems: what was found in the records and files.
        notes: what else was seen.
    """
    return CheckReport(name, seen, split_hash, (*problems, *find_problems(seen)), tuple(find_warnings(seen)), notes)


def class_ids(seen: Seen) -> list[int]:
    """Return the ids of the classes; where nothing names them, those that are found."""
    if seen.classes is not None:
        return list(range(len(seen.classes)))
    return sorted({class_id for numbers in seen.splits.values() for class_id in numbers.classes_found})


def _numbers(seen: Seen, split: str) -> dict[str, Any]:
    numbers, twins = seen.splits[split], seen.twins
    sizes = dict(zip(("smallest", "median", "largest"), map(list, numbers.sizes(0, 0.5, 1)), strict=False))
    return {
        "images": numbers.images,
        "decoded": numbers.decoded,
        "sizes": sizes or None,
        "kinds": dict(numbers.kinds.most_common()),
        "masks": numbers.masks,
        "ids_found": numbers.classes_found,
        "ids_of_no_class": numbers.odd_ids,
        "labeled_pixels": numbers.labeled_pixels,
        "ignored_pixels": numbers.ignored_pixels,
        "ignored_share": numbers.ignored_share if numbers.pixels else None,
        "ignored_masks": numbers.ignored_masks.count,
        "nearly_constant_masks": numbers.constant.count,
        "masks_with_ids_of_no_class": numbers.odd.count,
        "dark_16_bit_pictures": numbers.dark.count,
        "doubtful_orientations": numbers.doubtful.count,
        "failures": {kind: failed.count for kind, failed in numbers.failures.items()},
        "repeated_pictures": twins.within[split],
        "also_in": {other: twins.across[split, other] for other in seen.splits if other != split},
    }


def _class(seen: Seen, class_id: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": class_id, "name": seen.classes[class_id] if seen.classes else None}
    for split, numbers in seen.splits.items():
        if split != "unlabeled":
            entry[split] = _class_numbers(numbers, class_id)
    return entry


def _class_numbers(numbers: SplitNumbers, class_id: int) -> dict[str, Any]:
    return {
        "pixels": numbers.pixels[class_id],
        "share": numbers.share(class_id) if numbers.labeled_pixels else None,
        "images": numbers.images_with[class_id],
    }
