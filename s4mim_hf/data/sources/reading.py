"""Read class maps of many kinds as ids, turn them upright with their picture, and encode them for storing.

H, W: height and width of a class map or picture.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from s4mim_hf.data.prepared.pixels import too_large
from s4mim_hf.data.sources.base import SampleError

ORIENTATION_TAG = 0x0112
UPRIGHT = 1
INTEGER_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


def read_class_map(path: Path) -> np.ndarray:
    """Decode a mask file to int64 ids (H, W): the indices of a palette picture, or the values of a grey one.

    Raises:
        SampleError: the file is missing, unreadable, lossy, or has more than one channel.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError("masks cannot be read", error.strerror or str(error)) from None
    return decode_class_map(data)


def decode_class_map(data: bytes) -> np.ndarray:
    """Decode the bytes of a mask file to int64 ids (H, W); see `read_class_map`.

    Raises:
        SampleError: unreadable, lossy, or more than one channel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            kind, mode = image.format, image.mode
            pixels = np.asarray(ImageOps.exif_transpose(image))
    except Exception as error:
        raise SampleError("masks cannot be read as pictures", reason(error)) from None
    if kind in ("JPEG", "MPO"):
        raise SampleError("masks are JPEG files, which blur ids; masks must be stored without loss, as PNG")
    if mode not in INTEGER_MODES:
        raise SampleError(
            "masks hold colours where one channel of class ids is expected; say what the colours mean with "
            "--color-table FILE ('folder' and 'hub' take it), or convert them to ids",
            mode,
        )
    ids = pixels.astype(np.int64)
    if kind == "PNG" and mode == "L":
        # Pillow stretches grey of 2 and 4 bits to 0 .. 255; the file's header (IHDR) has the depth at byte 24.
        ids //= {2: 85, 4: 17}.get(data[24], 1)
    return ids


def upright_label(ids: np.ndarray, image_bytes: bytes) -> np.ndarray:
    """Turn a label map (H, W) upright with its picture.

    A map of the upright picture's size is taken as it is; one that has only the size of the picture as it is stored
    is turned as the picture's EXIF orientation says.

    Args:
        ids: the label map as its file has it.
        image_bytes: the picture's file.

    Raises:
        SampleError: the map has neither size, or the picture cannot be read.
    """
    try:
        with Image.open(io.BytesIO(image_bytes)) as image:
            stored, orientation = image.size, image.getexif().get(ORIENTATION_TAG, UPRIGHT)
    except Exception as error:
        raise SampleError("images cannot be read", reason(error)) from None
    upright = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    size = (ids.shape[1], ids.shape[0])
    if size == upright:
        return ids
    if size == stored:
        return _turn(ids, orientation)
    detail = f"{size[0]}x{size[1]} for a picture of {upright[0]}x{upright[1]}"
    raise SampleError("masks have another size than their image", detail)


def _turn(ids: np.ndarray, orientation: int) -> np.ndarray:
    """Apply a picture's EXIF orientation (5 .. 8) to its mask, as Pillow's `exif_transpose` applies it."""
    transposed = {
        5: ids.T,
        6: np.rot90(ids, -1),
        7: np.rot90(ids, 2).T,
        8: np.rot90(ids, 1),
    }[orientation]
    return np.ascontiguousarray(transposed)


def is_doubtful(image_bytes: bytes) -> bool:
    """Return whether a picture is to be turned but keeps its size: nobody can tell whether its mask is turned yet.

    A picture that cannot be opened is not doubtful.
    """
    try:
        with Image.open(io.BytesIO(image_bytes)) as image:
            orientation = image.getexif().get(ORIENTATION_TAG, UPRIGHT)
            turned = orientation in (2, 3, 4)
            return turned or (orientation in (5, 6, 7, 8) and image.width == image.height)
    except Exception:
        return False


def reason(error: Exception) -> str:
    """Say in a few words why a file cannot be decoded."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture format that is known"
    if isinstance(error, Image.DecompressionBombError):
        return too_large()
    return str(error) or type(error).__name__


def encode_label(ids: np.ndarray) -> bytes:
    """Encode ids 0 .. 255 (H, W) as an 8-bit PNG class map."""
    buffer = io.BytesIO()
    Image.fromarray(ids.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
