"""The evaluator against a count by hand: every image once, over sizes, batches and processes."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.evaluator import Evaluator
from s4mim_hf.evaluation.inference import InferenceConfig

ID2LABEL = {0: "sky", 1: "road", 2: "a name that goes on and on and on and on and on and on and on", 3: "car"}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
SIZES = [(9, 12), (12, 9), (9, 12), (9, 12), (5, 7), (12, 9), (9, 12)]


def png(array: np.ndarray) -> dict[str, bytes]:
    data = io.BytesIO()
    Image.fromarray(array).save(data, format="PNG")
    return {"bytes": data.getvalue()}


@pytest.fixture
def arrays() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    pairs = []
    for height, width in SIZES:
        label = rng.integers(0, 3, (height, width)).astype(np.uint8)
        label[rng.random(label.shape) < 0.2] = 255
        pairs.append((rng.integers(0, 256, (height, width, 3)).astype(np.uint8), label))
    return pairs


@pytest.fixture
def rows(arrays: list[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    return [{"id": f"image{n}", "image": png(image), "label": png(label)} for n, (image, label) in enumerate(arrays)]


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.batches: list[tuple[int, ...]] = []

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        assert not self.training
        self.batches.append(tuple(pixel_values.shape))
        return SimpleNamespace(logits=self.dropout(self.norm(self.layer(pixel_values))))


def build(rows: list[dict[str, Any]], **options: Any) -> Evaluator:
    settings = {"id2label": ID2LABEL, "image_mean": MEAN, "image_std": STD, "data_name": "toy validation", **options}
    return Evaluator(rows, **settings)


def by_hand(arrays: list[tuple[np.ndarray, np.ndarray]], model: Segmenter) -> np.ndarray:
    model.eval()
    counts = np.zeros((4, 4), dtype=np.int64)
    for image, label in arrays:
        values = ((image / 255.0 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
        with torch.no_grad():
            logits = model(torch.from_numpy(values).permute(2, 0, 1)[None]).logits[0]
        for row, column in np.argwhere(label != 255):
            counts[label[row, column], int(logits[:, row, column].argmax())] += 1
    return counts


@pytest.mark.parametrize("batch_size", [1, 3])
def test_counts_what_a_loop_counts(
    arrays: list[tuple[np.ndarray, np.ndarray]], rows: list[dict[str, Any]], batch_size: int
) -> None:
    model = Segmenter()
    result = build(rows, batch_size=batch_size).evaluate(model)
    shapes = model.batches
    np.testing.assert_array_equal(result.confusion.numpy(), by_hand(arrays, Segmenter()))
    assert result.images == len(rows)
    assert {shape[0] <= batch_size and shape[2:] in SIZES for shape in shapes} == {True}
    assert len(shapes) == (7 if batch_size == 1 else 4)


def test_modes_come_back_and_nothing_in_the_model_moves(rows: list[dict[str, Any]]) -> None:
    model = Segmenter().train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build(rows).evaluate(model)
    assert (model.training, model.norm.training, model.dropout.training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("world", [2, 3, 9])
def test_processes_share_the_images_without_doubles(rows: list[dict[str, Any]], world: int) -> None:
    alone = build(rows).evaluate(Segmenter())
    parts: list[Tensor] = []

    def keep(counts: Tensor) -> Tensor:
        parts.append(counts)
        return counts

    for rank in range(world):
        build(rows, rank=rank, world_size=world, reduce=keep).evaluate(Segmenter())
    # What each process hands to the sum is the whole of what travels.
    total = torch.stack(parts).sum(0)
    assert total.dtype == torch.int64
    assert torch.equal(total[:-1].view(4, 4), alone.confusion)
    assert total[-1] == len(rows)


def test_centre_crop_counts_the_centre_only(
    arrays: list[tuple[np.ndarray, np.ndarray]], rows: list[dict[str, Any]]
) -> None:
    result = build(rows, inference=InferenceConfig(protocol="center_crop", window=5)).evaluate(Segmenter())
    centres = [label[(h - 5) // 2 :, (w - 5) // 2 :][:5, :5] for (_, label), (h, w) in zip(arrays, SIZES, strict=True)]
    assert result.confusion.sum() == sum(int((centre != 255).sum()) for centre in centres)
    expected = [sum(int((centre == index).sum()) for centre in centres) for index in range(4)]
    assert result.confusion.sum(1).tolist() == expected
    assert result.protocol == "centre crop 5 at original size"


def test_predictions_are_handed_out_with_their_rows(
    arrays: list[tuple[np.ndarray, np.ndarray]], rows: list[dict[str, Any]]
) -> None:
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    build(rows, on_prediction=lambda row, prediction, label: seen.update({row: (prediction, label)})).evaluate(
        Segmenter()
    )
    assert sorted(seen) == list(range(len(rows)))
    for row, (prediction, label) in seen.items():
        np.testing.assert_array_equal(label, arrays[row][1])
        assert prediction.shape == label.shape
        assert prediction.dtype == np.uint8


def test_the_table_fits_a_terminal_and_names_protocol_and_data(rows: list[dict[str, Any]]) -> None:
    result = build(rows).evaluate(Segmenter())
    console = Console(width=80, file=io.StringIO())
    console.print(result.table(ID2LABEL))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "toy validation" in text
    assert "whole image at original size" in text
    assert f"{100 * result.scores.mean_iou:.2f}" in text
    car = next(line for line in text.splitlines() if "car" in line)
    assert "–" in car, "a class without labelled pixels has no accuracy"
    assert max(map(len, text.splitlines())) <= 80
    content = json.loads(json.dumps(result.to_dict(ID2LABEL), allow_nan=False))
    assert content["mean_iou"] == result.scores.mean_iou
    assert content["confusion"] == result.confusion.tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": png(np.full((9, 12), 9, dtype=np.uint8))}, "image 'image0' has the label ids 9; expected 0 to 3"),
        ({"label": png(np.zeros((9, 11), dtype=np.uint8))}, "12x9 pixels and its label 11x9"),
        ({"image": {"bytes": b"no picture"}}, "image 'image0' or its label cannot be read"),
    ],
)
def test_bad_rows_are_named(rows: list[dict[str, Any]], change: dict[str, Any], words: str) -> None:
    rows[0] |= change
    model = Segmenter().train()
    with pytest.raises(InputError, match=words):
        build(rows).evaluate(model)
    assert model.training


def test_no_rows_and_bad_batch_sizes_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="toy validation has no labelled image"):
        build([])
    with pytest.raises(InputError, match="batch size is 0"):
        build(rows, batch_size=0)


def test_images_above_the_models_longest_side_are_shrunk_and_scored_at_their_labels_size(
    arrays: list[tuple[np.ndarray, np.ndarray]], rows: list[dict[str, Any]]
) -> None:
    model = Segmenter().eval()
    expected = np.zeros((4, 4), dtype=np.int64)
    for image, label in arrays:
        small = image
        if max(label.shape) > 8:
            size = (8, 6) if label.shape == (9, 12) else (6, 8)
            small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        values = ((small / 255.0 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
        with torch.no_grad():
            logits = model(torch.from_numpy(values).permute(2, 0, 1)[None]).logits
        large = torch.nn.functional.interpolate(logits, label.shape, mode="bilinear", align_corners=False)
        predicted = large[0].argmax(0).numpy()
        np.add.at(expected, (label[label != 255], predicted[label != 255]), 1)
    model.batches.clear()
    result = build(rows, max_side=8, batch_size=2).evaluate(model)
    np.testing.assert_array_equal(result.confusion.numpy(), expected)
    assert {shape[2:] for shape in model.batches} == {(6, 8), (8, 6), (5, 7)}
    assert result.protocol == "whole image at original size, images above 8 pixels a side shrunk to that"
    with pytest.raises(InputError, match="image0' is 12x9, but the model takes at most 8 pixels a side"):
        build([*rows], max_side=8, inference=InferenceConfig(protocol="center_crop", window=4)).evaluate(Segmenter())
    unchanged = build(rows, max_side=12, inference=InferenceConfig(protocol="center_crop", window=4)).evaluate(
        Segmenter()
    )
    assert unchanged.images == len(rows)
