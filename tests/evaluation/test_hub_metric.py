"""Our metric of the `evaluate` library: the Hub's names, arguments and published example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.hub_metric import (
    MeanIoU,
    MetricCollector,
    hub_is_reachable,
    largest_difference,
    load_hub_metric,
)
from s4mim_hf.evaluation.mean_iou import confusion_matrix, scores

# The example in the documentation of the Hub's mean_iou, with its result.
PREDICTIONS = [[[1, 2], [3, 4], [5, 255]], [[2, 7], [9, 2], [3, 6]], [[2, 2, 3], [8, 2, 4], [3, 255, 2]]]
REFERENCES = [[[0, 3], [5, 4], [6, 255]], [[1, 7], [9, 2], [3, 6]], [[1, 2, 2], [8, 2, 1], [3, 255, 1]]]


def arrays(maps: list[list[list[int]]]) -> list[np.ndarray]:
    return [np.array(rows, dtype=np.uint8) for rows in maps]


@pytest.fixture
def metric() -> MeanIoU:
    return MeanIoU(keep_in_memory=True)


def test_gives_the_hub_documentation_s_example(metric: MeanIoU) -> None:
    found = metric.compute(
        predictions=arrays(PREDICTIONS), references=arrays(REFERENCES), num_labels=10, ignore_index=255
    )
    assert found["mean_iou"] == pytest.approx(0.4775)
    assert found["mean_accuracy"] == pytest.approx(0.5916666666666666)
    assert found["overall_accuracy"] == pytest.approx(0.5263157894736842)
    np.testing.assert_allclose(found["per_category_iou"], [0, 0, 0.375, 0.4, 0.5, 0, 0.5, 1, 1, 1])
    np.testing.assert_allclose(found["per_category_accuracy"], [0, 0, 0.75, 2 / 3, 1, 0, 0.5, 1, 1, 1])


def test_equals_the_confusion_matrix_and_the_collector(metric: MeanIoU) -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 4, (2, 5, 9, 7)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = 255
    ours = scores(confusion_matrix(torch.from_numpy(predictions), torch.from_numpy(labels), 6))
    collector = MetricCollector(metric, 6, 255)
    for index, pair in enumerate(zip(predictions, labels, strict=True)):
        collector(index, *pair)
    assert largest_difference(ours, collector.compute()) == 0


def test_difference_sees_a_number_against_nan() -> None:
    ours = scores(torch.tensor([[1, 0], [0, 0]]))
    theirs = {name: np.nan_to_num(np.asarray(value, dtype=float)) for name, value in vars(ours).items()}
    assert largest_difference(ours, theirs) == float("inf")


def test_label_map_reduce_labels_and_nan_to_num(metric: MeanIoU) -> None:
    reference = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    options = {"num_labels": 3, "ignore_index": 255}
    reduced = metric.compute(
        predictions=[np.array([[2, 0, 1, 2]], dtype=np.uint8)], references=[reference], reduce_labels=True, **options
    )
    assert reduced["overall_accuracy"] == 1
    assert np.isnan(reduced["per_category_iou"][2])
    # Each mapping is of the original labels: 0 -> 1 and 1 -> 0 swap.
    swapped = metric.compute(
        predictions=[np.array([[1, 0, 2, 0]], dtype=np.uint8)],
        references=[reference],
        label_map={0: 1, 1: 0},
        **options,
    )
    assert swapped["mean_iou"] == 1
    filled = metric.compute(
        predictions=[np.array([[0, 1, 1, 1]], dtype=np.uint8)], references=[reference], nan_to_num=-1, **options
    )
    assert filled["per_category_accuracy"].tolist() == [1, 1, 0]
    empty = metric.compute(
        predictions=[np.array([[0]], dtype=np.uint8)], references=[np.array([[0]], dtype=np.uint8)], nan_to_num=-1,
        **options,
    )  # fmt: skip
    assert empty["per_category_iou"].tolist() == [1, -1, -1]


def test_offline_says_no_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_hub_metric() is None
    monkeypatch.delenv("HF_HUB_OFFLINE")
    # Nothing listens on port 9 of this machine.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert not hub_is_reachable()
    assert load_hub_metric() is None


def test_a_local_metric_loads_and_a_missing_or_broken_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metric at .*absent"):
        load_hub_metric(tmp_path / "absent")
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_hub_metric(folder)
    (folder / "mine.py").write_text(
        "from s4mim_hf.evaluation.hub_metric import MeanIoU\n\n\nclass Mine(MeanIoU):\n    pass\n"
    )
    found = load_hub_metric(folder)
    result = found.compute(
        predictions=arrays(PREDICTIONS), references=arrays(REFERENCES), num_labels=10, ignore_index=255
    )
    assert result["mean_iou"] == pytest.approx(0.4775)
