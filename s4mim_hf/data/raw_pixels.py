"""Decode every picture and mask of a raw folder once, and find what is wrong with them before anything is written.

H, W: height and width of a picture after its EXIF orientation is applied.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from s4mim_hf.data.prepared import decode_image
from s4mim_hf.data.raw_folder import IGNORE_INDEX, Classes, RawItem
from s4mim_hf.errors import InputError, some

ORIENTATION_TAG = 0x0112
UPRIGHT = 1
INTEGER_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


class MaskError(ValueError):
    """A mask that cannot be used: `kind` groups the files of one problem, `detail` is about this file."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Facts:
    """What was seen when one item was decoded.

    Attributes:
        width: W.
        height: H.
        ids: the ids that the mask holds; empty where there is no mask.
        doubtful: the picture is to be turned but keeps its size, and it has a mask: which way up is the mask?
    """

    width: int
    height: int
    ids: frozenset[int] = frozenset()
    doubtful: bool = False


def read_mask(item: RawItem) -> np.ndarray:
    """Decode an item's mask to int64 (H, W), turned upright with its picture.

    A mask of the upright picture's size is taken as it is; one that has only the size of the picture as it is stored
    is turned with it.

    Raises:
        MaskError: unreadable, lossy, more than one channel, or of another size.
    """
    assert item.mask is not None
    ids = _mask_ids(item.mask)
    with Image.open(item.image) as image:
        stored, orientation = image.size, image.getexif().get(ORIENTATION_TAG, UPRIGHT)
    upright = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    size = (ids.shape[1], ids.shape[0])
    if size == upright:
        return ids
    if size == stored:
        return _turn(ids, orientation)
    detail = f"{size[0]}x{size[1]} for a picture of {upright[0]}x{upright[1]}"
    raise MaskError("have another size than their image", detail)


def _mask_ids(path: Path) -> np.ndarray:
    """Decode a mask to int64 ids, (height, width) as its own file says."""
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            kind, mode = image.format, image.mode
            pixels = np.asarray(ImageOps.exif_transpose(image))
    except Exception as error:
        raise MaskError("cannot be read as pictures", _reason(error)) from None
    if kind in ("JPEG", "MPO"):
        raise MaskError("are JPEG files, which blur ids; masks must be stored without loss, as PNG")
    if mode not in INTEGER_MODES:
        raise MaskError("hold colours where one channel of class ids is expected; convert each colour to its id", mode)
    ids = pixels.astype(np.int64)
    if kind == "PNG" and mode == "L":
        # Pillow stretches grey of 2 and 4 bits to 0 .. 255; the file's header (IHDR) has the depth at byte 24.
        ids //= {2: 85, 4: 17}.get(data[24], 1)
    return ids


def _turn(ids: np.ndarray, orientation: int) -> np.ndarray:
    """Apply a picture's EXIF orientation (5 .. 8) to its mask, as Pillow's `exif_transpose` applies it."""
    transposed = {
        5: ids.T,
        6: np.rot90(ids, -1),
        7: np.rot90(ids, 2).T,
        8: np.rot90(ids, 1),
    }[orientation]
    return np.ascontiguousarray(transposed)


def inspect(items: Sequence[RawItem]) -> dict[str, Facts]:
    """Decode every image and mask once, in threads (Pillow decodes outside the interpreter lock), with a progress bar.

    Returns:
        The facts of each item by its id.

    Raises:
        InputError: files that cannot be read or do not fit together, of the first kind of problem that is found.
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = list(tqdm(pool.map(_inspect_one, items), total=len(items), desc="checking", unit="img", disable=None))
    problems: dict[str, list[str]] = defaultdict(list)
    facts = {}
    for item, result in zip(items, results, strict=True):
        if isinstance(result, Facts):
            facts[item.id] = result
        else:
            what, detail = result
            problems[what].append(f"{item.id} ({detail})" if detail else item.id)
    for what, names in problems.items():
        subject, _, rest = what.partition(" ")
        raise InputError(f"{len(names)} {subject} {rest}: {some(names)}")
    return facts


def _inspect_one(item: RawItem) -> Facts | tuple[str, str]:
    """Return an item's facts, or the kind of problem and what is special about this file."""
    try:
        data = item.image.read_bytes()
        height, width = decode_image(data).shape[:2]
        with Image.open(io.BytesIO(data)) as image:
            # From equal sizes nobody can tell whether the mask is turned already.
            doubtful = image.getexif().get(ORIENTATION_TAG, UPRIGHT) != UPRIGHT and image.size == (width, height)
    except Exception as error:
        return "images cannot be read", _reason(error)
    if item.mask is None:
        return Facts(width, height)
    try:
        ids = read_mask(item)
    except MaskError as error:
        return f"masks {error.kind}", error.detail
    return Facts(width, height, mask_ids_of(ids), doubtful)


def _reason(error: Exception) -> str:
    """Say in a few words why a file cannot be decoded."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture format that is known"
    return str(error) or type(error).__name__


def check_ids(facts: Mapping[str, Facts], classes: Classes) -> None:
    """Check that masks hold no ids but 0 .. K-1 and the ignore id.

    Raises:
        InputError: names the odd ids and the first masks that hold them.
    """
    allowed = {*range(len(classes.names)), classes.ignore_index, IGNORE_INDEX}
    holders = {name: fact.ids - allowed for name, fact in facts.items() if fact.ids - allowed}
    if not holders:
        return
    odd = sorted(set().union(*holders.values()))
    ignored = " or ".join(str(value) for value in sorted({classes.ignore_index, IGNORE_INDEX}))
    raise InputError(
        f"{len(holders)} masks hold ids other than 0 to {len(classes.names) - 1} and {ignored} (ignored): "
        f"ids {some(map(str, odd), 8)} in {some(holders)}; name more classes or correct the masks"
    )


def ids_held(facts: Iterable[Facts]) -> set[int]:
    """Return all ids that some masks hold, the ignored one too."""
    return set().union(*(fact.ids for fact in facts))


def encode_label(ids: np.ndarray, classes: Classes) -> bytes:
    """Encode ids (H, W) as an 8-bit PNG class map, in which 255 is ignored whatever the raw masks said."""
    mapped = np.where(ids == classes.ignore_index, IGNORE_INDEX, ids).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mapped).save(buffer, format="PNG")
    return buffer.getvalue()


def mask_ids_of(ids: np.ndarray) -> frozenset[int]:
    """Return the distinct ids of a class map (H, W)."""
    return frozenset(np.unique(ids).tolist())
