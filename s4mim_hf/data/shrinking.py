"""Pictures larger than is worth storing: shrunk once, when they are prepared, together with their labels.

`S4MIMImageProcessor(max_side=...)` does the same to the pictures of a prediction, from decoded pixels: the same size,
filter and positions. The two differ by what JPEG loses.

H, W: height and width of a picture after its EXIF orientation is applied; h, w after it is shrunk.
"""

from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np
from PIL import ExifTags, Image

from s4mim_hf.data.prepared.pixels import rgb_of

# A camera's best setting: what is lost is below the noise of the picture.
JPEG_QUALITY = 95
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is still this many times the size that is wanted: it
# costs less, and the filter has enough to work on.
_MARGIN = 2
_JPEG = frozenset({"JPEG", "MPO"})
_LOSSY = _JPEG | {"WEBP"}
# How to turn a stored picture upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def shrink(data: bytes, ids: np.ndarray | None, max_side: int) -> tuple[bytes, np.ndarray | None]:
    """Shrink a picture and its label until the longer side has `max_side` pixels.

    A picture that is small enough stays byte for byte what it is. A larger one is turned upright, becomes RGB, is
    shrunk by Lanczos (which keeps the edges of thin things, and widens with the factor, so that nothing aliases), and
    is encoded again: as JPEG of quality 95 where it was stored with loss, and as PNG where it was not, since only its
    size was asked to go.

    Args:
        data: the bytes of a picture file.
        ids: its label, of any integer type, (H, W); None: it has none.
        max_side: the longest side that is kept, at least 1.

    Returns:
        The bytes to store, and the label of the picture in them (h, w): each pixel has the id at its centre.

    Raises:
        OSError: the bytes are no whole picture that Pillow can read.
        ValueError: its values are no brightness; see `rgb_of`.
    """
    with Image.open(io.BytesIO(data)) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        width, height = image.size[::-1] if orientation in _SIDEWAYS else image.size
        assert ids is None or ids.shape == (height, width)
        size = shrunk_size(height, width, max_side)
        if size == (height, width):
            return data, ids
        small = _shrunk_picture(image, size, orientation)
        # A profile of four inks or of grey says nothing of what is RGB now.
        profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
        kind, options = ("JPEG", {"quality": JPEG_QUALITY}) if image.format in _LOSSY else ("PNG", {})
    buffer = io.BytesIO()
    small.save(buffer, format=kind, icc_profile=profile, **options)
    return buffer.getvalue(), None if ids is None else shrink_label(ids, size)


def shrunk_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Return the (h, w) of a picture whose longer side is to have at most `max_side` pixels."""
    longest = max(height, width)
    if longest <= max_side:
        return height, width
    return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))


def shrink_pixels(image: np.ndarray, max_side: int) -> np.ndarray:
    """Shrink a decoded picture, uint8 (H, W, 3), to (h, w, 3), as one is that is stored, but for JPEG's loss."""
    height, width = size = shrunk_size(image.shape[0], image.shape[1], max_side)
    if size == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def shrink_label(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the ids (H, W) at the centres of the pixels of a smaller picture, (h, w) = `size`."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, ids.shape, strict=True))
    return ids[rows[:, None], columns]


def _shrunk_picture(image: Image.Image, size: tuple[int, int], orientation: int) -> Image.Image:
    """Return an undecoded picture as upright RGB of `size` (h, w)."""
    stored = size if orientation in _SIDEWAYS else size[::-1]
    box = None
    if image.format in _JPEG:
        drafted = image.draft(image.mode, (_MARGIN * stored[0], _MARGIN * stored[1]))
        # The part that holds the picture: its last blocks may reach beyond it.
        box = None if drafted is None else drafted[1]
    else:
        # Modes such as 16-bit grey and palettes cannot be filtered.
        image = rgb_of(image)
    small = rgb_of(image.resize(stored, Image.Resampling.LANCZOS, box=box))
    return small.transpose(_TURNS[orientation]) if orientation in _TURNS else small


def file_name_of(name: str, data: bytes) -> str:
    """Return a picture file's name with a suffix that fits its bytes, which may have been encoded again."""
    with Image.open(io.BytesIO(data)) as image:
        kind = image.format or ""
    suffix = PurePosixPath(name).suffix
    if Image.registered_extensions().get(suffix.lower()) == kind:
        return name
    return name.removesuffix(suffix) + {"JPEG": ".jpg"}.get(kind, f".{kind.lower()}")
