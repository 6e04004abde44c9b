"""The confusion matrix and its scores against a count pixel by pixel."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from s4mim_hf.evaluation.mean_iou import confusion_matrix, scores


def count_by_hand(predictions: np.ndarray, labels: np.ndarray, classes: int, ignore: int) -> np.ndarray:
    counts = np.zeros((classes, classes), dtype=np.int64)
    for prediction, label in zip(predictions.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if label != ignore:
            counts[label, prediction] += 1
    return counts


@pytest.mark.parametrize(("classes", "ignore"), [(1, 255), (5, 255), (5, 2), (21, -100)])
def test_counts_every_known_pixel(classes: int, ignore: int) -> None:
    rng = np.random.default_rng(classes)
    labels, predictions = rng.integers(0, classes, (2, 3, 17, 11))
    labels[rng.random(labels.shape) < 0.2] = ignore
    found = confusion_matrix(torch.from_numpy(predictions), torch.from_numpy(labels), classes, ignore)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), count_by_hand(predictions, labels, classes, ignore))


def test_rows_are_labels_and_narrow_types_do_not_overflow() -> None:
    labels = torch.tensor([[200, 200, 255]], dtype=torch.uint8)
    predictions = torch.tensor([[3, 200, 0]], dtype=torch.uint8)
    found = confusion_matrix(predictions, labels, 201)
    assert found[200, 3] == 1
    assert found[200, 200] == 1
    assert found.sum() == 2


def test_what_is_no_class_is_not_counted() -> None:
    labels, predictions = torch.tensor([0, 7, -1, 1]), torch.tensor([0, 0, 0, 9])
    assert confusion_matrix(predictions, labels, 2).tolist() == [[1, 0], [0, 0]]


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion_matrix(torch.zeros(2, 3), torch.zeros(3, 2), 2)


def test_scores_of_a_matrix_computed_by_hand() -> None:
    # Class 2 is predicted but never labelled: 0. Class 3 is neither: NaN, and in no mean.
    found = scores(torch.tensor([[3, 1, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert found.per_category_iou[:3] == pytest.approx([3 / 4, 2 / 5, 0])
    assert math.isnan(found.per_category_iou[3])
    assert found.per_category_accuracy[:2] == pytest.approx([3 / 4, 1 / 2])
    assert all(math.isnan(value) for value in found.per_category_accuracy[2:])
    assert found.mean_iou == pytest.approx((3 / 4 + 2 / 5 + 0) / 3)
    assert found.mean_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.overall_accuracy == pytest.approx(5 / 8)


def test_nothing_counted_is_nan_and_null_in_json() -> None:
    found = scores(torch.zeros(2, 2, dtype=torch.int64))
    assert math.isnan(found.mean_iou)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == {
        "mean_iou": None,
        "mean_accuracy": None,
        "overall_accuracy": None,
        "per_category_iou": [None, None],
        "per_category_accuracy": [None, None],
    }


def test_counts_beyond_single_precision_stay_exact() -> None:
    # 2 ** 24 + 1 has no float32.
    found = scores(torch.tensor([[2**24 + 1, 0], [1, 0]]))
    assert found.per_category_iou[0] == (2**24 + 1) / (2**24 + 2)
