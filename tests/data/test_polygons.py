"""Shapes become exactly the pixels whose centres they hold."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from annotation_trees import reference
from pycocotools import mask as coco_mask

from s4mim_hf.data.sources.annotations.polygons import (
    Patch,
    Shape,
    ShapeError,
    box,
    circle,
    polygon,
    run_lengths,
)

HEIGHT, WIDTH = 20, 26


def painted(shape: Shape, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    target = np.zeros((height, width), np.uint8)
    shape.paint(target, 1)
    return target.astype(bool)


def star(seed: int, points: int, whole: bool) -> np.ndarray:
    """Return the corners of a ragged polygon, partly outside the picture."""
    rng = np.random.default_rng(seed)
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, points)), rng.uniform(2, 16, points)
    corners = np.stack([13 + radii * np.cos(angles), 10 + radii * np.sin(angles)], 1)
    return corners.round() if whole else corners


@pytest.mark.parametrize("seed", range(12))
def test_polygons_hold_the_centres_that_a_plain_loop_finds(seed: int) -> None:
    corners = star(seed, 3 + seed, whole=seed % 3 == 0)
    np.testing.assert_array_equal(painted(polygon(corners.tolist())), reference(corners.tolist(), HEIGHT, WIDTH))


def test_crossing_lines_follow_the_even_odd_rule() -> None:
    pentagram = [[13, 1], [18, 18], [3, 7], [23, 7], [8, 18]]
    found = painted(polygon(pentagram))
    np.testing.assert_array_equal(found, reference(pentagram, HEIGHT, WIDTH))
    assert not found[10, 13]


def test_a_box_is_as_wide_as_its_corners_say() -> None:
    found = painted(box([[12, 9], [2, 4]]))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[4:9, 2:12] = True
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(painted(box([[-50, -50], [500, 500]])), np.ones((HEIGHT, WIDTH), bool))
    assert not painted(box([[30, 3], [40, 9]])).any()


@pytest.mark.parametrize("seed", range(8))
def test_neighbours_share_a_border_without_gap_or_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Steps of half a pixel put many centres right on the border.
    border = [[x / 2, y] for x, y in zip(rng.integers(10, 40, 6), np.linspace(0, HEIGHT, 6), strict=True)]
    left = painted(polygon([*border, [0, HEIGHT], [0, 0]]))
    right = painted(polygon([*border[::-1], [WIDTH, 0], [WIDTH, HEIGHT]]))
    np.testing.assert_array_equal(left, ~right)


def test_a_picture_cut_in_triangles_is_covered_once() -> None:
    rng = np.random.default_rng(0)
    centre = [13.25, 9.5]
    rim = [[0, 0], *sorted([float(x), 0.0] for x in rng.uniform(0, WIDTH, 5)), [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    count = np.zeros((HEIGHT, WIDTH), int)
    for first, second in zip(rim, [*rim[1:], rim[0]], strict=True):
        count += painted(polygon([first, second, centre]))
    assert (count == 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_pycocotools_differs_on_the_border_only(seed: int) -> None:
    corners = star(seed, 8, whole=False)
    found = painted(polygon(corners.tolist()))
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([corners.ravel().tolist()], HEIGHT, WIDTH)))
    rows, columns = np.nonzero(found != theirs.astype(bool))
    following = np.roll(corners, -1, axis=0)
    for row, column in zip(rows, columns, strict=True):
        centre = np.array([column + 0.5, row + 0.5])
        along = following - corners
        share = (((centre - corners) * along).sum(1) / (along**2).sum(1)).clip(0, 1)
        assert np.linalg.norm(corners + share[:, None] * along - centre, axis=1).min() < 1


def test_circles() -> None:
    found = painted(circle([[8.0, 9.5], [12.0, 12.5]]))
    for row, column in np.ndindex(HEIGHT, WIDTH):
        assert found[row, column] == ((column + 0.5 - 8) ** 2 + (row + 0.5 - 9.5) ** 2 <= 25)
    assert not painted(circle([[-50, -50], [-40, -50]])).any()


@pytest.mark.parametrize(("left", "top"), [(3, 2), (-2, -1), (22, 17), (-9, 4), (40, 4)])
def test_patches_may_reach_beyond_the_picture(left: int, top: int) -> None:
    inside = np.random.default_rng(0).random((6, 7)) < 0.5
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for row, column in np.argwhere(inside):
        if 0 <= row + top < HEIGHT and 0 <= column + left < WIDTH:
            expected[row + top, column + left] = True
    np.testing.assert_array_equal(painted(Patch(inside, left, top)), expected)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 1.0])
def test_run_lengths_are_those_of_pycocotools(share: float) -> None:
    wanted = np.random.default_rng(3).random((HEIGHT, WIDTH)) < share
    encoded = coco_mask.encode(np.asfortranarray(wanted.astype(np.uint8)))
    compressed = {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(painted(run_lengths(compressed, HEIGHT, WIDTH)), wanted)
    flat = wanted.T.ravel()
    borders = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    lengths = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    plain = {"size": [HEIGHT, WIDTH], "counts": lengths}
    np.testing.assert_array_equal(painted(run_lengths(plain, HEIGHT, WIDTH)), wanted)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "0 different points"),
        ([[1, 2], [3, 4]], "2 different points, and fewer than 3"),
        ([[1, 2], [3, 4], [1, 2], [3, 4]], "2 different points"),
        ([1, 2, 3, 4, 5, 6, 7], "7 coordinates"),
        ([[1, 2, 3], [3, 4, 5], [6, 7, 8]], "no pairs of numbers"),
        ([[1, 2], [3]], "no pairs of numbers"),
        ([[1, 2], [3, None], [4, 5]], "no finite numbers"),
        ([[1, 2], [3, float("nan")], [4, 5]], "no finite numbers"),
        ([[1, 2], [3, 1e30], [4, 5]], "no finite numbers"),
        ("abc", "no pairs of numbers"),
        ({"x": 1}, "no pairs of numbers"),
        (None, "no pairs of numbers"),
    ],
)
def test_points_that_are_no_polygon(points: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(message)):
        polygon(points)


def test_shapes_without_area() -> None:
    for points in ([[1, 2], [1, 5]], [[1, 2], [4, 2]]):
        with pytest.raises(ShapeError, match="rectangle without area"):
            box(points)
    with pytest.raises(ShapeError, match="circle without area"):
        circle([[1, 2], [1, 2]])
    for points in ([[1, 2]], None, [[1, 2], [3, "x"]], [[1, 2], [3, float("inf")]]):
        with pytest.raises(ShapeError, match="exactly two points"):
            circle(points)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"size": [2, 3], "counts": [1, 4]}, "add up to 5"),
        ({"size": [2, 3], "counts": [1, 6]}, "add up to 7"),
        ({"size": [2, 3], "counts": []}, "add up to 0"),
        ({"size": [2, 3], "counts": ""}, "add up to 0"),
        ({"size": [2, 3], "counts": [-1, 7]}, "no whole numbers"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "no whole numbers"),
        ({"size": [2, 3], "counts": None}, "no whole numbers"),
        ({"size": [3, 2], "counts": [6]}, "of size [3, 2], but its picture has [2, 3]"),
        ({"counts": [6]}, "of size None"),
        ({"size": [2, 3], "counts": "0\u00e9"}, "a letter that they cannot have"),
        ({"size": [2, 3], "counts": "0P"}, "cut short"),
    ],
)
def test_run_lengths_that_do_not_fit(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(message)):
        run_lengths(record, 2, 3)
