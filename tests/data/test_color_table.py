"""Masks in RGB become ids by a table of colours, and every colour that the table lacks is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_trees import write_pair

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Classes, SampleError
from s4mim_hf.data.sources.color_table import ColorTable, read_color_map, read_color_table
from s4mim_hf.errors import InputError

ROAD, TREE, SKY, VOID = (128, 64, 128), (128, 128, 0), (1, 2, 250), (0, 0, 0)
EXPECTED = {ROAD: 0, TREE: 1, SKY: 2, VOID: 255}
FORMS = {
    "table.json": json.dumps({"road": ROAD, "tree": TREE, "sky": SKY, "void": VOID}),
    "names.json": json.dumps({"road": "#804080", "tree": "#808000", "sky": "0102fA", "void": "#000000"}),
    "colors.json": json.dumps({"#804080": "road", "#808000": "tree", "#0102fa": "sky", "#000000": "Void"}),
    # As the original CamVid has it.
    "label_colors.txt": "128 64 128\troad\n128 128 0\t\ttree\n1 2 250\tsky\n0 0 0\tVoid\n",
    # As CVAT writes it beside its masks.
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\ntree:128,128,0::\n"
    "sky:1,2,250::\nvoid:0,0,0:a,b:\n",
    "class_dict.csv": "name,r,g,b\nroad,128,64,128\ntree,128,128,0\nsky,1,2,250\nunlabelled,0,0,0\n",
    "rgb.csv": "r,g,b,name\r\n128, 64, 128, road\r\n128, 128, 0, tree\r\n\r\n1, 2, 250, sky\r\n0, 0, 0, __ignore__\r\n",
}


def table_of(tmp_path: Path, text: str, name: str = "table.json") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_the_table(name: str, tmp_path: Path) -> None:
    table = read_color_table(table_of(tmp_path, FORMS[name], name))
    assert table.ids == EXPECTED
    assert table.classes == Classes(("road", "tree", "sky"), (ROAD, TREE, SKY))


def test_the_order_of_the_given_names_counts(tmp_path: Path) -> None:
    path = table_of(tmp_path, FORMS["table.json"])
    table = read_color_table(path, ["sky", "void", "road", "tree"])
    assert table.ids == {SKY: 0, VOID: 1, ROAD: 2, TREE: 3}
    assert table.classes.palette == (SKY, VOID, ROAD, TREE)


def test_several_colours_of_one_class(tmp_path: Path) -> None:
    text = "64 0 128 car\n64 128 192 car\nparked car 1 2 3\n"
    table = read_color_table(table_of(tmp_path, text, "c.txt"))
    assert table.ids == {(64, 0, 128): 0, (64, 128, 192): 0, (1, 2, 3): 1}
    assert table.classes == Classes(("car", "parked car"), ((64, 0, 128), (1, 2, 3)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{}", "is empty"),
        ("# only a comment\n", "is empty"),
        ("{", "is no JSON"),
        ("[[1, 2, 3]]", "no JSON object"),
        ('{"road": [1, 2]}', "three numbers from 0 to 255"),
        ('{"road": [1, 2, 256]}', "three numbers from 0 to 255"),
        ('{"road": [1, 2, "3"]}', "three numbers from 0 to 255"),
        ('{"road": "#12345"}', "three numbers from 0 to 255"),
        ('{"road": null}', "three numbers from 0 to 255"),
        ('{"#123456": 3}', "the colour of '#123456' is 3"),
        ('{"#123456": ""}', "the name ''"),
        ('{"road": [1, 2, 3], "road": [3, 2, 1]}', "has 'road' twice"),
        ('{"road": [1, 2, 3], "tree": [1, 2, 3]}', "the colour (1, 2, 3) is both 'road' and 'tree'"),
        ("1 2 3 road\n1 2 tree\n", "line 2 of the colour table"),
        ("1 2 300 road\n", "the colour of 'road' is [1, 2, 300]"),
        ("void 0 0 0\n", "names 0 classes"),
    ],
)
def test_tables_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_color_table(table_of(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    path = table_of(tmp_path, FORMS["table.json"])
    with pytest.raises(InputError, match="no colour for 1 of the 3 classes: rode; did you mean 'road'"):
        read_color_table(path, ["rode", "tree", "sky"])
    with pytest.raises(InputError, match="colours for 1 names that are no class: sky; name them in --classes"):
        read_color_table(path, ["road", "tree"])
    with pytest.raises(InputError, match="cannot be read"):
        read_color_table(tmp_path / "none.json")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_color_table(path)


def colors_of(ids: np.ndarray) -> np.ndarray:
    """Return the colours (H, W, 3) of ids, pixel by pixel."""
    by_id = {class_id: color for color, class_id in EXPECTED.items()}
    return np.array([[by_id[value] for value in row] for row in ids.tolist()], np.uint8)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P", "tiff"])
def test_colours_become_ids(kind: str, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).choice([0, 1, 2, 255], (9, 14))
    image = Image.fromarray(colors_of(ids))
    if kind == "RGBA":
        # What is see-through is labelled all the same.
        image.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 14), dtype=np.uint8)))
    elif kind == "P":
        image = image.quantize(4)
    path = tmp_path / ("a.tiff" if kind == "tiff" else "a.png")
    image.save(path)
    found = read_color_map(path, ColorTable(Classes(("road", "tree", "sky")), EXPECTED))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, ids)


def test_colours_that_the_table_lacks(tmp_path: Path) -> None:
    pixels = colors_of(np.zeros((8, 10), int))
    pixels[0, :3] = (9, 8, 7)
    pixels[1, :5] = (255, 255, 255)
    pixels[2, 0], pixels[3, 0], pixels[4, 0] = (0, 0, 1), (0, 1, 0), (1, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(SampleError, match="colours that the colour table does not list") as caught:
        read_color_map(tmp_path / "a.png", ColorTable(Classes(("road",)), EXPECTED))
    assert caught.value.detail == "255 255 255: 5 pixels, 9 8 7: 3 pixels, 0 0 1: 1 pixels and 2 more"


def test_masks_that_cannot_be_read(tmp_path: Path) -> None:
    table = ColorTable(Classes(("road",)), {ROAD: 0})
    Image.fromarray(np.full((8, 8, 3), ROAD, np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    for name, message in (
        ("a.jpg", "JPEG"),
        ("deep.png", "16 bits"),
        ("junk.png", "cannot be read"),
        ("none.png", "cannot be read"),
    ):
        with pytest.raises(SampleError, match=message):
            read_color_map(tmp_path / name, table)


def test_a_folder_with_masks_in_colours(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    for index in range(3):
        write_pair(source, f"i{index}", index)
        mask = source / "masks" / f"i{index}.png"
        Image.fromarray(colors_of(np.asarray(Image.open(mask)))).save(mask)
    path = table_of(tmp_path, FORMS["labelmap.txt"], "labelmap.txt")
    options = PrepareOptions("folder", tmp_path / "out", str(source), color_table=path)
    opened = open_source(options)
    assert opened.classes == Classes(("road", "tree", "sky"), (ROAD, TREE, SKY))
    write_pair(tmp_path / "plain", "i1", 1)
    expected = np.asarray(Image.open(tmp_path / "plain" / "masks" / "i1.png"))
    np.testing.assert_array_equal(opened.read_label(opened.listing().training[1]), expected)
    (source / "classes.json").write_text('["tree", "sky"]')
    with pytest.raises(InputError, match="no class: road"):
        open_source(options)
