"""What annotation files say of images, whichever tool wrote them: which image, and which shapes of which label."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s4mim_hf.data.sources.annotations.polygons import Shape
from s4mim_hf.data.sources.base import Reference
from s4mim_hf.data.splits import without_suffix
from s4mim_hf.errors import InputError, some

_PLACES_KEPT = 4


@dataclass(frozen=True, slots=True)
class Region:
    """One shape and the label that it has."""

    label: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Drawing:
    """All that is drawn on one image.

    Attributes:
        regions: in the order of drawing; later ones cover earlier ones.
        size: (H, W) of the picture as the tool showed it; None where the file does not say.
    """

    regions: tuple[Region, ...]
    size: tuple[int, int] | None


@dataclass
class Problems:
    """Places in annotation files that cannot be used: how many, and the first of them."""

    count: int = 0
    first: str = ""
    places: list[str] = field(default_factory=list)

    def add(self, place: str, problem: str) -> None:
        """Note a problem; `place` and `problem` make one sentence."""
        if self.count == 0:
            self.first = f"{place} {problem}"
        elif len(self.places) < _PLACES_KEPT:
            self.places.append(place)
        self.count += 1

    def refuse(self) -> None:
        """Do nothing where there are none.

        Raises:
            InputError: says the first problem, and where the others are.
        """
        if self.count == 0:
            return
        hidden = self.count - 1 - len(self.places)
        others = ", ".join(self.places) + (f" and {hidden} more" if hidden else "")
        more = f" (there are {self.count - 1} more problems: {others})" if self.count > 1 else ""
        raise InputError(self.first + more)


class Pictures:
    """Finds the picture that an annotation file means.

    Args:
        images: the paths of the picture files by id.
        root: the folder that the ids are relative to.
    """

    def __init__(self, images: Mapping[str, str], root: Path) -> None:
        self.images = images
        self.root = root.resolve()
        self._by_tail: dict[str, list[str]] = {}
        for image_id in images:
            for tail in _tails(image_id):
                self._by_tail.setdefault(tail, []).append(image_id)

    def find(self, name: str, file: Path, beside: str | None = None) -> list[str]:
        """Return the ids of the images that annotation file `file` may mean: one, none or several.

        Args:
            name: an id, the end of one, or a path that ends in one: tools write paths of the machine they ran on.
            file: the annotation file.
            beside: the picture's path from the file's folder, which is tried first; None: `name`.
        """
        place = file.resolve().parent
        exact = self._id_of(place / _without_suffix(name if beside is None else beside))
        if exact in self.images:
            return [str(exact)]
        key = _without_suffix(os.path.normpath(name.replace("\\", "/")))
        # Paths that differ in a folder of both are different pictures.
        shorter = [tail for tail in _tails(key) if tail in self.images][:1]
        found = [key] if key in self.images else self._by_tail.get(key, shorter)
        # A file that lies among the pictures of a folder, as of one split, speaks of these only.
        folder = self._id_of(place)
        within = "" if folder in (None, ".") else f"{folder}/"
        return [image_id for image_id in found if image_id.startswith(within)]

    def _id_of(self, path: Path) -> str | None:
        """Return a path relative to the root; None where it is not below it."""
        try:
            return Path(os.path.normpath(path)).relative_to(self.root).as_posix()
        except ValueError:
            return None


def _without_suffix(path: str) -> str:
    return without_suffix(path.replace("\\", "/"))


def _tails(path: str) -> list[str]:
    """Return a path without its first 0, 1, 2, ... folders: "a/b", "b"."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


class Annotations(ABC):
    """The annotation files of one tool.

    Attributes:
        tool: what they are called in messages.
        pictures: the pictures that they are about.
        references: where the drawing of each annotated image is, by the image's id.
        embedded: annotation files that hold their picture themselves, by the image's id.
        empty: images on which nothing is drawn.
        counts: how many shapes have each label.
        problems: what cannot be used.
    """

    tool: str

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.references: dict[str, Reference] = {}
        self.embedded: dict[str, Path] = {}
        self.empty: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.problems = Problems()
        self._first_use: dict[str, str] = {}
        self._files: dict[str, Path] = {}

    @abstractmethod
    def add(self, file: Path, content: Mapping[str, Any]) -> None:
        """Take in a file; what cannot be used goes to `problems`."""

    @abstractmethod
    def drawing(self, reference: Reference) -> Drawing:
        """Return what is drawn on an image, by its value in `references`.

        Raises:
            ShapeError: the file has changed and cannot be used any more.
        """

    def class_names(self) -> list[str]:
        """Return the labels that the files themselves declare as classes, in their order; LabelMe's declare none."""
        return []

    def notes(self) -> list[str]:
        """Return what a person should know of the files, in sentences."""
        return []

    def files(self) -> list[Path]:
        """Return the files that annotate an image, each once."""
        return list(dict.fromkeys(self._files.values()))

    def first_use(self, label: str) -> str:
        """Return where a label occurs first."""
        return self._first_use[label]

    def _enter(self, image_id: str, reference: Reference, file: Path) -> None:
        """Remember where an image's drawing is; a second one is a problem."""
        if image_id in self.references:
            both = f"in {self._files[image_id]} too" if self._files[image_id] != file else "there twice"
            self.problems.add(str(file), f"annotates the image {image_id!r}, which is {both}; keep one of the two")
        self.references[image_id] = reference
        self._files[image_id] = file

    def _count(self, label: str, place: str) -> None:
        self.counts[label] += 1
        self._first_use.setdefault(label, place)

    def _one_of(self, found: list[str], name: str, place: str) -> str | None:
        """Return the one image that was found; several are a problem."""
        if len(found) > 1:
            several = some(found)
            self.problems.add(place, f"means one of several images by {name!r} ({several}); write its path in full")
        return found[0] if len(found) == 1 else None
