"""ADE20K on a miniature of the scene parsing challenge's layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.splits import match_ids, read_id_list
from s4mim_hf.errors import InputError

# Every value that an annotation may have: 0 for other objects, then the classes.
PUBLISHED = np.arange(151, dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for split, short, count in (("training", "train", 3), ("validation", "val", 2)):
        for number in range(1, count + 1):
            _write(root, split, f"ADE_{short}_{number:08d}", np.roll(PUBLISHED, number).reshape(1, -1))
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    return root


def _write(root: Path, split: str, name: str, ids: np.ndarray) -> None:
    image, annotation = root / "images" / split / f"{name}.jpg", root / "annotations" / split / f"{name}.png"
    for path in (image, annotation):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*ids.shape, 3), np.uint8)).save(image)
    Image.fromarray(ids.astype(np.uint8)).save(annotation)


def ade20k(source: Path, **changes: Any) -> Any:
    return open_source(PrepareOptions("ade20k", Path("unused"), str(source), **changes))


def test_both_splits_are_found(root: Path) -> None:
    for folder in (root, root.parent):
        listing = ade20k(folder).listing()
        assert [item.id for item in listing.training] == [f"ADE_train_0000000{number}" for number in (1, 2, 3)]
        assert [item.id for item in listing.validation] == ["ADE_val_00000001", "ADE_val_00000002"]
        assert listing.labelable is None
        assert [note.split(";")[0] for note in listing.notes] == [
            "training has 3 images where the published ADE20K (scene parsing, 150 classes) has 20210",
            "validation has 2 images where the published ADE20K (scene parsing, 150 classes) has 2000",
        ]


def test_other_objects_are_ignored_and_classes_count_from_0(root: Path) -> None:
    source = ade20k(root)
    ids = source.read_label(source.listing().training[0])
    assert ids.dtype == np.int64
    # Written as 150, 0, 1, 2 ... 149.
    assert ids.tolist() == [[149, 255, *range(149)]]
    assert len(source.classes.names) == len(source.classes.palette) == 150


def test_lists_in_the_peers_form_name_the_images(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "labeled.txt"
    names = ["ADE_train_00000003", "ADE_train_00000001"]
    path.write_text("".join(f"images/training/{name}.jpg annotations/training/{name}.png\n" for name in names))
    listing = ade20k(root).listing()
    training, validation = ([item.id for item in items] for items in (listing.training, listing.validation))
    assert match_ids(read_id_list(path), training, validation, "list") == names


@pytest.mark.parametrize("value", [151, 255])
def test_annotations_that_are_reduced_already_are_refused(root: Path, value: int) -> None:
    _write(root, "training", "ADE_train_00000001", np.array([[1, value]]))
    source = ade20k(root)
    with pytest.raises(SampleError) as caught:
        source.read_label(source.listing().training[0])
    assert caught.value.kind.startswith("masks hold ids above 150 (published: 0 for other objects, 1 to 150)")
    assert caught.value.detail == str(value)


def test_a_training_image_without_annotation_stays_unlabelled(root: Path) -> None:
    (root / "annotations" / "training" / "ADE_train_00000002.png").unlink()
    listing = ade20k(root).listing()
    assert [item.label is None for item in listing.training] == [False, True, False]
    assert "1 training images have no annotation and can only be unlabelled: ADE_train_00000002" in listing.notes


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("images/training", r"no images/training in .*; --source of 'ade20k' is ADEChallengeData2016"),
        ("annotations/validation", r"validation is missing; it is part of ADEChallengeData2016.zip"),
        (
            "annotations/validation/ADE_val_00000002.png",
            r"1 of 2 images of .*validation have no mask: ADE_val_00000002",
        ),
        (
            "images/training/ADE_train_00000002.jpg",
            r"1 label files of .*training have no image in .*ADE_train_00000002",
        ),
    ],
)
def test_something_is_missing(root: Path, gone: str, message: str) -> None:
    path = root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=message):
        ade20k(root).listing()


def test_the_table_of_classes() -> None:
    # A few of the challenge's 150 with their ids less 1, and colours of its published colour table.
    info = CATALOG["ade20k"]
    names = {0: "wall", 2: "sky", 12: "person", 20: "car", 56: "pool table", 89: "television receiver", 149: "flag"}
    assert {class_id: info.classes[class_id] for class_id in names} == names
    colors = {0: (120, 120, 120), 2: (6, 230, 230), 12: (150, 5, 61), 20: (0, 102, 200), 149: (92, 0, 255)}
    assert {class_id: info.palette[class_id] for class_id in colors} == colors
