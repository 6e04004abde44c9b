"""Known data sets agree with their files, and the default colours with Pascal VOC's published ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s4mim_hf.data.catalog import CATALOG, default_palette


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_class_has_a_colour_of_its_own(name: str) -> None:
    info = CATALOG[name]
    assert info.name == name
    assert len(set(info.classes)) == len(info.classes) == len(info.palette) == len(set(info.palette))
    assert all(0 <= channel <= 255 for color in info.palette for channel in color)


def test_class_counts() -> None:
    assert {name: len(info.classes) for name, info in CATALOG.items()} == {"camvid": 11, "msrc21": 21}


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(CATALOG))
def test_classes_are_those_of_the_real_data(name: str, shared_dir: Path) -> None:
    content = json.loads((shared_dir / "data" / name / "classes.json").read_text())
    assert dict(enumerate(CATALOG[name].classes)) == {int(key): value for key, value in content["id2label"].items()}
    assert CATALOG[name].ignore_index == content["ignore_index"]


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
