from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s4mim_hf.data.synthetic import (
    CLASSES,
    PALETTE,
    SIZE,
    render_scene,
    synthetic_ids,
    synthetic_split,
    synthetic_splits,
)

Splits = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return synthetic_splits(0)


def _array(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def _digest(rows: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_array(row["image"]).tobytes())
        digest.update(_array(row["label"]).tobytes() if "label" in row else b"")
    return digest.hexdigest()


def test_counts_ids_and_columns(splits: Splits) -> None:
    assert {split: len(rows) for split, rows in splits.items()} == {"labeled": 16, "unlabeled": 256, "validation": 64}
    ids = [row["id"] for rows in splits.values() for row in rows]
    assert len(set(ids)) == 336
    assert {split: [row["id"] for row in rows] for split, rows in splits.items()} == synthetic_ids(0)
    assert not set(ids) & {one for split in synthetic_ids(1).values() for one in split}, "other scenes, other ids"
    assert all("label" not in row for row in splits["unlabeled"])
    assert len(CLASSES) == len(PALETTE) == len(set(PALETTE)) >= 6


def test_files_are_images_and_their_label_maps(splits: Splits) -> None:
    for row in splits["labeled"] + splits["validation"]:
        image, label = _array(row["image"]), _array(row["label"])
        assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (label.shape, label.dtype) == ((SIZE, SIZE), np.uint8)
        assert set(np.unique(label)) <= {*range(len(CLASSES)), 255}
        assert 0.01 < (label == 255).mean() < 0.15, "each scene has void outlines"


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_labelled_scenes_know_every_class(seed: int) -> None:
    found = np.stack([_array(row["label"]) for row in synthetic_split("labeled", seed)])
    assert all(((found == k).any((1, 2))).sum() >= 4 for k in range(len(CLASSES)))


def test_one_seed_gives_one_data_set_and_another_seed_another(splits: Splits) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generators must not matter
    assert _digest(synthetic_split("labeled", 0)) == _digest(splits["labeled"])
    assert _digest(synthetic_split("validation", 0)) == _digest(splits["validation"])
    assert _digest(synthetic_split("labeled", 1)) != _digest(splits["labeled"])


def test_all_labels_only_add_the_labels_of_the_unlabelled_scenes(splits: Splits) -> None:
    every = synthetic_splits(0, all_labels=True)
    assert every["unlabeled"] == []
    assert every["validation"] == splits["validation"]
    assert every["labeled"][:16] == splits["labeled"]
    assert [{**row, "label": None} for row in every["labeled"][16:]] == [
        {**row, "label": None} for row in splits["unlabeled"]
    ]
    label = _array(every["labeled"][16]["label"])
    assert set(np.unique(label)) <= {*range(len(CLASSES)), 255}


def test_no_scene_occurs_twice(splits: Splits) -> None:
    assert len({row["image"] for rows in splits.values() for row in rows}) == 336


def test_objects_lie_before_the_ground_and_before_each_other() -> None:
    covered = 0
    for seed in range(20):
        image, label = render_scene(np.random.default_rng(seed))
        assert image.std() > 5
        grounds = [k for k in range(4) if (label == k).any()]
        assert 1 <= len(grounds) <= 3
        covered += sum(bool((label == k).any()) for k in (4, 5, 6))
    assert covered >= 30


def test_colours_tell_classes_apart_poorly_and_not_at_all_perfectly(splits: Splits) -> None:
    """Guess each validation pixel from its colour alone, by the labelled pixels' histogram: it must stay hard."""

    def pixels(split: str) -> tuple[np.ndarray, np.ndarray]:
        images = np.stack([_array(row["image"]) for row in splits[split]])
        labels = np.stack([_array(row["label"]) for row in splits[split]])
        return (images[labels != 255] // 32).astype(int) @ [64, 8, 1], labels[labels != 255]

    colors, labels = pixels("labeled")
    votes = np.zeros((512, len(CLASSES)))
    np.add.at(votes, (colors, labels), 1)
    colors, labels = pixels("validation")
    accuracy = (votes.argmax(1)[colors] == labels).mean()
    assert 0.15 < accuracy < 0.45
