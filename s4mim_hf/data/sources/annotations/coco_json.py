"""Read COCO's JSON as annotation tools export it: one file for all pictures, or one for each split.

{"images": [{"id", "file_name", "height", "width"}, ...],
 "annotations": [{"id", "image_id", "category_id", "segmentation", "bbox", "iscrowd"}, ...],
 "categories": [{"id", "name", "supercategory"}, ...]}

A segmentation is a list of polygons, or run lengths. CVAT writes annotations/instances_default.json beside images/,
Label Studio result.json beside images/, Roboflow _annotations.coco.json among the pictures of train/, valid/ and test/.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s4mim_hf.data.sources.annotations.drawings import Annotations, Drawing, Pictures, Region
from s4mim_hf.data.sources.annotations.polygons import Shape, ShapeError, polygon, run_lengths
from s4mim_hf.data.sources.base import Reference
from s4mim_hf.data.sources.special_names import is_ignored
from s4mim_hf.errors import some

_LISTS = ("images", "annotations", "categories")


def is_coco(content: Any) -> bool:
    """Return whether the content of a JSON file is COCO's."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content


class CocoJson(Annotations):
    """COCO files, whose category ids may be any numbers and may differ between the files; the names count."""

    tool = "COCO"

    def __init__(self, pictures: Pictures) -> None:
        super().__init__(pictures)
        self._drawings: list[Drawing] = []
        self._names: dict[str, None] = {}
        self._groups: set[str] = set()

    def add(self, file: Path, content: Mapping[str, Any]) -> None:
        """Take in a file: find its pictures, and check every annotation."""
        lists = {key: content.get(key) for key in _LISTS}
        for key, records in lists.items():
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                self.problems.add(str(file), f"has no list {key!r} of records as COCO's JSON has; export it again")
                return
        categories = self._read_categories(file, content["categories"])
        images = self._read_images(file, content["images"])
        regions = self._read_annotations(file, content["annotations"], categories, images)
        for number, (image_id, size) in images.items():
            if image_id is None:
                continue
            self._enter(image_id, len(self._drawings), file)
            self._drawings.append(Drawing(tuple(regions[number]), size))
            if not regions[number]:
                self.empty.add(image_id)

    def drawing(self, reference: Reference) -> Drawing:
        """Return what is drawn on an image; see `Annotations.drawing`."""
        assert isinstance(reference, int)
        return self._drawings[reference]

    def class_names(self) -> list[str]:
        """Return the categories by their ids, those of the first file first; see `Annotations.class_names`."""
        return [name for name in self._names if not is_ignored(name) and not self._only_groups(name)]

    def notes(self) -> list[str]:
        """Say which category is no class; see `Annotations.notes`."""
        groups = [name for name in self._names if self._only_groups(name)]
        return [f"the category {some(groups)} only groups others and has no shape, so it is no class"] if groups else []

    def _only_groups(self, name: str) -> bool:
        """Return whether a category only holds others, as the first one of Roboflow's exports."""
        return name in self._groups and self.counts[name] == 0

    def _read_categories(self, file: Path, records: Sequence[Mapping[str, Any]]) -> dict[Any, str]:
        names: dict[Any, str] = {}
        for record in records:
            number, name = record.get("id"), record.get("name")
            place = f"{file}, category {number!r}"
            if not _is_number(number) or not isinstance(name, str) or not name.strip():
                self.problems.add(place, f"has the name {name!r}; every category needs an id and a name")
            elif number in names:
                self.problems.add(place, f"is both {names[number]!r} and {name!r}; give each its own id")
            else:
                names[number] = name.strip()
                # Many exports name a category as its own group.
                self._groups |= {str(record.get("supercategory")).strip()} - {name.strip()}
        in_order = sorted(names) if all(isinstance(number, int) for number in names) else names
        self._names |= {names[number]: None for number in in_order}
        return names

    def _read_images(
        self, file: Path, records: Sequence[Mapping[str, Any]]
    ) -> dict[Any, tuple[str | None, tuple[int, int] | None]]:
        """Return the id and the size (H, W) of each picture by its number; the id is None where it is not found."""
        images: dict[Any, tuple[str | None, tuple[int, int] | None]] = {}
        used: dict[str, Any] = {}
        missing: list[str] = []
        for record in records:
            number, name = record.get("id"), record.get("file_name")
            place = f"{file}, image {number!r}"
            if not _is_number(number) or not isinstance(name, str) or not name:
                self.problems.add(place, f"has the file_name {name!r}; every image needs an id and a file_name")
                continue
            if number in images:
                self.problems.add(place, "occurs twice; give each image its own id")
                continue
            found = self.pictures.find(name, file)
            image_id = self._one_of(found, name, place)
            if not found:
                missing.append(name)
            if image_id in used:
                self.problems.add(place, f"is the file {name!r}, as image {used[image_id]!r} is; keep one of the two")
                image_id = None
            if image_id is not None:
                used[image_id] = number
            images[number] = image_id, self._size_of(record, place)
        if missing:
            self.problems.add(
                str(file),
                f"names {len(missing)} of {len(records)} pictures that are not below {self.pictures.root}: "
                f"{some(missing)}; put them there, or correct file_name",
            )
        return images

    def _size_of(self, record: Mapping[str, Any], place: str) -> tuple[int, int] | None:
        height, width = record.get("height"), record.get("width")
        if height is None and width is None:
            return None
        if type(height) is not int or type(width) is not int or height < 1 or width < 1:
            self.problems.add(
                place, f"is {width!r} wide and {height!r} high, which are no counts of pixels; correct it"
            )
            return None
        return height, width

    def _read_annotations(
        self,
        file: Path,
        records: Sequence[Mapping[str, Any]],
        categories: Mapping[Any, str],
        images: Mapping[Any, tuple[str | None, tuple[int, int] | None]],
    ) -> dict[Any, list[Region]]:
        """Return the shapes of each image by its number, in the order of the file."""
        regions: dict[Any, list[Region]] = defaultdict(list)
        for record in records:
            number, category = record.get("image_id"), record.get("category_id")
            place = f"{file}, annotation {record.get('id')!r}"
            if not _is_number(number) or number not in images:
                self.problems.add(
                    place, f"is of image {number!r}, which 'images' does not list; remove it, or add the image"
                )
            elif not _is_number(category) or category not in categories:
                known = some(f"{key} {name}" for key, name in categories.items())
                self.problems.add(
                    place, f"has category {category!r}, which 'categories' does not list ({known}); add it"
                )
            else:
                label = categories[category]
                place += f" ({label!r})"
                try:
                    shapes = _shapes_of(record, images[number][1])
                except ShapeError as error:
                    self.problems.add(place, f"{error}; correct it in the tool and export again, or remove it")
                    continue
                regions[number] += [Region(label, shape) for shape in shapes]
                self._count(label, place)
        return regions


def _is_number(value: Any) -> bool:
    """Return whether a value can be an id: a whole number, or a text as some tools write it."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _shapes_of(record: Mapping[str, Any], size: tuple[int, int] | None) -> list[Shape]:
    segmentation = record.get("segmentation")
    if not segmentation:
        raise ShapeError("has no segmentation, only a box, so that nobody knows its pixels")
    if isinstance(segmentation, dict):
        if size is None:
            raise ShapeError("has run lengths, but its image has no height and width")
        return [run_lengths(segmentation, *size)]
    if not isinstance(segmentation, list):
        raise ShapeError("has a segmentation that is neither a list of polygons nor run lengths")
    # Some tools leave out the outer list where there is one polygon.
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    return [polygon(part) for part in parts]
