"""Class maps drawn from COCO's annotations, against plain loops and shapes drawn by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_trees import SIZE, TRAIN, annotation, content, square, write_json
from pycocotools import mask as coco_mask

from s4mim_hf.data.catalog.coco import THING_CATEGORIES
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.sources.coco_instances import InstancesFile, draw_instances
from s4mim_hf.errors import InputError

WIDTH, HEIGHT = SIZE


def draw(*annotations: dict[str, Any]) -> np.ndarray:
    return draw_instances(annotations, HEIGHT, WIDTH)


def person(segmentation: Any, number: int = 1, crowd: int = 0) -> dict[str, Any]:
    return annotation(number, TRAIN[0], 1, segmentation, crowd)


def filled(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    expected = np.zeros((HEIGHT, WIDTH), int)
    for x0, y0, x1, y1 in boxes:
        expected[max(y0, 0) : y1, max(x0, 0) : x1] = 1
    return expected


def runs_of(inside: np.ndarray) -> list[int]:
    """Count column by column, beginning with pixels outside."""
    counts, value = [0], 0
    for pixel in (inside[row, column] for column in range(inside.shape[1]) for row in range(inside.shape[0])):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


class TestPolygons:
    @pytest.mark.parametrize("box", [(1, 1, 4, 3), (0, 0, WIDTH, HEIGHT), (5, 2, 6, 3), (-4, -3, 3, 2), (8, 5, 40, 30)])
    def test_squares(self, box: tuple[int, int, int, int]) -> None:
        np.testing.assert_array_equal(draw(person([square(*box)])), filled(box))

    def test_several_parts_are_one_instance(self) -> None:
        parts = [(0, 0, 3, 2), (5, 4, 9, 8), (1, 1, 6, 5)]
        np.testing.assert_array_equal(draw(person([square(*part) for part in parts])), filled(*parts))

    def test_slanted_borders_are_within_a_pixel_of_the_true_ones(self) -> None:
        """Against the centres of pixels inside a triangle, by the signs of three cross products."""
        corners = np.array([[1.3, 0.7], [11.2, 3.1], [4.6, 8.4]])
        found = draw(person([corners.ravel().tolist()]))
        for row in range(HEIGHT):
            for column in range(WIDTH):
                centre = np.array([column + 0.5, row + 0.5])
                edges = np.roll(corners, -1, axis=0) - corners
                offsets = centre - corners
                across = (edges[:, 0] * offsets[:, 1] - edges[:, 1] * offsets[:, 0]) / np.hypot(*edges.T)
                if across.min() > 1:
                    assert found[row, column] == 1
                if across.min() < -1:
                    assert found[row, column] == 0

    def test_what_the_published_file_has_is_drawn(self) -> None:
        """Annotation 918 of instances_train2017.json, which has no area, and a part that is no polygon."""
        degenerate = [296.65, 388.33, 296.65, 388.33, 297.68, 388.33, 297.68, 388.33]
        assert not draw(person([degenerate])).any()
        np.testing.assert_array_equal(draw(person([square(1, 1, 4, 3), [7, 7, 8, 8]])), filled((1, 1, 4, 3)))

    @pytest.mark.parametrize(
        ("segmentation", "message"),
        [
            ([[1, 1, 4, 1, 4, 3, 1]], "has a polygon of 7 coordinates, which are no pairs"),
            ([[0, 47, 1024, 706]], "has no polygon of at least 3 points"),
            ([], "has no polygon of at least 3 points"),
            ([[1, 1, 4, "1", 4, 3]], "coordinates that are no numbers"),
            ([[1, 1, 4, float("nan"), 4, 3]], "coordinates that are no numbers"),
            ([[1, 1, 4, 1e12, 4, 3]], "coordinates that are no numbers of at most 100000"),
            ([1, 1, 4, 1, 4, 3], "neither a list of polygons nor run lengths"),
            (None, "neither a list of polygons nor run lengths"),
        ],
    )
    def test_what_cannot_be_drawn(self, segmentation: Any, message: str) -> None:
        with pytest.raises(SampleError) as caught:
            draw(person(segmentation, number=77))
        assert caught.value.kind == "masks cannot be drawn from their annotations"
        assert caught.value.detail.startswith("annotation 77 has")
        assert message in caught.value.detail


class TestRunLengths:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
    def test_lists_and_compressed_text(self, share: float) -> None:
        inside = (np.random.default_rng(3).random((HEIGHT, WIDTH)) < share).astype(np.uint8)
        compressed = coco_mask.encode(np.asfortranarray(inside))
        for counts in (runs_of(inside), compressed["counts"].decode()):
            found = draw(person({"size": [HEIGHT, WIDTH], "counts": counts}))
            np.testing.assert_array_equal(found, inside)

    @pytest.mark.parametrize(
        ("segmentation", "message"),
        [
            ({"size": [HEIGHT + 1, WIDTH], "counts": [0, (HEIGHT + 1) * WIDTH]}, "has run lengths of size"),
            ({"size": [HEIGHT, WIDTH], "counts": [2, 3]}, "run lengths"),
            ({"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH + 1]}, "run lengths"),
            ({"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}, "run lengths"),
            ({"size": [HEIGHT, WIDTH], "counts": "~~~"}, "run lengths"),
            ({"size": [HEIGHT, WIDTH]}, "run lengths"),
            ({"size": HEIGHT, "counts": [0, HEIGHT * WIDTH]}, "run lengths"),
            ({}, "run lengths"),
        ],
    )
    def test_what_does_not_fit(self, segmentation: Any, message: str) -> None:
        with pytest.raises(SampleError) as caught:
            draw(person(segmentation, number=5))
        assert caught.value.detail.startswith("annotation 5 ")
        assert message in caught.value.detail


class TestOrder:
    def test_small_ones_lie_on_large_ones_whatever_their_order(self) -> None:
        table = annotation(1, TRAIN[0], 67, [square(0, 0, 10, 8)])
        cup = annotation(2, TRAIN[0], 47, [square(3, 3, 5, 5)])
        spoon = annotation(3, TRAIN[0], 50, [square(4, 3, 5, 4)])
        expected = draw(table, cup, spoon)
        assert sorted(np.unique(expected, return_counts=True)[1].tolist()) == [1, 3, 28, 76]
        for order in ((cup, table, spoon), (spoon, cup, table)):
            np.testing.assert_array_equal(draw(*order), expected)

    def test_crowds_lie_below_everything(self) -> None:
        """A crowd of two pixels does not hide the animal that covers all."""
        inside = np.zeros((HEIGHT, WIDTH), np.uint8)
        inside[:2, 0] = 1
        crowd = person({"size": [HEIGHT, WIDTH], "counts": runs_of(inside)}, crowd=1)
        dog = annotation(2, TRAIN[0], 18, [square(0, 0, WIDTH, HEIGHT)])
        for order in ((crowd, dog), (dog, crowd)):
            assert (draw(*order) == 17).all()
        np.testing.assert_array_equal(draw(crowd), inside)

    def test_of_equals_the_later_one_is_on_top(self) -> None:
        first, second = (annotation(1, TRAIN[0], category, [square(1, 1, 4, 3)]) for category in (2, 3))
        assert set(np.unique(draw(first, second))) == {0, 3}
        assert set(np.unique(draw(second, first))) == {0, 2}


class TestFile:
    def test_annotations_are_of_their_images_in_the_files_order(self, tmp_path: Path) -> None:
        """Images in no order, annotations of one image far apart, and one image without any."""
        names = (TRAIN[2], TRAIN[0], TRAIN[1])
        annotations = [
            annotation(1, TRAIN[0], 2, [square(1, 1, 4, 3)]),
            annotation(2, TRAIN[2], 3, [square(0, 0, 2, 2)]),
            annotation(3, TRAIN[0], 4, [square(1, 1, 4, 3)]),
        ]
        value = content(names, annotations, THING_CATEGORIES)
        # Any order of the keys will do.
        file = InstancesFile(write_json(tmp_path / "a.json", dict(reversed(value.items()))))
        assert list(file.rows) == [f"{name}.jpg" for name in names]
        held = {name: np.unique(file.read(file.rows[f"{name}.jpg"])).tolist() for name in names}
        assert held == {TRAIN[2]: [0, 3], TRAIN[0]: [0, 4], TRAIN[1]: [0]}

    def test_many_images_and_annotations_in_no_order(self, tmp_path: Path) -> None:
        """All annotations cover the same pixels, so that the last of each image in the file's order is seen."""
        rng = np.random.default_rng(7)
        names = [f"{number:012d}" for number in rng.permutation(1000)[:40]]
        drawn = [(names[index], int(category)) for index, category in rng.integers((0, 1), (39, 12), (400, 2))]
        annotations = [
            annotation(number, name, category, [square(1, 1, 4, 3)]) for number, (name, category) in enumerate(drawn)
        ]
        file = InstancesFile(write_json(tmp_path / "a.json", content(names, annotations, THING_CATEGORIES)))
        last = dict(drawn)
        assert set(names) - set(last) == {names[39]}
        for name in names:
            # Below 12 a category's id is its class.
            assert file.read(file.rows[f"{name}.jpg"]).max() == last.get(name, 0)

    def test_a_file_that_changes_meanwhile(self, tmp_path: Path) -> None:
        value = content(TRAIN, [annotation(1, TRAIN[0], 2, [square(1, 1, 4, 3)])], THING_CATEGORIES)
        file = InstancesFile(write_json(tmp_path / "a.json", value))
        write_json(tmp_path / "a.json", {"images": []})
        with pytest.raises(SampleError, match="is not what it was"):
            file.read(0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"annotations": [annotation(8, "5", 1, [])]}, "annotations of 1 images that it does not list: ids 5"),
            ({"annotations": [annotation(8, TRAIN[0], 12, [])]}, "annotation 8 has category_id 12, which is none"),
            ({"annotations": [annotation(8, TRAIN[0], 92, [])]}, "annotation 8 has category_id 92, which is none"),
            (
                {"annotations": [{"image_id": 9, "id": 8, "caption": "A"}]},
                "lacks image_id, category_id or segmentation",
            ),
            ({"annotations": [3]}, "'annotations' holds 3 (byte "),
            ({"categories": [{"id": 1, "name": "person"}]}, "id 2 is None there and 'bicycle' in COCO"),
            ({"categories": [{"id": 1, "name": "cat"}]}, "id 1 is 'cat' there and 'person' in COCO"),
            ({"categories": []}, "id 1 is None there and 'person' in COCO"),
            ({"images": []}, "lists no images"),
            ({"images": {}}, "lists no images"),
            ({"images": [{"id": 9, "file_name": "a.jpg"}]}, "height None and width None, expected whole numbers"),
            ({"images": [{"id": 9, "file_name": "a.jpg", "height": 0, "width": 4}]}, "is said to be 4x0 pixels"),
            ({"images": [{"id": 1 << 70, "file_name": "a.jpg", "height": 3, "width": 4}]}, "expected whole numbers"),
        ],
    )
    def test_what_is_no_instances_file(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        value = content(TRAIN, [], THING_CATEGORIES) | change
        with pytest.raises(InputError) as caught:
            InstancesFile(write_json(tmp_path / "a.json", value))
        assert message in str(caught.value)
        assert "a.json" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_doubled_names_and_ids(self, tmp_path: Path) -> None:
        value = content((TRAIN[0], TRAIN[0]), [], THING_CATEGORIES)
        with pytest.raises(InputError, match=f"lists the image '{TRAIN[0]}.jpg' more than once"):
            InstancesFile(write_json(tmp_path / "a.json", value))
        value["images"][1]["file_name"] = "other.jpg"
        with pytest.raises(InputError, match="gives one id to several images"):
            InstancesFile(write_json(tmp_path / "a.json", value))
