"""Our numbers as a metric of the `evaluate` library, the Hub's own metric, and the comparison of the two.

Nothing else of the package imports `evaluate`: a script's folder comes first on the path, and there that name is
scripts/evaluate.py.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import datasets
import evaluate
import numpy as np

from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.mean_iou import Scores, scores_of_counts

_DESCRIPTION = "Mean intersection over union of class maps, with the Hub mean_iou's arguments, names and numbers."
_INPUTS = """
Args:
    predictions: list of (height, width) class maps; sizes may differ between images.
    references: list of (height, width) class maps of the same sizes.
    num_labels: number of classes.
    ignore_index: label of pixels that do not count.
    nan_to_num: replaces NaN where given.
    label_map: old label id to new label id, each applied to the original labels.
    reduce_labels: whether label 0 becomes ignored (255) and every other label one less.
Returns:
    mean_iou, mean_accuracy, overall_accuracy (floats), per_category_iou, per_category_accuracy (arrays of num_labels).
"""


class MeanIoU(evaluate.Metric):
    """The project's numbers as a metric of the `evaluate` library, usable where the Hub's mean_iou is."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()}),
        )

    def _compute(
        self,
        predictions: list[Any],
        references: list[Any],
        num_labels: int,
        ignore_index: int,
        nan_to_num: float | None = None,
        label_map: Mapping[int, int] | None = None,
        reduce_labels: bool = False,
    ) -> dict[str, Any]:
        totals = np.zeros((3, num_labels), dtype=np.float64)
        for prediction, reference in zip(predictions, references, strict=True):
            label = _translate(np.array(reference), label_map, reduce_labels)
            totals += _class_counts(np.array(prediction), label, num_labels, ignore_index)
        found = asdict(scores_of_counts(*totals))
        result = {name: np.array(value) if isinstance(value, list) else value for name, value in found.items()}
        if nan_to_num is None:
            return result
        return {name: np.nan_to_num(value, nan=nan_to_num) for name, value in result.items()}


def _translate(labels: np.ndarray, label_map: Mapping[int, int] | None, reduce_labels: bool) -> np.ndarray:
    """Apply the label map, then move every label down by one, 0 and 255 becoming 255."""
    moved = labels.astype(np.int64)
    for old, new in (label_map or {}).items():
        moved[labels == int(old)] = new
    if reduce_labels:
        moved = np.where((moved == 0) | (moved == 255), 255, moved - 1)
    return moved


def _class_counts(prediction: np.ndarray, label: np.ndarray, num_labels: int, ignore_index: int) -> np.ndarray:
    """Count right, labelled and predicted pixels per class, int64 (3, K), as the Hub's metric does.

    An id outside 0 .. K-1 is in no histogram, so a prediction of none of the classes counts as a labelled pixel missed.
    """
    known = label != ignore_index
    prediction, label = prediction[known], label[known]
    groups = (label[prediction == label], label, prediction)
    return np.stack([np.bincount(ids[(ids >= 0) & (ids < num_labels)], minlength=num_labels) for ids in groups])


def load_hub_metric(source: str | Path = "mean_iou", experiment_id: str | None = None) -> evaluate.Metric | None:
    """Load the Hub's mean_iou, or the metric of a local folder.

    `evaluate.load` hangs for minutes where there is no network, so that is found out first.

    Args:
        source: the Hub's name of the metric, or the path of a folder or file that holds its code.
        experiment_id: keeps the cache files of metrics that run at the same time apart.

    Returns:
        The metric, or None where the Hub cannot be had.

    Raises:
        InputError: a local path was given and does not hold a metric.
    """
    path = Path(source)
    if str(source) != "mean_iou":
        if not path.exists():
            raise InputError(f"there is no metric at {path}; give 'ours', 'hub', or a folder that holds mean_iou.py")
        try:
            return evaluate.load(str(path), experiment_id=experiment_id)
        except (OSError, ImportError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the metric at {path} cannot be loaded: {reason}; give a folder that holds it") from None
    if not hub_is_reachable():
        return None
    try:
        return evaluate.load("mean_iou", experiment_id=experiment_id)
    # The probe passed, but what answered may have been a proxy's page: not having the metric is a result, not a bug.
    except (OSError, ImportError, ValueError):
        return None


def hub_is_reachable(timeout: float = 3.0) -> bool:
    """Say whether the Hub may be asked: HF_HUB_OFFLINE is not set and it answers within `timeout` seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
        with socket.create_connection((endpoint.hostname or "", port), timeout=timeout):
            return True
    except (OSError, ValueError):
        return False


class MetricCollector:
    """Hands predictions to an `evaluate` metric as they come; pass it to `Evaluator` as `on_prediction`.

    Args:
        metric: the Hub's mean_iou, or one with its arguments. It keeps what it gets in its cache file.
        num_labels: the number of classes.
        ignore_index: the label that does not count.
    """

    def __init__(self, metric: Any, num_labels: int, ignore_index: int) -> None:
        self._metric = metric
        self._num_labels = num_labels
        self._ignore_index = ignore_index

    def __call__(self, index: int, prediction: np.ndarray, label: np.ndarray) -> None:
        """Add one image: its prediction and label, both uint8 (H, W)."""
        self._metric.add_batch(predictions=[prediction], references=[label])

    def compute(self) -> dict[str, Any]:
        """Return the metric's own result: the five numbers."""
        return self._metric.compute(num_labels=self._num_labels, ignore_index=self._ignore_index)


def largest_difference(ours: Scores, theirs: dict[str, Any]) -> float:
    """Return the largest difference of any of the five numbers; NaN equals NaN only (else: infinite)."""
    largest = 0.0
    for name in ("mean_iou", "mean_accuracy", "overall_accuracy", "per_category_iou", "per_category_accuracy"):
        own, other = np.asarray(getattr(ours, name), dtype=float), np.asarray(theirs[name], dtype=float)
        if (np.isnan(own) != np.isnan(other)).any():
            return float("inf")
        largest = max(largest, float(np.nan_to_num(np.abs(own - other)).max()))
    return largest
