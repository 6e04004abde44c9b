"""Folders as LabelMe leaves them: pictures, a JSON file beside each that is annotated, and shapes of every kind."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_trees import SIZE, SQUARE, annotated, labelme, picture, shape
from PIL import Image

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan import make_plan
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Item, SampleError, Source
from s4mim_hf.data.sources.reading import upright_label
from s4mim_hf.errors import InputError

WIDTH, HEIGHT = SIZE
NAMES = ("background", "road", "tree")


def opened(source: Path, annotations: Path | None = None, classes: tuple[str, ...] | None = NAMES) -> Source:
    path = annotations or source
    return open_source(PrepareOptions("folder", source / "out", str(source), annotations=path, classes=classes))


def refused(source: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        opened(source, **options).listing()
    assert "\n" not in str(caught.value)


def items_of(source: Source) -> dict[str, Item]:
    listing = source.listing()
    return {item.id: item for item in [*listing.training, *(listing.validation or [])]}


def expected(rows: slice, columns: slice, value: int, rest: int = 0) -> np.ndarray:
    label = np.full((HEIGHT, WIDTH), rest)
    label[rows, columns] = value
    return label


def test_pictures_and_files_side_by_side(tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("road")])
    annotated(tmp_path / "deeper", "b", [shape("_background_"), shape("tree", [[0, 0], [24, 0], [24, 2], [0, 2]])])
    picture(tmp_path / "c.png")
    source = opened(tmp_path)
    items = items_of(source)
    assert {name: item.label is not None for name, item in items.items()} == {"a": True, "deeper/b": True, "c": False}
    assert source.listing().validation is None
    assert (source.classes.names, source.name) == (NAMES, tmp_path.name)
    np.testing.assert_array_equal(source.read_label(items["a"]), expected(slice(3, 11), slice(4, 12), 1))
    np.testing.assert_array_equal(source.read_label(items["deeper/b"]), expected(slice(0, 2), slice(0, 24), 2))
    assert source.read_label(items["a"]).dtype == np.int64
    assert source.read_image(items["a"]) == (tmp_path / "a.jpg").read_bytes()
    assert not source.listing().notes


@pytest.mark.parametrize("place", ["annotations", "masks", "images"])
def test_files_in_a_folder_of_their_own(place: str, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        picture(tmp_path / "images" / split / f"{split}1.jpg")
        path = tmp_path / place / split / f"{split}1.json"
        labelme(path, [shape("road")], imagePath=f"..\\images\\{split}\\{split}1.jpg")
    listing = opened(tmp_path, tmp_path / place).listing()
    assert [item.id for item in listing.training] == ["train/train1"]
    assert [item.id for item in listing.validation or []] == ["val/val1"]
    assert listing.training[0].label is not None
    assert listing.notes == ["1 images outside train/ and the validation folder are left out: test/test1"]


def test_later_shapes_cover_earlier_ones(tmp_path: Path) -> None:
    inner = [[6, 5], [10, 5], [10, 9], [6, 9]]
    annotated(tmp_path, "a", [shape("road"), shape("tree", inner), shape("__ignore__", [[0, 0], [4, 0], [4, 4]])])
    annotated(tmp_path, "b", [shape("tree", inner), shape("road")])
    source = opened(tmp_path)
    items = items_of(source)
    wanted = expected(slice(3, 11), slice(4, 12), 1)
    np.testing.assert_array_equal(source.read_label(items["b"]), wanted)
    wanted[5:9, 6:10] = 2
    for row, column in np.ndindex(4, 4):
        if column >= row:
            wanted[row, column] = 255
    # Centres on the diagonal belong to the area right of it.
    np.testing.assert_array_equal(source.read_label(items["a"]), wanted)


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_kinds_of_shapes(tmp_path: Path) -> None:
    inside = np.random.default_rng(0).integers(0, 2, (5, 7), dtype=np.uint8)
    corners = [[9.0, 6.0], [15.0, 10.0]]
    forms = {
        "rectangle": shape("road", [[12, 11], [4, 3]], "rectangle"),
        "four": shape("road", SQUARE, "rectangle"),
        "oriented": shape("road", SQUARE, "oriented_rectangle"),
        "old": {"label": "road", "points": SQUARE, "line_color": None, "fill_color": None},
        "circle": shape("road", [[8, 7], [8, 11]], "circle"),
        "mask": shape("road", corners, "mask", mask=png(inside)),
        "bits": shape("road", corners, "mask", mask=png(inside.astype(bool))),
    }
    for name, form in forms.items():
        annotated(tmp_path, name, [form])
    source = opened(tmp_path)
    found = {name: source.read_label(item) for name, item in items_of(source).items()}
    for name in ("rectangle", "four", "oriented", "old"):
        np.testing.assert_array_equal(found[name], expected(slice(3, 11), slice(4, 12), 1))
    for name in ("mask", "bits"):
        wanted = np.zeros((HEIGHT, WIDTH), int)
        wanted[6:11, 9:16] = inside
        np.testing.assert_array_equal(found[name], wanted)
    assert found["circle"].sum() == 52
    assert (found["circle"] == found["circle"][::-1][2:].tolist() + [[0] * WIDTH] * 2).all()


def test_unlabelled_pixels_without_a_background_class(tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("road")])
    annotated(tmp_path, "b", [])
    source = opened(tmp_path, classes=("road", "tree"))
    items = items_of(source)
    np.testing.assert_array_equal(source.read_label(items["a"]), expected(slice(3, 11), slice(4, 12), 0, rest=255))
    assert items["b"].label is None
    first, second = source.listing().notes
    assert "pixels outside all shapes are ignored (255)" in first
    assert second == "1 annotated images have no shape and count as unlabelled: b"
    with_background = opened(tmp_path, classes=("road", "_background_", "tree"))
    assert (with_background.read_label(items_of(with_background)["b"]) == 1).all()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_coordinates_are_those_of_the_upright_picture(orientation: int, tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", orientation=orientation)
    turned = orientation > 4
    size = {"imageWidth": HEIGHT, "imageHeight": WIDTH} if turned else {}
    labelme(tmp_path / "a.json", [shape("road")], **size)
    # Old files say no size: it is that of the upright picture.
    picture(tmp_path / "b.jpg", orientation=orientation)
    labelme(tmp_path / "b.json", [shape("road")], imageHeight=None, imageWidth=None)
    source = opened(tmp_path)
    for item in items_of(source).values():
        label = upright_label(source.read_label(item), source.read_image(item))
        wanted = np.zeros((WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH), int)
        wanted[3:11, 4:12] = 1
        np.testing.assert_array_equal(label, wanted)


def test_a_size_that_is_not_the_pictures(tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("road")], imageHeight=30)
    source = opened(tmp_path)
    item = items_of(source)["a"]
    with pytest.raises(SampleError, match="another size"):
        upright_label(source.read_label(item), source.read_image(item))


def test_a_picture_that_only_its_file_holds(tmp_path: Path) -> None:
    data = picture(tmp_path / "elsewhere" / "a.jpg").read_bytes()
    folder = tmp_path / "raw"
    labelme(folder / "x.json", [shape("road")], imagePath="..\\a.jpg", imageData=base64.b64encode(data).decode())
    source = opened(folder)
    item = items_of(source)["x"]
    assert (source.read_image(item), source.file_name(item)) == (data, "a.jpg")
    np.testing.assert_array_equal(source.read_label(item), expected(slice(3, 11), slice(4, 12), 1))
    labelme(folder / "x.json", [shape("road")], imageData="?")
    with pytest.raises(SampleError, match="no base64"):
        opened(folder).read_image(item)


def test_where_the_classes_come_from(tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("tree"), shape("road"), shape("tree"), shape("__ignore__")])
    refused(
        tmp_path,
        "and their shapes, are road (1), tree (2); give --classes road,tree in the order",
        classes=None,
    )
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nroad\ntree\n\n")
    assert opened(tmp_path, classes=None).classes.names == ("_background_", "road", "tree")
    assert opened(tmp_path, classes=("__ignore__", "tree", "road")).classes.names == ("tree", "road")
    (tmp_path / "classes.json").write_text('["road", "tree"]')
    assert opened(tmp_path, classes=None).classes.names == ("road", "tree")
    refused(tmp_path, "--classes (3) are not those of")
    (tmp_path / "classes.json").unlink()
    (tmp_path / "labels.txt").write_text("road\nroad\n")
    refused(tmp_path, "names road more than once", classes=None)


def test_labels_that_are_no_class(tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("road"), shape("raod"), shape("raod"), shape("cow")])
    refused(tmp_path, "a.json, shape 2 ('raod') has a label that is no class; did you mean 'road'? (labels without")
    refused(tmp_path, "'cow' (1), 'raod' (2)")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            shape("road", [[1, 2], [3, 4]]),
            "shape 2 ('road') is a polygon of 2 different points, and fewer than 3 close",
        ),
        (shape("road", [[1, 2], [3, 4], [5, 6], [7, 1]], "linestrip"), "is a linestrip, which encloses no area"),
        (shape("road", [[1, 2], [3, 4], [5, 6]], "line_strip"), "is a line_strip, which encloses no area"),
        (shape("road", [[1, 2], [3, 4]], "line"), "is a line, which encloses no area"),
        (shape("road", [[1, 2]], "point"), "is a point, which encloses no area"),
        (shape("road", [[1, 2]], "rectangle"), "is a polygon of 1 different points"),
        (shape("road", [[1, 2]], "circle"), "is a circle without exactly two points"),
        (shape("road", [[1, 2], [3, 4]], "mask"), "is a mask without a PNG"),
        (shape("road", [[1, 2], [3, 4]], "mask", mask="AAAA"), "is a mask without a PNG"),
        (shape("road", [], "mask", mask=png(np.ones((2, 2), np.uint8))), "is a mask without a PNG"),
        (shape("road", SQUARE, "mask", mask=png(np.ones((2, 2, 3), np.uint8))), "whose PNG has several channels"),
        (shape("road", SQUARE, "spline"), "has the shape_type 'spline', which is none of polygon"),
        (shape(" "), "shape 2 has no label"),
        ({"points": SQUARE}, "shape 2 has no label"),
        (7, "shape 2 has no label"),
    ],
)
def test_shapes_that_cannot_be_used(bad: Any, message: str, tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("road"), bad])
    refused(tmp_path, message)


def test_many_problems_are_one_sentence(tmp_path: Path) -> None:
    for name in "abcdefgh":
        annotated(tmp_path, name, [shape("road", [[1, 2], [3, 4]])])
    refused(tmp_path, "(there are 7 more problems: ")
    refused(tmp_path, "e.json, shape 1 ('road') and 3 more)")


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("road")])
    (tmp_path / "a.json").write_text('{"shapes": [')
    refused(tmp_path, "a.json is no JSON file that can be read")
    annotated(tmp_path, "a", [shape("road")], imageHeight="16")
    refused(tmp_path, "says that its picture is 24 wide and 16 high, which are no counts")
    annotated(tmp_path, "a", [shape("road")])
    labelme(tmp_path / "gone.json", [shape("road")])
    refused(tmp_path, "gone.json is about the picture gone.jpg, which is not below")
    labelme(tmp_path / "gone.json", [shape("road")], imagePath="a.jpg")
    refused(tmp_path, "annotates the image 'a', which is in")
    (tmp_path / "gone.json").unlink()
    (tmp_path / "notes.json").write_text("[]")
    assert "1 JSON files are neither LabelMe's nor COCO's" in opened(tmp_path).listing().notes[0]
    refused(tmp_path, "there is no", annotations=tmp_path / "none")
    refused(tmp_path, "is neither", annotations=tmp_path / "notes.json")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "has none in its 0 JSON files", annotations=tmp_path / "empty")
    (tmp_path / "notes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    refused(tmp_path, "give --annotations one of them")


def test_a_validation_folder_has_its_own_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        annotated(tmp_path / "raw", name, [shape("road")])
    annotated(tmp_path / "kept", "c", [shape("tree")])
    options = PrepareOptions(
        "folder",
        tmp_path / "out",
        str(tmp_path / "raw"),
        annotations=tmp_path / "raw",
        classes=NAMES,
        validation=str(tmp_path / "kept"),
    )
    plan = make_plan(options)
    (item,) = plan.validation
    assert item.id == "validation/c"
    np.testing.assert_array_equal(
        plan.source_of("validation").read_label(item), expected(slice(3, 11), slice(4, 12), 2)
    )
    assert plan.source.depends_on() == [tmp_path / "raw" / "a.json", tmp_path / "raw" / "b.json"]


def test_a_picture_of_another_folder_is_not_taken(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a" / "001.jpg")
    labelme(tmp_path / "annotations" / "b" / "001.json", [shape("road")])
    refused(tmp_path, "is about the picture 001.jpg", annotations=tmp_path / "annotations")


def test_a_file_that_is_changed_meanwhile(tmp_path: Path) -> None:
    annotated(tmp_path, "a", [shape("road")])
    source = opened(tmp_path)
    item = items_of(source)["a"]
    for content in ("[", "[]", json.dumps({"shapes": [shape("cow")]})):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(SampleError, match="cannot be drawn"):
            source.read_label(item)


def test_a_validation_folder_of_pictures_that_only_their_files_hold(tmp_path: Path) -> None:
    data = picture(tmp_path / "elsewhere" / "a.jpg").read_bytes()
    for folder in ("raw", "held_out"):
        embedded = {"imagePath": "..\\a.jpg", "imageData": base64.b64encode(data).decode()}
        labelme(tmp_path / folder / "x.json", [shape("road"), shape("tree", kind="rectangle")], **embedded)
    raw, names = tmp_path / "raw", ("road", "tree")
    options = PrepareOptions(
        "folder", tmp_path / "out", str(raw), annotations=raw, validation=str(tmp_path / "held_out"), classes=names
    )
    plan = make_plan(options)
    assert [item.id for item in plan.validation] == ["validation/x"]
    item, source = plan.validation[0], plan.source_of("validation")
    assert (source.read_image(item), source.file_name(item)) == (data, "a.jpg")
