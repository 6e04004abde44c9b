"""Pseudo-labels: a pixel is known where the probability of its class is at least TAU; all others are ignored.

K classes; H, W: an image's size after its EXIF orientation is applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.data.sources.base import IGNORE_INDEX
from s4mim_hf.data.sources.reading import encode_label
from s4mim_hf.errors import InputError, some
from s4mim_hf.prediction.journal import NUMBER
from s4mim_hf.prediction.predictor import Prediction


@dataclass(frozen=True)
class PseudoLabelOptions:
    """Which pixels and images get labels.

    Args:
        threshold: TAU, 0 < TAU <= 1.
        min_known: the share of an image's pixels, 0 .. 1, that must be known; below it the image is unlabelled.

    Raises:
        InputError: a value is out of its range.
    """

    threshold: float
    min_known: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(f"--pseudo-labels is {self.threshold}; the probability must be above 0 and at most 1")
        if not 0 <= self.min_known <= 1:
            raise InputError(f"--min-known is {self.min_known}; the share must be in 0 .. 1")


class PseudoLabels:
    """What is kept of each prediction: its thresholded label, its image's hash, and of one that passes by its bytes.

    Args:
        options: TAU.
        classes: K, at most 255: the 256th id is that of ignored pixels.
        keep_images: whether the images' bytes are kept, too.

    Raises:
        InputError: there are too many classes.
    """

    # The prepared folder is written from the journal.
    stay = True
    schema = pa.schema(
        {
            NUMBER: pa.int64(), "name": pa.string(), "height": pa.int32(), "width": pa.int32(), "known": pa.int64(),
            "mean_confidence": pa.float64(), "pixels": pa.list_(pa.int64()),
            "label": pa.large_binary(), "digest": pa.binary(), "image": pa.large_binary(),
        }
    )  # fmt: skip

    def __init__(self, options: PseudoLabelOptions, classes: int, *, keep_images: bool) -> None:
        if classes > IGNORE_INDEX:
            raise InputError(
                f"the model has {classes} classes, but a label with ignored pixels has room for {IGNORE_INDEX}"
            )
        self._options, self._keep_images = options, keep_images

    def row(self, found: Prediction) -> Mapping[str, Any]:
        """Return the columns of a prediction that others do not have."""
        ids = known_ids(found.label, found.confidence, self._options.threshold)
        return {
            "name": found.image.name,
            "height": ids.shape[0],
            "width": ids.shape[1],
            "known": int((ids != IGNORE_INDEX).sum()),
            "label": encode_label(ids),
            "digest": digest_of(found.data),
            "image": found.data if self._keep_images else None,
        }

    def is_published(self, part: int, count: int) -> bool:
        """Say whether a part's rows are where they are needed: they stay in the journal."""
        return True

    def publish(self, part: int, rows: pa.Table) -> None:
        """Do nothing: see `is_published`."""


def known_ids(label: np.ndarray, confidence: np.ndarray, threshold: float) -> np.ndarray:
    """Return a class map (H, W) with 255 where the confidence (H, W) is below the threshold."""
    return np.where(confidence >= np.float32(threshold), label, np.uint8(IGNORE_INDEX))


def digests_of(data: PreparedData) -> frozenset[bytes]:
    """Return the sha256 of every labelled and validation image, by which they are known in a pool."""
    splits = [data.labeled, *([] if data.validation is None else [data.validation])]
    return frozenset(digest_of(row["image"]["bytes"]) for rows in splits for row in rows.select_columns(["image"]))


def digest_of(data: bytes) -> bytes:
    """Return the sha256 of an image's bytes."""
    return hashlib.sha256(data).digest()


def ids_of(data: PreparedData) -> list[str]:
    """Return the ids of the labelled and the validation images."""
    splits = [data.labeled, *([] if data.validation is None else [data.validation])]
    return [str(image_id) for rows in splits for image_id in rows["id"]]


def check_classes(data: PreparedData, id2label: Mapping[int, str], max_side: int | None) -> None:
    """Refuse to merge labels of other classes than the model's, or pictures of another longest side.

    Raises:
        InputError: they differ.
    """
    if dict(data.id2label) != dict(id2label):
        odd = [name for index, name in data.id2label.items() if id2label.get(index) != name] or list(id2label.values())
        raise InputError(
            f"--labeled {data.path} has {len(data.id2label)} classes and the model {len(id2label)}, which differ in "
            f"{some(odd)}; give the data that the model was trained on"
        )
    if data.max_side != max_side:
        raise InputError(
            f"--labeled {data.path} has pictures of {_side(data.max_side)} and the model takes {_side(max_side)}; give "
            "the data that the model was trained on"
        )


def _side(max_side: int | None) -> str:
    return "any size" if max_side is None else f"at most {max_side} pixels a side"
