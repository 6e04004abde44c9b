"""Mean intersection over union: a confusion matrix on the device, and the Hub metric's names and numbers.

Shapes: K is the number of classes; a confusion matrix C is int64 (K, K), C[i, j] pixels of label i predicted as j.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from s4mim_hf.errors import InputError


@dataclass(frozen=True)
class Scores:
    """The five numbers of the Hub's mean_iou, each in 0 .. 1, or NaN where nothing was counted.

    Attributes:
        mean_iou: mean of `per_category_iou` over the classes that have one.
        mean_accuracy: mean of `per_category_accuracy` over the classes that have one.
        overall_accuracy: share of the labelled pixels that are predicted right.
        per_category_iou: of each class; NaN for a class in neither labels nor predictions, 0 for one only predicted.
        per_category_accuracy: of each class; NaN for a class without labelled pixels.
    """

    mean_iou: float
    mean_accuracy: float
    overall_accuracy: float
    per_category_iou: list[float]
    per_category_accuracy: list[float]

    def to_dict(self) -> dict[str, float | list[float | None] | None]:
        """Return the numbers under their names, NaN as None, which JSON can say."""
        return {
            name: [_none_for_nan(entry) for entry in value] if isinstance(value, list) else _none_for_nan(value)
            for name, value in asdict(self).items()
        }


def _none_for_nan(value: float) -> float | None:
    return None if value != value else value


def confusion_matrix(predictions: Tensor, labels: Tensor, num_labels: int, ignore_index: int = 255) -> Tensor:
    """Count (label, prediction) pairs without waiting for the device.

    Args:
        predictions: integer class ids 0 .. K-1, of any shape, any id where the label is ignored.
        labels: integer class ids 0 .. K-1 or `ignore_index`, of the same shape and on the same device.
        num_labels: K.
        ignore_index: the label of pixels that do not count.

    Returns:
        int64 (K, K) on the same device; rows are labels, columns predictions. A pixel whose label or prediction is no
        class is not counted: refusing one would mean waiting for the device; `Evaluator` does so before.
    """
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} differ in shape")
    predictions, labels = predictions.reshape(-1).long(), labels.reshape(-1).long()
    counted = (labels != ignore_index) & (labels >= 0) & (labels < num_labels)
    counted &= (predictions >= 0) & (predictions < num_labels)
    cells = num_labels * num_labels
    # What is not counted goes to one bin more: dropping it by boolean indexing would wait for the device, as bincount
    # does on a GPU to size its output.
    index = torch.where(counted, labels * num_labels + predictions, cells)
    counts = _histogram(index, cells + 1)
    return counts[:cells].view(num_labels, num_labels)


def _histogram(index: Tensor, bins: int) -> Tensor:
    """Count how often each of 0 .. bins-1 occurs in a flat int64 tensor: int64 (bins,)."""
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=bins)
    counts = torch.zeros(bins, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index))


def scores(confusion: Tensor) -> Scores:
    """Turn a confusion matrix (K, K), rows labels and columns predictions, into the Hub metric's numbers."""
    counts = confusion.detach().cpu().numpy().astype(np.float64)
    return _scores(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))


def _scores(intersection: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> Scores:
    """Compute the scores of pixel counts per class, each float64 (K,)."""
    iou = _ratio(intersection, labelled + predicted - intersection)
    accuracy = _ratio(intersection, labelled)
    return Scores(
        mean_iou=_nanmean(iou),
        mean_accuracy=_nanmean(accuracy),
        overall_accuracy=float(_ratio(intersection.sum(), labelled.sum())),
        per_category_iou=iou.tolist(),
        per_category_accuracy=accuracy.tolist(),
    )


def _ratio(numerator: Any, denominator: Any) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(numerator, denominator))


def _nanmean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


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
        found = asdict(_scores(*totals))
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
