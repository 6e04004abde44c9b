"""Read one image of a source as it will be stored, and refuse it where picture and label do not fit.

K is the number of classes; H, W are a picture's height and width after its EXIF orientation is applied.
"""

from __future__ import annotations

import threading
from bisect import insort

import numpy as np

from s4mim_hf.data.prepared import decode_image
from s4mim_hf.data.prepared_writer import Row
from s4mim_hf.data.shrinking import file_name_of, shrink
from s4mim_hf.data.sources.base import IGNORE_INDEX, Item, SampleError, Source
from s4mim_hf.data.sources.reading import encode_label, is_doubtful, reason, upright_label
from s4mim_hf.errors import some

_NAMES_KEPT = 3


def read_checked_label(source: Source, item: Item, image: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an item's label map, upright as its picture, and how many pixels of it each class has.

    Args:
        source: where the item is from.
        item: an image with a label.
        image: the bytes of its picture; only its size and orientation are looked at.
        classes: K.

    Returns:
        int64 (H, W), ids 0 .. K-1 and 255 = ignored; int64 (K + 1), the pixels of each class and then those ignored.

    Raises:
        SampleError: the label cannot be read, has another size than the picture, or holds an id that is no class's.
    """
    ids = upright_label(source.read_label(item), image)
    counts = class_counts(ids, classes)
    if counts.sum() < ids.size:
        odd = np.setdiff1d(ids, [*range(classes), IGNORE_INDEX])
        kind = f"masks hold ids other than 0 to {classes - 1}, the {classes} classes, and {IGNORE_INDEX} (ignored)"
        raise SampleError(kind, some(map(str, odd.tolist()), 8))
    return ids, counts


def class_counts(ids: np.ndarray, classes: int) -> np.ndarray:
    """Return the pixels of each class and then those ignored, int64 (K + 1); those of other ids are not counted."""
    if ids.size and not (ids.min() >= 0 and ids.max() <= IGNORE_INDEX):
        ids = ids[(ids >= 0) & (ids <= IGNORE_INDEX)]
    # Counting is ten times as fast as sorting, which `np.unique` does.
    found = np.bincount(ids.ravel(), minlength=IGNORE_INDEX + 1)
    return np.append(found[:classes], found[IGNORE_INDEX])


class SampleReader:
    """Reads rows in several threads.

    Args:
        classes: K.
        max_side: the longest side that a stored picture may have; None: pictures stay as they are.
    """

    def __init__(self, classes: int, max_side: int | None) -> None:
        self._classes, self._max_side = classes, max_side
        self._lock = threading.Lock()
        self._doubtful, self._first_doubtful = 0, list[str]()

    def row(self, source: Source, item: Item, keep_label: bool, check_label: bool = True) -> Row:
        """Read an item as it is stored.

        Args:
            source: where the item is from.
            item: the image.
            keep_label: whether its label is stored.
            check_label: whether a label that is not stored is read and checked all the same.

        Raises:
            SampleError: the picture or the label cannot be used.
        """
        image = source.read_image(item)
        height, width = _decoded_size(image)
        ids, name = None, source.file_name(item)
        if item.label is not None and (keep_label or check_label):
            ids, _ = read_checked_label(source, item, image, self._classes)
            if is_doubtful(image):
                self._remember(item.id)
        ids = ids if keep_label else None
        if self._max_side is not None and max(height, width) > self._max_side:
            image, ids = shrink(image, ids, self._max_side)
            height, width = _decoded_size(image)
            name = file_name_of(name, image)
        if ids is None:
            return Row(item.id, image, name, None, width, height)
        # Counted after shrinking: these are the pixels that are stored.
        pixels = tuple(class_counts(ids, self._classes).tolist())
        return Row(item.id, image, name, encode_label(ids), width, height, pixels)

    def notes(self) -> list[str]:
        """Return sentences on what was seen in the rows that were read."""
        if not self._doubtful:
            return []
        names = ", ".join(self._first_doubtful)
        more = f" and {self._doubtful - len(self._first_doubtful)} more" * (self._doubtful > len(self._first_doubtful))
        return [
            f"{self._doubtful} images are turned by their EXIF orientation without a change of size ({names}{more}); "
            "their masks are taken to be upright already"
        ]

    def _remember(self, image_id: str) -> None:
        with self._lock:
            self._doubtful += 1
            # The first by their ids, not by which thread was faster.
            insort(self._first_doubtful, image_id)
            del self._first_doubtful[_NAMES_KEPT:]


def _decoded_size(image: bytes) -> tuple[int, int]:
    """Decode a picture to its end, and return (H, W).

    Raises:
        SampleError: it cannot be decoded.
    """
    try:
        height, width = decode_image(image).shape[:2]
    except Exception as error:
        raise SampleError("images cannot be read", reason(error)) from None
    return height, width
