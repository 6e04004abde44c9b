"""COCO's instances files: which images they list, and class maps drawn from their annotations when one is asked for.

A file of 860,000 annotations stays on the disk: what is kept of an annotation is its place in the file.

N: images of a file; M: annotations of a file; H, W: height and width of an image.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from s4mim_hf.data.catalog.coco import THING_CATEGORIES, THING_CLASSES
from s4mim_hf.data.sources.annotations.polygons import ShapeError, run_lengths
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.sources.json_stream import Element, iterate_arrays, read_elements
from s4mim_hf.errors import InputError, some

BACKGROUND = 0
# Twice the smallest polygon: three points.
_FEWEST_NUMBERS = 6
# pycocotools walks along every border in fifths of a pixel, however far it leads out of the picture.
_FARTHEST = 1e5


class InstancesFile:
    """One instances_*.json, read once.

    Args:
        path: the file.

    Attributes:
        rows: the number 0 .. N-1 of each image, by its file name.

    Raises:
        InputError: the file is no instances file of COCO's 80 things, or contradicts itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, int] = {}
        self._sizes = array("i")
        image_ids = array("q")
        # Three numbers for each annotation: its image's id, its first byte and its length.
        places = array("q")
        categories: dict[Any, Any] = {}
        for key, value, start, length in _with_progress(path):
            if not isinstance(value, dict):
                raise InputError(f"{path}: {key!r} holds {_short(value)} (byte {start}), expected an object")
            if key == "images":
                image_ids.append(self._add_image(value))
            elif key == "annotations":
                places.extend((self._image_of(value), start, length))
            else:
                category = value.get("id")
                categories[category if _is_whole(category) else _short(category)] = value.get("name")
        self._check(categories, image_ids)
        self._places, self._first = _by_image(np.array(places).reshape(-1, 3), np.array(image_ids), path)

    def read(self, row: int) -> np.ndarray:
        """Draw the class map of an image: int64 (H, W), 0 = background, 1 .. 80 = things.

        Raises:
            SampleError: an annotation cannot be drawn, or the file has changed.
        """
        height, width = self._sizes[2 * row], self._sizes[2 * row + 1]
        places = self._places[self._first[row] : self._first[row + 1]]
        try:
            annotations = read_elements(self.path, places.tolist())
        except (OSError, ValueError):
            raise SampleError("masks cannot be drawn", f"{self.path} is not what it was when it was opened") from None
        return draw_instances(annotations, height, width)

    def _add_image(self, image: Mapping[str, Any]) -> int:
        """Keep an image's name and size; return its id."""
        image_id, name = image.get("id"), image.get("file_name")
        height, width = image.get("height"), image.get("width")
        if not (_is_whole(image_id) and isinstance(name, str) and _is_whole(height) and _is_whole(width)):
            raise InputError(
                f"{self.path}: an image has id {_short(image_id)}, file_name {_short(name)}, height {_short(height)} "
                f"and width {_short(width)}, expected whole numbers and a name"
            )
        if not (0 < height < 1 << 16 and 0 < width < 1 << 16):
            raise InputError(f"{self.path}: the image {name!r} is said to be {width}x{height} pixels; correct it")
        if name in self.rows:
            raise InputError(f"{self.path} lists the image {name!r} more than once; keep one of them")
        self.rows[name] = len(self.rows)
        self._sizes.extend((height, width))
        return image_id

    def _image_of(self, annotation: Mapping[str, Any]) -> int:
        """Check an annotation's category and that it has an area; return its image's id."""
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        if not _is_whole(image_id) or "segmentation" not in annotation or "category_id" not in annotation:
            raise InputError(
                f"{self.path}: annotation {_short(annotation.get('id'))} lacks image_id, category_id or segmentation; "
                "--annotations takes instances_train2017.json, not captions or boxes"
            )
        if not _is_whole(category) or category not in THING_CLASSES:
            raise InputError(
                f"{self.path}: annotation {_short(annotation.get('id'))} has category_id {_short(category)}, which is "
                "none of COCO's 80 things; an export of your own is read by 'folder' with --annotations"
            )
        return image_id

    def _check(self, categories: Mapping[Any, Any], image_ids: Sequence[int]) -> None:
        """Refuse other classes than COCO's, and files without images or with doubled ids."""
        if not self.rows:
            raise InputError(f"{self.path} lists no images; expected {{'images': [...], 'annotations': [...], ...}}")
        if categories != THING_CATEGORIES:
            odd = next(key for key in {**THING_CATEGORIES, **categories} if _differ(key, categories))
            raise InputError(
                f"{self.path} has other categories than COCO's 80 things: id {odd!r} is {categories.get(odd)!r} there "
                f"and {THING_CATEGORIES.get(odd)!r} in COCO; an export of your own is read by 'folder' with "
                "--annotations"
            )
        if len(set(image_ids)) < len(image_ids):
            raise InputError(f"{self.path} gives one id to several images; every image needs an id of its own")


