"""Mean intersection over union from a confusion matrix on the device, with the Hub metric's names and numbers.

Shapes: K is the number of classes; a confusion matrix C is int64 (K, K), C[i, j] pixels of label i predicted as j.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
    return scores_of_counts(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))


def scores_of_counts(intersection: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> Scores:
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
