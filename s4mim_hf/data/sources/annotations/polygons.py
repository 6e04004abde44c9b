"""Turn the shapes of annotation tools into the pixels whose centres they hold.

A pixel in row i and column j has its centre at (x, y) = (j + 0.5, i + 0.5): the tools measure from the picture's upper
left corner, so that a box from 10 to 20 is ten pixels wide. Drawing libraries take whole numbers for centres, which
moves every border by half a pixel, and they draw the outline as well.

H, W: height and width of the label map; N: the points of a polygon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class ShapeError(ValueError):
    """A shape that cannot be used; the message follows its name."""


class Shape(Protocol):
    """An area of a picture."""

    def paint(self, target: np.ndarray, value: int) -> None:
        """Set the pixels of `target` (H, W) whose centres the area holds to `value`, in place."""
        ...


@dataclass(frozen=True, eq=False)
class Polygon:
    """What a closed line encloses; where it crosses itself, by the even-odd rule, as the tools fill it.

    Attributes:
        points: float64 (N, 2), x and y; the last is joined to the first. They may lie outside the picture.
    """

    points: np.ndarray

    def paint(self, target: np.ndarray, value: int) -> None:
        """Set the pixels whose centres the polygon holds. A centre on a border belongs to the area right of it.

        Neighbours that share a border therefore neither overlap nor leave a gap.
        """
        height, width = target.shape
        box = _box(self.points.min(0), self.points.max(0), height, width)
        if box is None:
            return
        top, bottom, left, right = box
        rows, columns = _crossings(self.points, top, bottom)
        columns = columns.clip(left, right) - left
        # Each crossing turns inside to outside, or back, for all that is right of it. One column more than the box has
        # takes those that lie right of it.
        turns = np.zeros((bottom - top, right - left + 1), np.uint8)
        np.bitwise_xor.at(turns, (rows, columns), 1)
        inside = np.bitwise_xor.accumulate(turns[:, :-1], axis=1, out=turns[:, :-1])
        target[top:bottom, left:right][inside.view(bool)] = value


def _box(low: np.ndarray, high: np.ndarray, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Return top, bottom, left and right of the pixels whose centres may lie between two corners (x, y)."""
    (left, top), (right, bottom) = np.ceil(low - 0.5), np.floor(high + 0.5)
    box = max(int(top), 0), min(int(bottom), height), max(int(left), 0), min(int(right), width)
    return box if box[0] < box[1] and box[2] < box[3] else None


