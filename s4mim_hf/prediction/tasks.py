"""The three things that a call can write: pictures, a data set of predictions, or pseudo-labelled data."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.data.prepared_writer import check_output
from s4mim_hf.prediction.claims import RECORD
from s4mim_hf.prediction.pictures import PictureFolder
from s4mim_hf.prediction.predictor import Predictor
from s4mim_hf.prediction.pseudo_labels import PseudoLabelOptions, PseudoLabels, check_classes, ids_of
from s4mim_hf.prediction.running import Progress, Rows, predict_parts, predict_pictures
from s4mim_hf.prediction.self_training import NothingKnown, PseudoLabeledData, write_pseudo_labeled
from s4mim_hf.prediction.shards import PredictionShards, write_card
from s4mim_hf.prediction.sources import ImageSource, ListedImages
from s4mim_hf.prediction.summary import Summary


@dataclass(frozen=True)
class ModelFacts:
    """What is written down of a model.

    Attributes:
        name: in words that may be published.
        weights: a hash of them.
        protocol: how images are shown to it.
        id2label: class names.
        palette: class colours.
        max_side: the longest side that it takes; None: any.
    """

    name: str
    weights: str
    protocol: str
    id2label: Mapping[int, str]
    palette: tuple[Color, ...]
    max_side: int | None


@dataclass(frozen=True)
class Process:
    """Which of how many processes this is."""

    rank: int = 0
    world_size: int = 1

    def label(self) -> str:
        """Return what its bar is called: where there are several, it is about this one's share."""
        return "predict" if self.world_size == 1 else f"predict (process {self.rank + 1} of {self.world_size})"


class Task(Protocol):
    """What a call writes.

    Attributes:
        folder: what it works in, for itself alone.
        identity: what must be the same for a later call to go on.
    """

    folder: Path
    identity: Mapping[str, Any]

    def predict(self, predictor: Predictor, process: Process) -> Summary:
        """Predict one process's share of what is missing."""

    def finish(self, summary: Summary, say: Callable[[str], None]) -> str:
        """Write what is about all images, in one process; return a sentence on what there is now."""


class PictureTask:
    """Writes masks/, overlays/ and confidences/ of PNGs.

    Args:
        source: the images.
        model: whose predictions they are.
        output: the folder.
        overlays: see `PictureFolder`.
        confidences: likewise.
    """

    def __init__(
        self, source: ImageSource, model: ModelFacts, output: Path, *, overlays: bool, confidences: bool
    ) -> None:
        self.folder, self._source = output, source
        self.identity: Mapping[str, Any] = {"weights": model.weights, "protocol": model.protocol, "format": "png"}
        self._pictures = PictureFolder(
            output, model.palette, model.id2label, overlays=overlays, confidences=confidences
        )

    def predict(self, predictor: Predictor, process: Process) -> Summary:
        """See `Task`."""
        parts = self._source.share(process.rank, process.world_size)
        progress = Progress(parts, process.label(), shown=process.rank == 0)
        try:
            return predict_pictures(parts, predictor, self._pictures, progress)
        finally:
            progress.close()

    def finish(self, summary: Summary, say: Callable[[str], None]) -> str:
        """See `Task`."""
        if summary.predicted + summary.kept == 0 and self._pictures.is_empty():
            # Neither this call nor an earlier one has written what the record could be about.
            (self.folder / RECORD).unlink(missing_ok=True)
        return f"masks are in {self.folder / 'masks'}"


