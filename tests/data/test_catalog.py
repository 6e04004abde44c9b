"""Known data sets agree with their files, and the default colours with Pascal VOC's published ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.data.catalog import CATALOG, default_palette

REAL = ("camvid", "msrc21")


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_class_has_a_name_and_a_colour_of_its_own(name: str) -> None:
    info = CATALOG[name]
    assert info.name == name
    assert len(set(info.classes)) == len(info.classes) == len(info.palette)
    assert all(each == each.strip() for each in info.classes)
    assert all(0 <= channel <= 255 for color in info.palette for channel in color)
    shared = {color for color in info.palette if info.palette.count(color) > 1}
    # The one exception is as published: road and skyscraper.
    assert shared == ({(140, 140, 140)} if name == "ade20k" else set())


def test_class_counts() -> None:
    counts = {"camvid": 11, "msrc21": 21, "voc": 21, "cityscapes": 19, "ade20k": 150}
    assert {name: len(info.classes) for name, info in CATALOG.items() if name in counts} == counts


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_all_is_said_where_it_is_from(name: str) -> None:
    info = CATALOG[name]
    assert info.title
    assert "http" in info.reference
    assert "mean IoU" in info.protocol
    assert info.published_counts
    if info.statistics is not None:
        assert str(info.statistics.images) in info.statistics.counted.replace(",", "")
        assert max(info.statistics.images_with) <= info.statistics.images


def test_counts_that_differ_are_told() -> None:
    info = CATALOG["voc"]
    published = dict(info.published_counts)
    assert info.count_notes(published) == []
    assert info.count_notes({"elsewhere": 3}) == []
    notes = info.count_notes({**published, "val": 1448})
    assert notes == ["val has 1448 images where the published Pascal VOC 2012 has 1449; is a part of it missing?"]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_classes_are_those_of_the_real_data(name: str, shared_dir: Path) -> None:
    content = json.loads((shared_dir / "data" / name / "classes.json").read_text())
    assert dict(enumerate(CATALOG[name].classes)) == {int(key): value for key, value in content["id2label"].items()}
    assert CATALOG[name].ignore_index == content["ignore_index"]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_statistics_are_those_of_the_real_masks(name: str, shared_dir: Path) -> None:
    info, statistics = CATALOG[name], CATALOG[name].statistics
    paths = sorted((shared_dir / "data" / name / "masks" / "train").rglob("*.png"))
    pixels, images_with = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for path in paths:
        counts = np.bincount(np.asarray(Image.open(path)).ravel(), minlength=256)
        pixels += counts
        images_with += counts > 0
    ids = [*range(len(info.classes)), 255]
    assert statistics is not None
    assert (statistics.images, statistics.pixels) == (len(paths), tuple(pixels[ids].tolist()))
    assert statistics.images_with == tuple(images_with[ids].tolist())
    assert statistics.shares() == pytest.approx((pixels[ids[:-1]] / pixels[ids[:-1]].sum()).tolist())
    assert sum(statistics.shares()) == pytest.approx(1)


def test_default_palette_is_pascal_vocs() -> None:
    # background, aeroplane, bicycle, bird, boat ... tvmonitor, and the border, as the VOC development kit has them
    palette = default_palette(256)
    assert palette[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert palette[15] == (192, 128, 128)
    assert palette[20] == (0, 64, 128)
    assert palette[255] == (224, 224, 192)
    assert len(set(palette)) == 256


def test_msrc_colours_are_vocs_shifted_by_the_void_class() -> None:
    palette = default_palette(27)
    ids = {"building": 1, "sheep": 6, "aeroplane": 9, "bird": 16, "book": 17, "chair": 18, "road": 21, "boat": 25}
    info = CATALOG["msrc21"]
    for name, class_id in ids.items():
        expected = {21: (128, 64, 128), 25: (192, 64, 0)}.get(class_id, palette[class_id])
        assert info.palette[info.classes.index(name)] == expected


def test_more_colours_than_there_are() -> None:
    with pytest.raises(ValueError, match="256 distinct colours"):
        default_palette(257)