def _crossings(points: np.ndarray, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the edges cross the lines through the pixels' centres in rows top .. bottom - 1.

    Returns:
        The row of each crossing, counted from `top`, and the first column whose centre is not left of it.
    """
    following = np.roll(points, -1, axis=0)
    # From the upper end to the lower one, so that both neighbours of an edge compute the same crossing.
    swap = (points[:, 1] > following[:, 1])[:, None]
    upper, lower = np.where(swap, following, points), np.where(swap, points, following)
    first = np.ceil(upper[:, 1] - 0.5).clip(top, bottom).astype(np.int64)
    last = np.ceil(lower[:, 1] - 0.5).clip(top, bottom).astype(np.int64)
    counts = last - first
    edges = np.repeat(np.arange(len(points)), counts)
    rows = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + first[edges]
    start, end = upper[edges], lower[edges]
    x = start[:, 0] + (rows + 0.5 - start[:, 1]) * (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    return rows - top, np.ceil(x - 0.5).astype(np.int64)


@dataclass(frozen=True)
class Circle:
    """A disc.

    Attributes:
        x: of the centre.
        y: of the centre.
        radius: in pixels.
    """

    x: float
    y: float
    radius: float

    def paint(self, target: np.ndarray, value: int) -> None:
        """Set the pixels whose centres are at most `radius` away."""
        centre = np.array([self.x, self.y])
        box = _box(centre - self.radius, centre + self.radius, *target.shape)
        if box is None:
            return
        top, bottom, left, right = box
        across = (np.arange(left, right) + 0.5 - self.x) ** 2
        down = (np.arange(top, bottom) + 0.5 - self.y) ** 2
        target[top:bottom, left:right][down[:, None] + across <= self.radius**2] = value


@dataclass(frozen=True, eq=False)
class Patch:
    """A small picture of an area.

    Attributes:
        inside: bool, of any size.
        left: column of its first pixel, possibly outside the picture.
        top: row of its first pixel.
    """

    inside: np.ndarray
    left: int
    top: int

    def paint(self, target: np.ndarray, value: int) -> None:
        """Set the pixels that are inside."""
        part = self.inside[max(-self.top, 0) :, max(-self.left, 0) :]
        window = target[max(self.top, 0) :, max(self.left, 0) :][: part.shape[0], : part.shape[1]]
        window[part[: window.shape[0], : window.shape[1]]] = value


@dataclass(frozen=True, eq=False)
class Runs:
    """An area as COCO's run lengths: so many pixels outside, so many inside, and so on, column by column.

    Attributes:
        counts: int64 lengths, which add up to `height` x `width`.
        height: of the picture.
        width: of the picture.
    """

    counts: np.ndarray
    height: int
    width: int

    def paint(self, target: np.ndarray, value: int) -> None:
        """Set the pixels that are inside; `target` has the size of the runs."""
        inside = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        target[inside.reshape(self.width, self.height).T] = value


def polygon(points: Any) -> Polygon:
    """Check the points of a polygon: [[x, y], ...], or x, y, x, y, ... in a row.

    Raises:
        ShapeError: they are no pairs of finite numbers, or fewer than three of them differ.
    """
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError):
        raise ShapeError("has points that are no pairs of numbers") from None
    if array.ndim == 1:
        if array.size % 2:
            raise ShapeError(f"has {array.size} coordinates, which are no pairs of x and y")
        array = array.reshape(-1, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ShapeError("has points that are no pairs of numbers")
    # Beyond any picture, and within what an integer holds.
    if not (np.abs(array) < 1e9).all():
        raise ShapeError("has coordinates that are no finite numbers")
    different = len(set(map(tuple, array.tolist())))
    if different < 3:
        raise ShapeError(f"is a polygon of {different} different points, and fewer than 3 close around no area")
    return Polygon(array)


def box(points: Any) -> Polygon:
    """Return the rectangle between two opposite corners [[x, y], [x, y]].

    Raises:
        ShapeError: these are no two corners, or they enclose nothing.
    """
    (x0, y0), (x1, y1) = _pair(points, "rectangle")
    if x0 == x1 or y0 == y1:
        raise ShapeError("is a rectangle without area")
    return polygon([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def circle(points: Any) -> Circle:
    """Return the disc around the first point through the second.

    Raises:
        ShapeError: these are no two points, or they are one.
    """
    (x, y), through = _pair(points, "circle")
    radius = math.dist((x, y), through)
    if radius == 0:
        raise ShapeError("is a circle without area")
    return Circle(x, y, radius)


def _pair(points: Any, kind: str) -> list[tuple[float, float]]:
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (2, 2) or not (np.abs(array) < 1e9).all():
        raise ShapeError(f"is a {kind} without exactly two points of finite x and y")
    return [(float(x), float(y)) for x, y in array]


def run_lengths(segmentation: Any, height: int, width: int) -> Runs:
    """Read COCO's run lengths: {"size": [H, W], "counts": a list, or compressed text}.

    pycocotools is not asked because it gives whatever memory holds where the counts cover less than the picture.

    Raises:
        ShapeError: the size is not the picture's, or the counts are none or do not add up to it.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise ShapeError(f"has run lengths of size {size}, but its picture has [{height}, {width}]")
    if isinstance(counts, str | bytes):
        counts = _expanded(counts.encode() if isinstance(counts, str) else counts)
    whole = isinstance(counts, Sequence) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or sum(counts) != height * width:
        found = f"that add up to {sum(counts)}" if whole else "that are no whole numbers from 0 up"
        raise ShapeError(f"has run lengths {found}, but its picture has {height} x {width} = {height * width} pixels")
    return Runs(np.array(counts, np.int64), height, width)


def _expanded(text: bytes) -> list[int]:
    """Read COCO's compressed counts: 5 bits a letter, the lowest first; from the fourth on, relative to two before."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = letter - 48
        if not 0 <= bits < 64:
            raise ShapeError("has compressed run lengths with a letter that they cannot have")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ShapeError("has compressed run lengths that are cut short")
    return counts
