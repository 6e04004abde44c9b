"""Pictures whose labels are drawn from annotation files when they are read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from s4mim_hf.data.sources.annotations.drawings import Annotations
from s4mim_hf.data.sources.annotations.labelme import embedded_name, embedded_picture
from s4mim_hf.data.sources.annotations.polygons import ShapeError
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Item, Listing, SampleError, Source
from s4mim_hf.data.sources.folder import protocol_of
from s4mim_hf.data.sources.reading import reason
from s4mim_hf.data.sources.special_names import background_id, is_background, is_ignored
from s4mim_hf.errors import InputError, nearest, some

# The first folder of an id says which split an image is of, where there are several.
_VALIDATION = ("val", "valid", "validation")


class AnnotatedSource(Source):
    """Pictures and what is drawn on them.

    Pixels on which nothing is drawn are the background where a class is called so, and are ignored otherwise.

    Args:
        name: what the data set is called.
        classes: its classes.
        annotations: the drawings, whose labels are all classes or the ignored one.
        notes: what a person should know already.
    """

    def __init__(self, name: str, classes: Classes, annotations: Annotations, notes: list[str]) -> None:
        self.name = name
        self.title = name
        self.classes: Classes = classes
        self.protocol = protocol_of(classes)
        self._annotations = annotations
        self._embedded = frozenset(annotations.embedded.values())
        self._notes = notes
        self._background = background_id(classes.names)
        self._values = label_values(annotations, classes)

    def listing(self) -> Listing:
        """List the images; see `Source.listing`. One on which nothing is drawn is all background, or has no label."""
        found = self._annotations
        files: dict[str, Path | str] = {**found.pictures.images, **found.embedded}
        unusable = found.empty if self._background is None else set()
        items = [
            Item(image_id, files[image_id], None if image_id in unusable else found.references.get(image_id))
            for image_id in sorted(files)
        ]
        notes = [*self._notes, *found.notes()]
        if self._background is None:
            notes.append(
                f"pixels outside all shapes are ignored ({IGNORE_INDEX}), because no class is called 'background'; "
                "name one with --classes to learn it"
            )
        if unusable:
            notes.append(
                f"{len(unusable)} annotated images have no shape and count as unlabelled: {some(sorted(unusable))}"
            )
        return _by_split(items, notes)

    def read_label(self, item: Item) -> np.ndarray:
        """Draw an item's label; see `Source.read_label`."""
        assert item.label is not None
        try:
            drawing = self._annotations.drawing(item.label)
            size = drawing.size or self._size_of_picture(item)
            label = np.full(size, IGNORE_INDEX if self._background is None else self._background, np.uint8)
            for region in drawing.regions:
                region.shape.paint(label, self._values[region.label])
        except (ShapeError, KeyError) as error:
            raise SampleError("masks cannot be drawn from their annotations", str(error)) from None
        return label.astype(np.int64)

    def read_image(self, item: Item) -> bytes:
        """Return the picture's file, or the picture that its LabelMe file holds; see `Source.read_image`."""
        file = self._embedding(item)
        if file is None:
            return super().read_image(item)
        try:
            return embedded_picture(file)
        except (OSError, ValueError) as error:
            raise SampleError("images cannot be read", str(error)) from None

    def file_name(self, item: Item) -> str:
        """Return the picture file's name, for its suffix."""
        file = self._embedding(item)
        return super().file_name(item) if file is None else embedded_name(file)

    def _embedding(self, item: Item) -> Path | None:
        """Return the annotation file that holds the item's picture; by the reference, since ids may be given anew."""
        return item.image if isinstance(item.image, Path) and item.image in self._embedded else None

    def depends_on(self) -> list[Path]:
        """Return the annotation files; see `Source.depends_on`."""
        return self._annotations.files()

    def _size_of_picture(self, item: Item) -> tuple[int, int]:
        """Return the size (H, W) of the upright picture."""
        try:
            with Image.open(io.BytesIO(self.read_image(item))) as image:
                upright = ImageOps.exif_transpose(image)
        except Exception as error:
            raise SampleError("images cannot be read", reason(error)) from None
        return upright.height, upright.width


def label_values(annotations: Annotations, classes: Classes) -> dict[str, int]:
    """Return the class id, or 255, of every label that the annotations have.

    Raises:
        InputError: a label is neither a class nor one that is ignored.
    """
    values = {name: class_id for class_id, name in enumerate(classes.names)}
    background = background_id(classes.names)
    unknown = []
    for label in annotations.counts:
        if label in values:
            continue
        if background is not None and is_background(label):
            values[label] = background
        elif is_ignored(label):
            values[label] = IGNORE_INDEX
        else:
            unknown.append(label)
    if unknown:
        named = some(f"{label!r} ({annotations.counts[label]})" for label in sorted(unknown))
        raise InputError(
            f"{annotations.first_use(unknown[0])} has a label that is no class{nearest(unknown[0], classes.names)} "
            f"(labels without a class, and their shapes: {named}); name them in --classes, or correct them"
        )
    return values


def _by_split(items: list[Item], notes: list[str]) -> Listing:
    """Part the images by the first folder of their ids: train/, one of validation, and test/, which is left out."""
    validation = [item for item in items if item.id.split("/")[0] in _VALIDATION and "/" in item.id]
    aside = {item.id for item in validation}
    training = [item for item in items if item.id not in aside]
    if any(item.id.startswith("train/") for item in training):
        outside = [item.id for item in training if not item.id.startswith("train/")]
        training = [item for item in training if item.id.startswith("train/")]
        if outside:
            notes.append(
                f"{len(outside)} images outside train/ and the validation folder are left out: {some(outside)}"
            )
    bare = [item.id for item in validation if item.label is None]
    if bare:
        notes.append(f"{len(bare)} validation images have no annotation and are left out: {some(bare)}")
    return Listing(training, [item for item in validation if item.label is not None] or None, notes=notes)
