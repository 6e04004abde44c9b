"""From the bytes of a stored picture or label to pixels.

Shapes: H, W are an image's height and width after its EXIF orientation is applied.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

# What Pillow's readers raise, besides OSError, where the bytes are cut or changed.
_BROKEN = (SyntaxError, EOFError, struct.error, zlib.error)


@contextmanager
def opened_picture(data: bytes) -> Iterator[Image.Image]:
    """Open the bytes of a picture file with Pillow, undecoded.

    Raises:
        OSError: the bytes are no picture that Pillow can read, or break off where the block decodes them.
        ValueError: it has more pixels than Pillow agrees to decode, about 13,000 x 13,000.
    """
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise ValueError(too_large()) from None
    with image:
        try:
            yield image
        except _BROKEN as error:
            raise OSError(f"the picture is broken: {error}") from error


def too_large() -> str:
    """Say what is wrong with a picture for which Pillow raises `DecompressionBombError`, and what to do."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    return f"it has more than {limit} million pixels, too many to decode at once; cut it into tiles, or shrink it"


def decode_image(data: bytes) -> np.ndarray:
    """Decode a picture to uint8 (H, W, 3) RGB in 0 .. 255, turned as its EXIF orientation says.

    Grey and palette pictures become RGB, transparency is dropped, and 16-bit grey is scaled to 8 bits.

    Raises:
        OSError: the bytes are no whole picture that Pillow can read.
        ValueError: it has too many pixels, or values that are no brightness; see `rgb_of`.
    """
    with opened_picture(data) as image:
        return np.array(rgb_of(ImageOps.exif_transpose(image)))


def rgb_of(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit RGB; fractions are cut to whole numbers.

    Raises:
        ValueError: it is made of fractions from 0 to 1, or of numbers that 16 bits do not hold: it would become black
            or white.
    """
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns 16-bit grey into white.
        grey = np.asarray(image).astype(np.int64)
        _check_range(grey, 2**16 - 1)
        deep = image.mode.startswith("I;16") or grey.max(initial=0) > 255
        image = Image.fromarray((grey >> 8 if deep else grey).astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        _check_range(values, 255)
        if 0 < values.max(initial=0) <= 1:
            raise ValueError("its values are fractions from 0 to 1, which would be black; store it with 8 or 16 bits")
    return image.convert("RGB")


def _check_range(values: np.ndarray, highest: int) -> None:
    smallest, largest = values.min(initial=0), values.max(initial=0)
    # Written so that NaN is refused as well.
    if not (smallest >= 0 and largest <= highest):
        raise ValueError(
            f"its values run from {smallest:g} to {largest:g}, not within 0 .. {highest}; store it with 8 or 16 bits"
        )


def decode_label(data: bytes) -> np.ndarray:
    """Decode a class map to uint8 (H, W): ids 0 .. K-1, and the ignore id.

    Palette pictures give their ids, not their colours. EXIF orientation is not applied: prepared labels have none.

    Raises:
        OSError: the bytes are no whole picture that Pillow can read.
        ValueError: the picture has no single integer channel, or too many pixels.
    """
    with opened_picture(data) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"a prepared label is an 8-bit class map, but this one has mode {image.mode!r}")
        return np.array(image)
