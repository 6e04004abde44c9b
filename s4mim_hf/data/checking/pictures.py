"""Look at one picture and its label as training will, and note in a few bytes what a check needs to know of them.

H, W: a picture's height and width after its EXIF orientation is applied.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import xxhash
from PIL import Image

from s4mim_hf.data.prepared import decode_image, decode_label
from s4mim_hf.data.sources.base import Item, SampleError, Source
from s4mim_hf.data.sources.reading import is_doubtful, reason, upright_label

# A 16-bit picture whose brightest value is below this after scaling to 8 bits does not use its upper bits.
DARK = 32
# Ids above it are no class's in any form of data, and are counted as one.
LARGEST_ID = 65535
_LOOK_SIZE = (9, 8)
_LOOK_LINES = 256


class Sample(Protocol):
    """One image that is checked, and where its label is."""

    @property
    def split(self) -> str:
        """ "labeled", "unlabeled" or "validation"."""

    @property
    def id(self) -> str:
        """The image's id."""

    @property
    def labeled(self) -> bool:
        """Whether it should have a label."""

    def image(self) -> bytes:
        """Return the bytes of the picture file.

        Raises:
            SampleError: there are none.
        """

    def label(self, image: bytes) -> np.ndarray:
        """Return the label map as training sees it, whole numbers (H, W).

        Args:
            image: the bytes of the picture file.

        Raises:
            SampleError: it cannot be read, or does not fit its picture.
        """

    def doubtful(self, image: bytes) -> bool:
        """Return whether nobody can tell if the label is turned as its picture is."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """A row of a prepared folder; None where the row holds no bytes."""

    split: str
    id: str
    stored_image: bytes | None
    stored_label: bytes | None = None

    @property
    def labeled(self) -> bool:
        """Whether its split has labels."""
        return self.split != "unlabeled"

    def image(self) -> bytes:
        """Return the stored picture."""
        if self.stored_image is None:
            raise SampleError("images are missing from their rows")
        return self.stored_image

    def label(self, image: bytes) -> np.ndarray:
        """Decode the stored label, uint8 (H, W)."""
        if self.stored_label is None:
            raise SampleError("masks are missing from their rows")
        try:
            ids = decode_label(self.stored_label)
            with Image.open(io.BytesIO(self.stored_label)) as mask:
                kind, mode = mask.format, mask.mode
        except Exception as error:
            raise SampleError("masks cannot be read as class maps", reason(error)) from None
        if kind in ("JPEG", "MPO"):
            raise SampleError("masks are JPEG files, which blur ids; masks must be stored without loss, as PNG")
        # The header (IHDR) has the depth at byte 24; preparing writes 8 bits, others may not.
        if kind == "PNG" and mode == "L" and self.stored_label[24] in (2, 4):
            raise SampleError("masks are grey PNGs of 2 or 4 bits, whose ids are read as 85 or 17 times what they are")
        return ids

    def doubtful(self, image: bytes) -> bool:
        """Return False: prepared labels are upright."""
        return False


@dataclass(frozen=True, slots=True)
class SourceSample:
    """An image of a source that is not prepared yet."""

    split: str
    item: Item
    source: Source
    labeled: bool

    @property
    def id(self) -> str:
        """The item's id."""
        return self.item.id

    def image(self) -> bytes:
        """Read the picture's file."""
        return self.source.read_image(self.item)

    def label(self, image: bytes) -> np.ndarray:
        """Read the label, int64 (H, W), and turn it upright with its picture."""
        return upright_label(self.source.read_label(self.item), image)

    def doubtful(self, image: bytes) -> bool:
        """Return whether the picture is turned without a change of size."""
        return is_doubtful(image)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of one image; a few hundred bytes whatever its size.

    Attributes:
        digest: 16 bytes, equal for pictures of equal size and pixels (of equal files where they do not decode); None
            where there are no bytes.
        look: the picture's coarse look, 64 bits; see `look_of`.
        size: (W, H); None where the picture does not decode.
        kind: format and mode of the file, such as "JPEG RGB".
        dark: it has 16 bits and is nearly black once it is scaled to 8.
        doubtful: nobody can tell which way up its label is.
        pixels: how many pixels of the label each id has; None where there is no label, or none that fits.
        problems: (kind, detail) of what training cannot use, as in `SampleError`.
    """

    digest: bytes | None = None
    look: int = 0
    size: tuple[int, int] | None = None
    kind: str = ""
    dark: bool = False
    doubtful: bool = False
    pixels: Mapping[int, int] | None = None
    problems: tuple[tuple[str, str], ...] = field(default_factory=tuple)


def inspect(sample: Sample) -> Facts:
    """Decode a sample's picture and label. Whatever is wrong with them is returned, not raised."""
    try:
        data = sample.image()
    except SampleError as error:
        return Facts(problems=((error.kind, error.detail),))
    try:
        facts = _picture_of(data)
    except Exception as error:
        digest = xxhash.xxh3_128_digest(data)
        return Facts(digest, problems=(("images cannot be read", reason(error)),))
    assert facts.size is not None
    pixels, problems = _label_of(sample, data, facts.size)
    doubtful = pixels is not None and sample.doubtful(data)
    return replace(facts, pixels=pixels, problems=problems, doubtful=doubtful)


