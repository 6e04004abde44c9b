"""Finished journals of pseudo-labels, and labels by people where there are some, written as prepared data.

Training takes it like any other: `train.py data.path=OUT`. K classes; H, W: an image's size after its EXIF orientation
is applied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.prepared import PreparedData, decode_label
from s4mim_hf.data.prepared_writer import Description, Row, Written, write_prepared
from s4mim_hf.data.samples import class_counts
from s4mim_hf.data.shrinking import file_name_of, shrink
from s4mim_hf.data.sources.base import IGNORE_INDEX, SampleError
from s4mim_hf.data.sources.reading import encode_label
from s4mim_hf.errors import InputError
from s4mim_hf.prediction.journal import NUMBER, Journal
from s4mim_hf.prediction.pseudo_labels import PseudoLabelOptions, PseudoLabels, digest_of
from s4mim_hf.prediction.sources import ImageSource

# Journals that are mapped into memory at once: each holds a file open.
_OPEN_TABLES = 8


class NothingKnown(InputError):
    """No pixel reaches the threshold: what was predicted is of no use."""


@dataclass(frozen=True, slots=True)
class _Place:
    part: int
    row: int


class PseudoLabeledData:
    """Finished journals as the splits of prepared data.

    labeled: the images of `human`, and those of the pool of which enough is known; unlabeled: the rest of the pool;
    validation: that of `human`.

    Args:
        source: the pool.
        journals: the folder of journals.
        parts: how many there are.
        options: TAU and the share that must be known.
        human: prepared data with labels by people; None: there are none.

    Raises:
        NothingKnown: no pixel reaches the threshold.
        InputError: no image is known well enough, or two images share an id.
    """

    def __init__(
        self, source: ImageSource, journals: Path, parts: int, options: PseudoLabelOptions, human: PreparedData | None
    ) -> None:
        self._source, self._human, self._options, self._journals = source, human, options, journals
        self._table = lru_cache(_OPEN_TABLES)(lambda part: Journal(journals, part, PseudoLabels.schema).table())
        self._places: dict[str, list[_Place]] = {"labeled": [], "unlabeled": []}
        self.known, self.pixels = 0, 0
        validation = None if human is None else human.validation
        self.human_ids = [] if human is None else [str(name) for name in human.labeled["id"]]
        self.ids = {
            "labeled": [*self.human_ids],
            "unlabeled": [],
            "validation": [] if validation is None else [str(name) for name in validation["id"]],
        }
        for part in range(parts):
            self._place(part)
        default = "whole image at original size, mean IoU over all classes"
        self.protocol = default if human is None else human.protocol
        self._check()

    def _place(self, part: int) -> None:
        """Put the images of a part into their splits, in their order."""
        table = self._table(part).select([NUMBER, "name", "height", "width", "known"])
        columns = [table[name].to_pylist() for name in table.column_names]
        for _, name, height, width, known, row in sorted(zip(*columns, range(len(table)), strict=True)):
            split = "labeled" if known >= self._options.min_known * height * width else "unlabeled"
            self._places[split].append(_Place(part, row))
            self.ids[split].append(name)
            if split == "labeled":
                self.known, self.pixels = self.known + known, self.pixels + height * width

    def _check(self) -> None:
        labeled, unlabeled = len(self._places["labeled"]), len(self._places["unlabeled"])
        if labeled == 0 and unlabeled:
            raise InputError(
                f"none of {unlabeled} images is known in {self._options.min_known:g} of its pixels; lower --min-known, "
                "and nothing is predicted again"
            )
        if self.known == 0:
            raise NothingKnown(
                f"no pixel of {labeled} images has a class of probability {self._options.threshold:g}, so there is "
                "nothing to learn from; lower --pseudo-labels"
            )
        counts = Counter(name for names in self.ids.values() for name in names)
        name, count = counts.most_common(1)[0]
        if count > 1:
            raise InputError(f"{count} images share the id {name!r}; give the pool's images other names")

    def read(self, split: str, index: int, classes: int, max_side: int | None) -> Row:
        """Return a row as it is stored; called in several threads.

        Raises:
            SampleError: an image that was predicted cannot be read any more, or is another by now.
        """
        human = len(self.human_ids)
        if self._human is not None and split == "validation":
            return _human_row(self._human.validation, index, classes)
        if self._human is not None and split == "labeled" and index < human:
            return _human_row(self._human.labeled, index, classes)
        place = self._places[split][index - human if split == "labeled" else index]
        row = self._table(place.part).slice(place.row, 1).to_pylist()[0]
        image = row["image"]
        if image is None:
            image = self._read_again(row)
        ids = decode_label(row["label"])
        if max_side is not None:
            image, smaller = shrink(image, ids, max_side)
            assert smaller is not None
            ids = smaller
        name = file_name_of(row["name"].rsplit("/", 1)[-1], image)
        return _as_row(row["name"], image, name, ids if split == "labeled" else None, ids.shape, classes)

    def _read_again(self, row: Mapping[str, Any]) -> bytes:
        try:
            image = self._source.read(row[NUMBER])
        except (OSError, ValueError) as error:
            raise SampleError("images cannot be read any more", str(error)) from None
        if digest_of(image) != row["digest"]:
            raise SampleError(
                f"images have been replaced since they were predicted (delete {self._journals} to predict anew)"
            )
        return image


def _human_row(rows: Any, index: int, classes: int) -> Row:
    row = rows[index]
    data = row["label"]["bytes"]
    ids = decode_label(data)
    name = row["image"].get("path") or file_name_of(row["id"].rsplit("/", 1)[-1], row["image"]["bytes"])
    height, width = ids.shape
    counts = tuple(class_counts(ids, classes).tolist())
    return Row(row["id"], row["image"]["bytes"], name, data, width, height, counts)


def _as_row(name: str, image: bytes, file_name: str, ids: np.ndarray | None, size: Sequence[int], classes: int) -> Row:
    height, width = size
    if ids is None:
        return Row(name, image, file_name, None, width, height)
    return Row(name, image, file_name, encode_label(ids), width, height, tuple(class_counts(ids, classes).tolist()))


def write_pseudo_labeled(
    output: Path,
    data: PseudoLabeledData,
    *,
    settings: Mapping[str, Any],
    id2label: Mapping[int, str],
    palette: Sequence[Color],
    max_side: int | None,
    fingerprint: str,
    say: Callable[[str], None],
) -> Written:
    """Write the prepared folder; splits.json says under "pseudo_labels" which labels are whose.

    Args:
        output: a new or empty folder.
        data: what goes into it.
        settings: "model", "weights", "protocol", "threshold", "min_known", as they are written down.
        id2label: the model's class names.
        palette: its class colours.
        max_side: the longest side that the model takes: larger pictures are stored as `prepare_data.py --max-side`
            stores them, and all others byte for byte; None: all.
        fingerprint: of all that is predicted.
        say: called with each thing that a person should know.

    Raises:
        InputError: the output is not empty or cannot be written.
    """
    description = Description(
        name=output.resolve().name,
        title=f"{output.resolve().name}, with pseudo-labels",
        classes=tuple(id2label[index] for index in range(len(id2label))),
        palette=tuple(palette),
        ignore_index=IGNORE_INDEX,
        protocol=data.protocol,
        note=_note(data, settings),
        origin=_origin(data, settings),
        max_side=max_side,
        made_by="scripts/predict.py --pseudo-labels",
    )
    return write_prepared(
        output,
        description,
        data.ids,
        lambda split, index: data.read(split, index, len(id2label), max_side),
        fingerprint=fingerprint,
        say=say,
    )


def _note(data: PseudoLabeledData, settings: Mapping[str, Any]) -> str:
    """Return the card's words on whose labels these are."""
    labeled, human = len(data.ids["labeled"]), len(data.human_ids)
    note = (
        f"{labeled - human} of the {labeled} labelled images have pseudo-labels: predictions of the model "
        f"`{settings['model']}` ({settings['protocol']}), of which only pixels with a probability of at least "
        f"{settings['threshold']:g} are kept."
    )
    others = f" People labelled the other {human}, and all of the validation images." if human else ""
    return note + others


def _origin(data: PseudoLabeledData, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what splits.json says of how the labels were made: `human_ids` are those that no model has labelled."""
    pseudo = {
        **settings,
        "images": len(data.ids["labeled"]) - len(data.human_ids),
        "known_share": data.known / data.pixels,
        "human_ids": data.human_ids,
    }
    return {"source": "predictions", "pseudo_labels": pseudo, "version": version("s4mim-hf")}
