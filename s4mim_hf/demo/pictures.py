"""From a file that somebody uploads to pixels, or to one sentence that says why not.

H, W: a picture's height and width after its EXIF orientation is applied.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from s4mim_hf.data.picture_headers import read_header
from s4mim_hf.data.prepared import decode_image
from s4mim_hf.errors import InputError

# Scores of one class at the photo's size, in float32, are held while its class map is made: 256 MB.
MAX_PIXELS = 64_000_000
# Less than this is no picture of anything, and a network's features are a single position of it.
MIN_SIDE = 16

# A broken PNG can make Pillow raise SyntaxError, and EXIF data of any kind of nonsense the others.
_UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, TypeError, EOFError)


def read_picture(path: Path, name: str | None = None) -> np.ndarray:
    """Read a photograph, uint8 (H, W, 3) RGB, turned as its EXIF orientation says; see `decode_image`.

    A picture's size is read from its header before any pixel is decoded.

    Args:
        path: the file.
        name: what it is called in messages; None: as the file.

    Raises:
        InputError: it cannot be read, is cut short, or is too small or too large.
    """
    name = path.name if name is None else name
    try:
        data = path.read_bytes()
        width, height = _size(data, name)
        _check_size(width, height, name)
        return decode_image(data)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name} is no image that can be read; upload a photo as JPEG, PNG, WebP or TIFF") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{name} cannot be decoded ({reason}); upload the whole file, or another one") from None


def _size(data: bytes, name: str) -> tuple[int, int]:
    """Return the stored width and height."""
    header = read_header(data)
    if header is not None:
        return header.width, header.height
    try:
        with warnings.catch_warnings():
            # Pillow warns of what is large; this file has a bound of its own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return image.size
    except Image.DecompressionBombError:
        raise InputError(f"{name} has far more than {_megapixels()}, the most that is taken; shrink it first") from None


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} has {width} x {height} pixels, more than the {_megapixels()} that are taken; shrink it first"
        )
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{name} has {width} x {height} pixels; a photo must have at least {MIN_SIDE} on each side to be segmented"
        )


def _megapixels() -> str:
    return f"{MAX_PIXELS // 1_000_000} megapixels"
