"""What came of a call, in numbers: added up over images, parts and processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

# Bad images that are kept by name; of more only the count is.
_NAMED = 1000
_SHOWN = 10


@dataclass
class Summary:
    """Images by what came of them, and the classes of those that are predicted.

    Attributes:
        predicted: images that this call predicted.
        kept: images that were predicted before.
        left_out: images that were not to be predicted.
        replaced: images under whose names there were results of other pictures, which are removed.
        bad: images that cannot be predicted.
        reasons: why, by their names; of the first thousand.
        measured: images that the next two are over.
        confidence: the sum of their mean confidences.
        pixels: their pixels of each class, K numbers.
    """

    predicted: int = 0
    kept: int = 0
    left_out: int = 0
    bad: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    measured: int = 0
    confidence: float = 0.0
    pixels: list[int] = field(default_factory=list)
    replaced: int = 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Summary:
        """Return what `vars` of one gave, by way of JSON."""
        return cls(**content)

    @property
    def mean_confidence(self) -> float | None:
        """The mean over images of the mean over their pixels; None without any image."""
        return self.confidence / self.measured if self.measured else None

    def measure(self, confidence: float, pixels: list[int]) -> None:
        """Count an image's mean confidence and its pixels of each class."""
        self.measured += 1
        self.confidence += confidence
        self._add_pixels(pixels)

    def add_bad(self, name: str, reason: str) -> None:
        """Count an image that cannot be predicted."""
        self.bad += 1
        if len(self.reasons) < _NAMED:
            self.reasons[name] = reason

    def merge(self, other: Summary) -> None:
        """Count all that `other` has counted."""
        self.predicted += other.predicted
        self.kept += other.kept
        self.left_out += other.left_out
        self.replaced += other.replaced
        self.bad += other.bad
        self.reasons = dict([*self.reasons.items(), *other.reasons.items()][:_NAMED])
        self.measured += other.measured
        self.confidence += other.confidence
        self._add_pixels(other.pixels)

    def _add_pixels(self, pixels: list[int]) -> None:
        if pixels:
            mine = self.pixels or [0] * len(pixels)
            self.pixels = [ours + theirs for ours, theirs in zip(mine, pixels, strict=True)]

    def shares(self) -> list[float]:
        """Return each class's share of the pixels, 0 .. 1."""
        total = sum(self.pixels)
        return [count / total if total else 0.0 for count in self.pixels]

    def tables(self, id2label: Mapping[int, str]) -> list[Table]:
        """Return the counts, the classes, and the bad images where there are some; no wider than 80 columns."""
        counts = Table(title="prediction", min_width=40)
        counts.add_column("images", max_width=50)
        counts.add_column("", justify="right")
        for words, count in (("predicted", self.predicted), ("kept from before", self.kept), ("bad", self.bad)):
            counts.add_row(words, str(count))
        if self.left_out:
            counts.add_row("left out: labelled by people, or kept for validation", str(self.left_out))
        if self.replaced:
            counts.add_row("had results of other pictures, now removed", str(self.replaced))
        tables = [counts]
        if self.measured:
            mean = self.mean_confidence or 0.0
            # Of pictures that an earlier call has written, nobody looks at the pixels again.
            over = f"of {self.measured} images, mean confidence {100 * mean:.2f}%"
            classes = Table(title=over, min_width=max(40, len(over) + 2))
            classes.add_column("class", max_width=40)
            classes.add_column("pixels %", justify="right")
            for index, share in enumerate(self.shares()):
                if self.pixels[index]:
                    classes.add_row(Text(id2label.get(index, str(index))), f"{100 * share:.2f}")
            tables.append(classes)
        if self.bad:
            tables.append(self._bad_table())
        return tables

    def _bad_table(self) -> Table:
        table = Table(title="bad images")
        table.add_column("image", max_width=30, overflow="fold")
        table.add_column("why it is skipped", max_width=44, overflow="fold")
        for name, reason in list(self.reasons.items())[:_SHOWN]:
            table.add_row(Text(name), Text(reason))
        if self.bad > _SHOWN:
            table.add_row(f"and {self.bad - min(_SHOWN, len(self.reasons))} more", "")
        return table


def class_pixels(label: np.ndarray, classes: int) -> list[int]:
    """Return how many pixels of a class map (H, W) each of K `classes` has; other ids are not counted."""
    return np.bincount(label.ravel(), minlength=classes)[:classes].tolist()