def _picture_of(data: bytes) -> Facts:
    """Return the facts of a picture without its label; its pixels are gone when the label is read."""
    pixels = decode_image(data)
    with Image.open(io.BytesIO(data)) as header:
        kind, deep = f"{header.format} {header.mode}", header.mode.startswith("I")
    size = (pixels.shape[1], pixels.shape[0])
    digest = xxhash.xxh3_128_digest(b"%dx%d:" % size + xxhash.xxh3_128_digest(pixels.data))
    return Facts(digest, look_of(pixels), size, kind, dark=deep and int(pixels.max()) < DARK)


def _label_of(
    sample: Sample, data: bytes, size: tuple[int, int]
) -> tuple[Mapping[int, int] | None, tuple[tuple[str, str], ...]]:
    """Return the pixels of each id of a sample's label, or what is wrong with it."""
    if not sample.labeled:
        return None, ()
    try:
        label = sample.label(data)
    except SampleError as error:
        return None, ((error.kind, error.detail),)
    found = (label.shape[1], label.shape[0])
    if found != size:
        detail = f"{found[0]}x{found[1]} for a picture of {size[0]}x{size[1]}"
        return None, (("masks have another size than their image", detail),)
    return count_ids(label), ()


def count_ids(label: np.ndarray) -> dict[int, int]:
    """Return how many pixels each id of a label map has.

    Args:
        label: whole numbers (H, W). Negative ids count as -1, those above 65535 as 65536.
    """
    flat, first = label.reshape(-1), 0
    if flat.size and (flat.min() < 0 or flat.max() > LARGEST_ID):
        flat, first = flat.clip(-1, LARGEST_ID + 1) + 1, -1
    counts = np.bincount(flat)
    held = np.flatnonzero(counts)
    return dict(zip((held + first).tolist(), counts[held].tolist(), strict=True))


def look_of(pixels: np.ndarray) -> int:
    """Return 64 bits that say how a picture looks from afar: whether each of 8 x 8 places is darker than its right one.

    Frames of one video that follow each other, and copies of a picture that were compressed again, differ in few bits.

    Args:
        pixels: uint8 (H, W, 3).
    """
    # Of large pictures some lines are enough, and much faster than all.
    step = max(1, min(pixels.shape[:2]) // _LOOK_LINES)
    sparse = Image.fromarray(np.ascontiguousarray(pixels[step // 2 :: step, step // 2 :: step]))
    grey = np.asarray(sparse.convert("L").resize(_LOOK_SIZE, Image.Resampling.BOX))
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
