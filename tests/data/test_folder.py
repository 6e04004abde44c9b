"""A folder of one's own is listed as it stands, and its classes are named once."""

from __future__ import annotations

import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_trees import CLASSES, write_pair, write_tree

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources import layout_of, open_source
from s4mim_hf.data.sources.base import Classes, Source
from s4mim_hf.errors import InputError


def opened(source: Path, kind: str = "folder", **options: Any) -> Source:
    return open_source(PrepareOptions(kind, Path("unused"), str(source), **options))


def refused(source: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        opened(source, **options).listing()
    assert "\n" not in str(caught.value)


def test_images_and_masks_below_folders(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=2)
    write_pair(source, "a/b.c/d")
    (source / "images" / "notes.txt").write_text("x")
    (source / "images" / ".hidden.jpg").write_text("x")
    listing = opened(source).listing()
    assert [item.id for item in listing.training] == ["a/b.c/d", "i00", "i01"]
    assert listing.training[0].label == source / "masks" / "a" / "b.c" / "d.png"
    assert (listing.validation, listing.labelable) == (None, None)
    assert listing.notes == ["1 files of images/ are no pictures by their suffix: notes.txt"]


def test_train_and_val_are_splits(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=2, bare=1, validation=2)
    write_pair(source, "test/t")
    listing = opened(source).listing()
    assert [(item.id, item.label is None) for item in listing.training] == [
        ("train/i00", False), ("train/i01", False), ("train/i02", True),
    ]  # fmt: skip
    assert [item.id for item in listing.validation or []] == ["val/v00", "val/v01"]
    assert listing.notes == ["1 images outside images/train and images/val are left out: test/t"]


def test_little_is_kept_of_an_image(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=1)
    for index in range(500):
        for place in ("images/i00.jpg", "masks/i00.png"):
            first = source / place
            os.link(first, first.with_name(f"photo{index:06d}{first.suffix}"))
    tracemalloc.start()
    try:
        listing = opened(source).listing()
        assert all(isinstance(item.image, Path) and item.image.is_file() for item in listing.training)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # An id and two paths as text; two Path objects instead take more than 600 bytes on top.
    names = sum(len(str(part)) for item in listing.training for part in (item.id, item.image, item.label))
    assert (held - names) / len(listing.training) < 400


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    refused(tmp_path / "none", "is missing; --source of 'folder' is a folder with images/ and masks/")
    source = write_tree(tmp_path / "raw", validation=2)
    Image.new("L", (12, 8)).save(source / "masks" / "train" / "zz.png")
    refused(source, "1 masks have no image: train/zz")
    (source / "masks" / "train" / "zz.png").unlink()
    (source / "masks" / "val" / "v01.png").unlink()
    refused(source, "1 of 2 images of images/val have no mask: val/v01")
    twice = write_tree(tmp_path / "twice")
    Image.new("RGB", (12, 8)).save(twice / "images" / "i01.png")
    refused(twice, "are both 'i01'")
    empty = tmp_path / "empty"
    (empty / "images").mkdir(parents=True)
    refused(empty, "masks is missing; a source has images/ and masks/ in it")
    (empty / "masks").mkdir()
    refused(empty, "there are no images in")


def test_classes_are_named_by_file_or_option(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    assert opened(source).classes == opened(source, classes=CLASSES).classes == Classes(CLASSES)
    (source / "classes.json").write_text('["a", " b "]')
    assert opened(source).classes == Classes(("a", "b"))
    (source / "classes.json").unlink()
    assert opened(source).classes is None
    assert opened(source, classes=["x"]).classes == Classes(("x",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ("3", "neither a list of names nor"),
        ('{"id2label": {"1": "a", "2": "b"}}', "must have the ids 0 to 1"),
        ('["a", ""]', "class names are texts"),
        ("[]", "names 0 classes"),
        ('{"id2label": {"0": "a", "1": "b"}, "ignore_index": 0}', "ignore_index is 0"),
        ('["a", "a"]', "names a more than once"),
        ('["a", "b"]', "--classes (3) are not those of"),
    ],
)
def test_classes_that_do_not_fit(content: str, message: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", classes=False)
    (source / "classes.json").write_text(content)
    refused(source, message, classes=["a", "c", "d"] if content == '["a", "b"]' else None)


def test_another_ignore_id_becomes_255(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", classes=False)
    (source / "classes.json").write_text('{"id2label": {"0": "a", "1": "b"}, "ignore_index": 2}')
    folder = opened(source)
    item = folder.listing().training[0]
    raw = np.asarray(Image.open(item.label)).astype(int)
    assert (raw == 2).any()
    np.testing.assert_array_equal(folder.read_label(item), np.where(raw == 2, 255, raw))


def test_a_known_data_set_has_its_own_classes(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", classes=False)
    folder, info = opened(source, "msrc21"), CATALOG["msrc21"]
    assert folder.classes == Classes(info.classes, info.palette)
    assert (folder.name, folder.title, folder.protocol) == ("msrc21", info.title, info.protocol)
    refused(write_tree(tmp_path / "other"), "the catalog's classes of msrc21 (21) are not those of", kind="msrc21")


def test_options_of_other_kinds_are_refused(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    refused(source, "--sbd is not for 'folder', only for voc; leave it out", sbd=tmp_path)
    refused(source, "--classes is not for 'camvid', only for folder, hub", kind="camvid", classes=["a"])
    refused(source, "'camvit' is no known data set; did you mean 'camvid'?", kind="camvit")
    refused(source, "--draw is 'balance'; did you mean 'balanced'?", draw="balance")
    refused(source, "--max-side must be at least 1 pixel", max_side=0)
    with pytest.raises(InputError, match="--source is needed for 'voc': the folder VOCdevkit"):
        open_source(PrepareOptions("voc", Path("unused")))


def test_every_kind_says_how_its_data_must_lie() -> None:
    for kind in ("folder", "camvid", "msrc21", "voc", "cityscapes", "coco", "ade20k", "synthetic"):
        assert len(layout_of(kind)) > 50