def _with_progress(path: Path) -> Iterator[Element]:
    """Yield the elements of a file while a bar shows how far it is read: half a gigabyte takes its time."""
    size = path.stat().st_size if path.is_file() else None
    with tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, disable=None) as progress:
        for element in iterate_arrays(path, ("images", "annotations", "categories")):
            yield element
            progress.update(element.start + element.length - progress.n)


def _differ(category: Any, categories: Mapping[Any, Any]) -> bool:
    return categories.get(category) != THING_CATEGORIES.get(category)


def _by_image(places: np.ndarray, image_ids: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sort annotations by their images, those of one image in the file's order.

    Args:
        places: int64 (M, 3), the image's id, the first byte and the length of each annotation.
        image_ids: int64 (N,), the ids of images 0 .. N-1, all different.
        path: the file, for messages.

    Returns:
        First byte and length, int64 (M, 2), and where each image's begin, int64 (N + 1,).

    Raises:
        InputError: an annotation is of an image that is not listed.
    """
    order = np.argsort(image_ids)
    ranks = np.searchsorted(image_ids, places[:, 0], sorter=order).clip(max=len(image_ids) - 1)
    rows = order[ranks]
    unlisted = np.unique(places[image_ids[rows] != places[:, 0], 0])
    if len(unlisted):
        raise InputError(
            f"{path} has annotations of {len(unlisted)} images that it does not list: ids {some(map(str, unlisted))}"
        )
    first = np.concatenate([[0], np.bincount(rows, minlength=len(image_ids)).cumsum()])
    return places[np.argsort(rows, kind="stable"), 1:], first


def draw_instances(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """Draw one image's annotations over the background, as classes 0 .. 80, int64 (H, W).

    COCO leaves open what holds where instances overlap. Here regions of crowds are drawn first, as the class of which
    they are a crowd (COCO's own `panopticapi` gives them that class too), then the instances, the largest first, so
    that the cup on the table stays visible; of two with the same area the later one in the file is on top.

    Raises:
        SampleError: a polygon or run lengths cannot be drawn; names the annotation.
    """
    regions = [_region(annotation, height, width) for annotation in annotations]
    areas = [int(coco_mask.area(region)) for region in regions]
    crowds = [annotation.get("iscrowd") == 1 for annotation in annotations]
    label = np.full((height, width), BACKGROUND, np.int64)
    for index in sorted(range(len(regions)), key=lambda index: (not crowds[index], -areas[index])):
        label[coco_mask.decode(regions[index]).view(bool)] = THING_CLASSES[annotations[index]["category_id"]]
    return label


def _region(annotation: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """Return what an annotation covers, as pycocotools' run lengths."""
    segmentation = annotation["segmentation"]
    try:
        if isinstance(segmentation, dict):
            counts = run_lengths(segmentation, height, width).counts.tolist()
            region: dict[str, Any] = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
            return region
        return coco_mask.merge(coco_mask.frPyObjects(_polygons(segmentation), height, width))
    except ShapeError as error:
        detail = f"annotation {_short(annotation.get('id'))} {error}"
        raise SampleError("masks cannot be drawn from their annotations", detail) from None


def _polygons(segmentation: Any) -> list[list[float]]:
    """Check the polygons of an annotation, each x, y, x, y, ..., and leave out parts of fewer than three points.

    Polygons without an area stay: the published file has them (cocodataset/cocoapi, issue 355).

    Raises:
        ShapeError: there is none of three points, or one is no row of pairs of numbers near the picture.
    """
    if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
        raise ShapeError("has a segmentation that is neither a list of polygons nor run lengths")
    for part in segmentation:
        if len(part) % 2:
            raise ShapeError(f"has a polygon of {len(part)} coordinates, which are no pairs of x and y")
        # A comparison with NaN is false.
        if not all(type(number) in (int, float) and abs(number) <= _FARTHEST for number in part):
            raise ShapeError(f"has a polygon with coordinates that are no numbers of at most {_FARTHEST:g}")
    closed = [part for part in segmentation if len(part) >= _FEWEST_NUMBERS]
    if not closed:
        raise ShapeError("has no polygon of at least 3 points, so that it closes around nothing")
    return closed


def _is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value of the file is a whole number that fits in 64 bits."""
    return type(value) is int and abs(value) < 1 << 63


def _short(value: Any) -> str:
    """Show a value of the file, whatever its size, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
