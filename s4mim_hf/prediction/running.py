"""The loops: images into a folder of pictures, or part after part into journals that a killed call goes on from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from tqdm import tqdm

from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.batching import read_ahead
from s4mim_hf.prediction.journal import NUMBER, Journal
from s4mim_hf.prediction.pictures import PictureFolder, Written
from s4mim_hf.prediction.predictor import Bad, LeftOut, Prediction, Predictor
from s4mim_hf.prediction.sources import InputImage, SourcePart
from s4mim_hf.prediction.summary import Summary, class_pixels

# Predictions that are encoded while the model goes on.
_ENCODING = 4
Outcome = Prediction | Bad | LeftOut


class Rows(Protocol):
    """What is kept of each prediction, and what becomes of a finished part.

    Attributes:
        schema: of the rows: the columns `number`, `mean_confidence` and `pixels` (of each class), and its own.
        stay: whether the rows of a finished part are still needed, once they are published.
    """

    schema: pa.Schema
    stay: bool

    def row(self, found: Prediction) -> Mapping[str, Any]:
        """Return the columns of its own; called in several threads."""

    def is_published(self, part: int, count: int) -> bool:
        """Say whether what becomes of a part is there, and of so many rows."""

    def publish(self, part: int, rows: pa.Table) -> None:
        """Make of a part's rows, in any order, what becomes of them."""


class Progress:
    """A bar with the time that is left; of tars, whose images nobody has counted, it is estimated by their bytes."""

    def __init__(self, parts: Sequence[SourcePart], label: str, *, shown: bool) -> None:
        self._weight = sum(part.weight for part in parts)
        totals = [part.total for part in parts]
        known = None if None in totals else sum(total or 0 for total in totals)
        self._estimated, self._passed = known is None, 0.0
        self._bar = tqdm(total=known, desc=label, unit="image", disable=not shown)

    def update(self, count: int = 1, *, fast: bool = False) -> None:
        """Count images; `fast` ones took no time, and say nothing about the others'."""
        if self._bar.disable:
            return
        if fast:
            self._bar.initial += count
            self._bar.n += count
            self._bar.refresh()
        else:
            self._bar.update(count)

    def pass_part(self, part: SourcePart) -> None:
        """Count a part as read."""
        self._passed += part.weight
        if self._estimated and not self._bar.disable:
            self._bar.total = round(self._bar.n * self._weight / self._passed)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def predict_pictures(
    parts: Sequence[SourcePart], predictor: Predictor, folder: PictureFolder, progress: Progress
) -> Summary:
    """Predict every image whose pictures are not all there, or are those of another image.

    Raises:
        InputError: a picture cannot be written, or a shard cannot be read.
    """
    summary = Summary()

    def look(image: InputImage) -> tuple[InputImage, Written]:
        return image, folder.written(image)

    def waiting(part: SourcePart) -> Iterator[InputImage]:
        for image, written in read_ahead(look, part.images(), _ENCODING):
            if written == "all":
                summary.kept += 1
                progress.update(fast=True)
            else:
                summary.replaced += written == "others"
                yield image

    def write(found: Outcome) -> Outcome:
        if isinstance(found, Prediction):
            folder.write(found)
        return found

    for part in parts:
        for found in read_ahead(write, predictor.predict(waiting(part)), _ENCODING):
            if isinstance(found, Prediction):
                summary.measure(mean_confidence(found), class_pixels(found.label, predictor.classes))
            _count(summary, found, progress)
        progress.pass_part(part)
    return summary


def predict_parts(
    parts: Mapping[int, SourcePart], predictor: Predictor, rows: Rows, journals: Path, progress: Progress
) -> Summary:
    """Predict every image of some parts that no earlier call has predicted.

    Args:
        parts: by their numbers.
        predictor: what predicts.
        rows: what is kept.
        journals: the folder where it is kept until a part is finished.
        progress: shows how far it is.

    Returns:
        The summary; its classes and confidence are of all images of the parts, whenever they were predicted.

    Raises:
        InputError: the disk is full, or a shard cannot be read.
    """
    summary = Summary()
    for number, part in parts.items():
        journal = Journal(journals, number, rows.schema)
        with _writing(journals):
            try:
                before = journal.summary()
                if before is not None and not before.bad and rows.is_published(number, before.measured):
                    # Bad ones are tried again: they may have been replaced.
                    before.predicted, before.kept = 0, before.measured
                    progress.update(before.kept + before.left_out, fast=True)
                    summary.merge(before)
                    if not rows.stay:
                        # Those of a call that was killed just before it would have done so.
                        journal.remove_rows()
                else:
                    summary.merge(_predict_part(number, part, predictor, rows, journal, progress))
            finally:
                journal.close()
        progress.pass_part(part)
    return summary


def _predict_part(
    number: int, part: SourcePart, predictor: Predictor, rows: Rows, journal: Journal, progress: Progress
) -> Summary:
    done = frozenset(journal.table().column(NUMBER).to_pylist())
    summary = Summary(kept=len(done))
    progress.update(len(done), fast=True)

    def encode(found: Outcome) -> tuple[Outcome, Mapping[str, Any]]:
        return found, _row(found, rows, predictor.classes) if isinstance(found, Prediction) else {}

    for found, row in read_ahead(encode, predictor.predict(part.images(done)), _ENCODING):
        if isinstance(found, Prediction):
            journal.append([row])
        _count(summary, found, progress)
    journal.close()
    table = journal.table()
    # An earlier call may have been killed after its last row and before they were published.
    if summary.predicted or not rows.is_published(number, len(table)):
        rows.publish(number, table)
    # In the order of the images, so that an interruption changes no bit of the sum.
    order = table.select([NUMBER, "mean_confidence", "pixels"]).sort_by(NUMBER)
    for confidence, pixels in zip(order["mean_confidence"].to_pylist(), order["pixels"].to_pylist(), strict=True):
        summary.measure(confidence, pixels)
    journal.finish(summary)
    if not rows.stay and not summary.bad:
        journal.remove_rows()
    return summary


def _row(found: Prediction, rows: Rows, classes: int) -> dict[str, Any]:
    common = {NUMBER: found.image.number, "mean_confidence": mean_confidence(found)}
    return {**common, "pixels": class_pixels(found.label, classes), **rows.row(found)}


def mean_confidence(found: Prediction) -> float:
    """Return the mean of a prediction's confidence over its pixels."""
    return float(found.confidence.mean(dtype="float64"))


def _count(summary: Summary, found: Outcome, progress: Progress) -> None:
    if isinstance(found, Prediction):
        summary.predicted += 1
    elif isinstance(found, LeftOut):
        summary.left_out += 1
    else:
        summary.add_bad(found.image.name, found.reason)
        # At once: the summary comes at the end, and shows the first few alone.
        tqdm.write(f"bad image, skipped: {found.image.name}: {found.reason}", file=sys.stderr)
    progress.update()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}; make room or correct this: what is predicted stays, "
            "and the same command goes on after it"
        ) from None