class ShardTask:
    """Writes parquet shards with a card.

    Args:
        source: the images.
        model: whose predictions they are.
        output: the folder.
    """

    def __init__(self, source: ImageSource, model: ModelFacts, output: Path) -> None:
        self.folder, self._model = output, model
        self._parts = dict(enumerate(source.parts()))
        self._shards = PredictionShards(output, len(self._parts), model.palette)
        self.identity: Mapping[str, Any] = {
            "weights": model.weights, "protocol": model.protocol, "format": "parquet", "images": source.fingerprint,
        }  # fmt: skip

    def predict(self, predictor: Predictor, process: Process) -> Summary:
        """See `Task`."""
        return _predict_share(self._parts, predictor, self._shards, self.folder / ".progress", process)

    def finish(self, summary: Summary, say: Callable[[str], None]) -> str:
        """See `Task`."""
        about = {"model": self._model.name, "protocol": self._model.protocol}
        write_card(self.folder, summary, about, self._model.id2label, self._model.palette)
        count = len(self._parts)
        return f"{summary.measured} rows are in {count} shard{'s'[: count > 1]} in {self.folder / 'data'}"


class PseudoLabelTask:
    """Writes prepared data.

    Args:
        source: the pool.
        model: whose predictions become labels.
        output: a new or empty folder.
        options: which pixels and images get labels.
        human: prepared data with labels by people, to be merged; None: none.

    Raises:
        InputError: the output is not empty, or the labels of `human` are of other classes.
    """

    def __init__(
        self,
        source: ImageSource,
        model: ModelFacts,
        output: Path,
        options: PseudoLabelOptions,
        human: PreparedData | None,
    ) -> None:
        check_output(output)
        if human is not None:
            check_classes(human, model.id2label, model.max_side)
            if isinstance(source, ListedImages):
                source = source.apart_from(ids_of(human))
        self._source, self._model, self._output, self._options, self._human = source, model, output, options, human
        self._parts = dict(enumerate(source.parts()))
        self._rows = PseudoLabels(options, len(model.id2label), keep_images=not source.can_read_again)
        target = output.resolve()
        self.folder = target.parent / f".{target.name}.predicted"
        # Of older code, whose rows have no hash of their images.
        self._outdated = target.parent / f".{target.name}.predictions"
        self.identity: Mapping[str, Any] = {
            "weights": model.weights, "protocol": model.protocol, "threshold": options.threshold,
            "images": source.fingerprint, "labeled": None if human is None else human.split_hash,
        }  # fmt: skip

    def predict(self, predictor: Predictor, process: Process) -> Summary:
        """See `Task`."""
        return _predict_share(self._parts, predictor, self._rows, self.folder, process)

    def finish(self, summary: Summary, say: Callable[[str], None]) -> str:
        """See `Task`."""
        try:
            data = PseudoLabeledData(self._source, self.folder, len(self._parts), self._options, self._human)
        except NothingKnown:
            shutil.rmtree(self.folder)
            raise
        settings = {
            "model": self._model.name, "weights": self._model.weights, "protocol": self._model.protocol,
            "threshold": self._options.threshold, "min_known": self._options.min_known,
        }  # fmt: skip
        written = write_pseudo_labeled(
            self._output,
            data,
            settings=settings,
            id2label=self._model.id2label,
            palette=self._model.palette,
            max_side=self._model.max_side,
            fingerprint=hashlib.sha256(json.dumps(self.identity).encode()).hexdigest(),
            say=say,
        )
        shutil.rmtree(self.folder)
        if (self._outdated / RECORD).is_file():
            shutil.rmtree(self._outdated)
        pseudo = len(data.ids["labeled"]) - len(data.human_ids)
        counts = ", ".join(f"{numbers.images} {split}" for split, numbers in written.splits.items())
        return (
            f"{self._output} has {counts} images; {pseudo} of the labelled ones have pseudo-labels, with "
            f"{100 * data.known / data.pixels:.1f}% of their pixels known: train on it with data.path={self._output}"
        )


def _predict_share(
    parts: Mapping[int, Any], predictor: Predictor, rows: Rows, journals: Path, process: Process
) -> Summary:
    mine = {number: part for number, part in parts.items() if number % process.world_size == process.rank}
    progress = Progress(list(mine.values()), process.label(), shown=process.rank == 0)
    try:
        return predict_parts(mine, predictor, rows, journals, progress)
    finally:
        progress.close()
