"""COCO's JSON as CVAT, Label Studio and Roboflow export it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_trees import SIZE, SQUARE, annotation, coco, flat, picture, reference
from pycocotools import mask as coco_mask

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Item, Source
from s4mim_hf.data.sources.reading import upright_label
from s4mim_hf.errors import InputError

WIDTH, HEIGHT = SIZE
NAMES = ("background", "road", "tree")
CATEGORIES = [(3, "tree"), (1, "road")]
TRIANGLE = [[1.25, 1.5], [20.5, 4.0], [6.0, 14.75]]


def opened(source: Path, annotations: Path, classes: tuple[str, ...] | None = None) -> Source:
    return open_source(PrepareOptions("folder", source / "out", str(source), annotations=annotations, classes=classes))


def items_of(source: Source) -> dict[str, Item]:
    listing = source.listing()
    return {item.id: item for item in [*listing.training, *(listing.validation or [])]}


def refused(source: Path, message: str, annotations: Path | None = None, **options: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        opened(source, annotations or source / "a.json", **options)
    assert "\n" not in str(caught.value)


def square(value: int, rest: int) -> np.ndarray:
    label = np.full((HEIGHT, WIDTH), rest)
    label[3:11, 4:12] = value
    return label


def run_lengths(inside: np.ndarray, compressed: bool) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    if compressed:
        return {"size": list(inside.shape), "counts": encoded["counts"].decode()}
    column_by_column = inside.T.ravel()
    borders = np.flatnonzero(np.diff(np.concatenate([[False], column_by_column])))
    lengths = np.diff(np.concatenate([[0], borders, [inside.size]]))
    return {"size": list(inside.shape), "counts": lengths.tolist()}


def test_cvat(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "deeper/c.jpg", "d.jpg"):
        picture(tmp_path / "images" / name)
    noise = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    export = coco(
        tmp_path / "annotations" / "instances_default.json",
        [(1, "a.jpg"), (2, "b.png"), (3, "deeper/c.jpg")],
        [
            annotation(1, 1, 1, [flat(SQUARE)], attributes={"occluded": False}),
            annotation(2, 2, 3, run_lengths(noise, compressed=False), iscrowd=1),
            annotation(3, 1, 3, [flat(TRIANGLE)]),
            annotation(4, 3, 1, run_lengths(noise, compressed=True)),
        ],
        CATEGORIES,
    )
    source = opened(tmp_path, export, NAMES)
    items = items_of(source)
    assert {name: item.label is not None for name, item in items.items()} == {
        "a": True, "b": True, "deeper/c": True, "d": False,
    }  # fmt: skip
    wanted = np.where(reference(TRIANGLE, HEIGHT, WIDTH), 2, square(1, 0))
    np.testing.assert_array_equal(source.read_label(items["a"]), wanted)
    assert source.read_label(items["a"]).dtype == np.int64
    np.testing.assert_array_equal(source.read_label(items["b"]), noise * 2)
    np.testing.assert_array_equal(source.read_label(items["deeper/c"]), noise * 1)
    assert not source.listing().notes


def test_the_categories_name_the_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    records = [annotation(1, 7, 30, [flat(SQUARE)]), annotation(2, 7, 4, [flat([[0, 0], [4, 0], [0, 3]])])]
    categories = [(30, "tree"), (4, "ignore"), (10, "road"), (2, "sky")]
    export = coco(tmp_path / "a.json", [(7, "a.jpg"), (8, "b.jpg")], records, categories)
    source = opened(tmp_path, export)
    assert source.classes is not None
    assert source.classes.names == ("sky", "road", "tree")
    label = source.read_label(items_of(source)["a"])
    np.testing.assert_array_equal(label, square(2, 255))
    assert items_of(source)["b"].label is None
    assert [note.split(",")[0] for note in source.listing().notes] == [
        "pixels outside all shapes are ignored (255)",
        "1 annotated images have no shape and count as unlabelled: b",
    ]
    coco(export, [(7, "a.jpg"), (8, "b.jpg")], records, [*categories, (99, "Background")])
    source = opened(tmp_path, export)
    np.testing.assert_array_equal(source.read_label(items_of(source)["a"])[5:], square(2, 3)[5:])
    assert (source.read_label(items_of(source)["b"]) == 3).all()


def test_label_studio(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "0f3a-a.png")
    picture(tmp_path / "images" / "b1c2-b.png")
    names = ["images\\0f3a-a.png", "..\\..\\label-studio\\media\\upload\\4\\b1c2-b.png"]
    records = [annotation(0, 0, 0, [flat(SQUARE)]), annotation(1, 1, 1, [flat(SQUARE)])]
    export = coco(tmp_path / "result.json", enumerate(names), records, [(0, "road"), (1, "tree")])
    source = opened(tmp_path, export)
    items = items_of(source)
    assert sorted(items) == ["0f3a-a", "b1c2-b"]
    np.testing.assert_array_equal(source.read_label(items["0f3a-a"]), square(0, 255))
    np.testing.assert_array_equal(source.read_label(items["b1c2-b"]), square(1, 255))


def roboflow(source: Path) -> Path:
    """Write train/, valid/ and test/, each with pictures of the same names and its own category ids."""
    for number, split in enumerate(("train", "valid", "test")):
        names = ["x_jpg.rf.1a2b.jpg", "y_jpg.rf.3c4d.jpg"]
        for name in names:
            picture(source / split / name)
        categories = [
            {"id": 0, "name": "streets", "supercategory": "none"},
            {"id": 1 + number, "name": "road", "supercategory": "streets"},
            {"id": 2 + number, "name": "tree", "supercategory": "streets"},
        ]
        records = [annotation(0, 0, 1 + number, [flat(SQUARE)]), annotation(1, 1, 2 + number, [flat(SQUARE)])]
        coco(source / split / "_annotations.coco.json", enumerate(names), records, categories)
    return source


def test_roboflow(tmp_path: Path) -> None:
    source = opened(roboflow(tmp_path), tmp_path)
    assert source.classes is not None
    assert source.classes.names == ("road", "tree")
    listing = source.listing()
    assert [item.id for item in listing.training] == ["train/x_jpg.rf.1a2b", "train/y_jpg.rf.3c4d"]
    assert [item.id for item in listing.validation or []] == ["valid/x_jpg.rf.1a2b", "valid/y_jpg.rf.3c4d"]
    for items in (listing.training, listing.validation or []):
        for value, item in enumerate(items):
            np.testing.assert_array_equal(source.read_label(item), square(value, 255))
    assert listing.notes[0] == "the category streets only groups others and has no shape, so it is no class"
    splits = ("test", "train", "valid")
    assert source.depends_on() == [tmp_path / split / "_annotations.coco.json" for split in splits]
    assert listing.notes[2].startswith("2 images outside train/ and the validation folder are left out: test/x_jpg")


def test_pictures_of_another_split_are_not_taken(tmp_path: Path) -> None:
    roboflow(tmp_path)
    (tmp_path / "train" / "x_jpg.rf.1a2b.jpg").unlink()
    message = "_annotations.coco.json names 1 of 2 pictures that are not below"
    refused(tmp_path, message, annotations=tmp_path)


def test_validation_images_without_annotations_are_left_out(tmp_path: Path) -> None:
    roboflow(tmp_path)
    picture(tmp_path / "valid" / "z.jpg")
    listing = opened(tmp_path, tmp_path).listing()
    assert len(listing.validation or []) == 2
    assert "1 validation images have no annotation and are left out: valid/z" in listing.notes


def test_sizes(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", orientation=6)
    upright = {"id": 1, "file_name": "a.jpg", "width": HEIGHT, "height": WIDTH}
    stored = {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    silent = {"id": 1, "file_name": "a.jpg"}
    as_stored = square(0, 255)
    as_seen = np.full((WIDTH, HEIGHT), 255)
    as_seen[3:11, 4:12] = 0
    for image, wanted in ((upright, as_seen), (silent, as_seen), (stored, np.rot90(as_stored, -1))):
        export = coco(tmp_path / "a.json", [image], [annotation(1, 1, 1, [flat(SQUARE)])], [(1, "road")])
        source = opened(tmp_path, export)
        item = items_of(source)["a"]
        np.testing.assert_array_equal(upright_label(source.read_label(item), source.read_image(item)), wanted)


def test_a_polygon_without_its_outer_list(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    both = [flat(SQUARE), flat([[20, 0], [24, 0], [24, 2], [20, 2]])]
    records = [annotation(1, 1, 1, flat(SQUARE)), annotation(2, 1, 3, both)]
    source = opened(tmp_path, coco(tmp_path / "a.json", [(1, "a.jpg")], records, CATEGORIES))
    wanted = square(1, 255)
    wanted[:2, 20:] = 1
    np.testing.assert_array_equal(source.read_label(items_of(source)["a"]), wanted)
    source = opened(tmp_path, coco(tmp_path / "a.json", [(1, "a.jpg")], records[:1], CATEGORIES))
    np.testing.assert_array_equal(source.read_label(items_of(source)["a"]), square(0, 255))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (annotation(9, 1, 1, [[1, 2, 3, 4]]), "annotation 9 ('road') is a polygon of 2 different points"),
        (annotation(9, 1, 1, [flat(SQUARE), [1, 2, 3, 4, 5, 6, 7]]), "annotation 9 ('road') has 7 coordinates"),
        (annotation(9, 1, 1, []), "annotation 9 ('road') has no segmentation, only a box"),
        (annotation(9, 1, 1, "x"), "neither a list of polygons nor run lengths"),
        (annotation(9, 1, 1, {"size": [16, 24], "counts": [3, 4]}), "run lengths that add up to 7"),
        (annotation(9, 1, 1, {"size": [24, 16], "counts": [384]}), "of size [24, 16], but its picture has [16, 24]"),
        (annotation(9, 1, 2, [flat(SQUARE)]), "annotation 9 has category 2, which 'categories' does not list"),
        (annotation(9, 1, None, [flat(SQUARE)]), "annotation 9 has category None"),  # type: ignore[arg-type]
        (annotation(9, 5, 1, [flat(SQUARE)]), "annotation 9 is of image 5, which 'images' does not list"),
        ({"id": 9}, "annotation 9 is of image None"),
    ],
)
def test_annotations_that_cannot_be_used(record: dict[str, Any], message: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    coco(tmp_path / "a.json", [(1, "a.jpg")], [annotation(1, 1, 1, [flat(SQUARE)]), record], CATEGORIES)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([(1, "a.jpg"), (2, "gone/b.jpg"), (3, "c.jpg")], "a.json names 2 of 3 pictures that are not below"),
        ([(1, "a.jpg"), (2, "images/a.jpg")], "image 2 is the file 'images/a.jpg', as image 1 is"),
        ([(1, "a.jpg"), (1, "d.jpg")], "image 1 occurs twice"),
        ([(None, "a.jpg")], "image None has the file_name 'a.jpg'; every image needs an id"),
        ([(1, None)], "image 1 has the file_name None"),
        ([{"id": 1, "file_name": "a.jpg", "width": 0, "height": 5}], "image 1 is 0 wide and 5 high"),
        ([(1, "same.jpg")], "image 1 means one of several images by 'same.jpg' (x/same, y/same)"),
        (["a.jpg"], "has no list 'images' of records"),
    ],
)
def test_images_that_cannot_be_used(images: Any, message: str, tmp_path: Path) -> None:
    for name in ("a.jpg", "d.jpg", "x/same.jpg", "y/same.jpg"):
        picture(tmp_path / name)
    export = coco(tmp_path / "a.json", [], [annotation(1, 1, 1, [flat(SQUARE)])], CATEGORIES)
    content = json.loads(export.read_text())
    content["images"] = [
        {"id": each[0], "file_name": each[1], "width": WIDTH, "height": HEIGHT} if isinstance(each, tuple) else each
        for each in images
    ]
    export.write_text(json.dumps(content))
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([(1, "road"), (1, "tree")], "category 1 is both 'road' and 'tree'"),
        ([(1, "")], "category 1 has the name ''"),
        ([{"name": "road"}], "category None has the name 'road'"),
    ],
)
def test_categories_that_cannot_be_used(categories: Any, message: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    coco(tmp_path / "a.json", [(1, "a.jpg")], [annotation(1, 1, 1, [flat(SQUARE)])], categories)
    refused(tmp_path, message)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    coco(tmp_path / "a.json", [(1, "a.jpg")], [annotation(5, 1, 1, [flat(SQUARE)])], CATEGORIES)
    refused(tmp_path, "annotation 5 ('road') has a label that is no class; did you mean 'roads'?", classes=("roads",))
    coco(tmp_path / "b.json", [(1, "a.jpg")], [], CATEGORIES)
    refused(tmp_path, "b.json annotates the image 'a', which is in", annotations=tmp_path)
    coco(tmp_path / "b.json", [], [], CATEGORIES)
    refused(tmp_path, "annotates no picture", annotations=tmp_path / "b.json")
    (tmp_path / "a.json").write_text('{"images": [], "annotations": {}}')
    refused(tmp_path, "has no list 'annotations' of records")
