"""Decode no more of a picture than a view needs: its first rows, at a reduced size where that is enough, then a part.

What a view needs follows from the picture's size, and that stands in its header: a picture is opened, a view drawn, and
only then are pixels decoded. A JPEG is reduced to 1/2, 1/4 or 1/8 as it is decoded, in the frequency domain, for
less than decoding it whole. Where this file knows no shortcut the picture is decoded whole by `decode_image`; it is
the same picture either way.

H, W: a picture's height and width after its EXIF orientation is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import ExifTags, ImageOps

from s4mim_hf.data.picture_headers import Header, read_header
from s4mim_hf.data.prepared import decode_image, decode_label
from s4mim_hf.data.prepared.pixels import opened_picture

# Other factors exist, but their transforms are slower than decoding at full size.
_REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True)
class Span:
    """Pixels start .. start + count - 1 of one axis of a picture."""

    start: int
    count: int

    @property
    def stop(self) -> int:
        """One after the last pixel."""
        return self.start + self.count

    def divided(self, reduction: int) -> Span:
        """Return the span in a reduced picture; start and count must be multiples of `reduction`."""
        return Span(self.start // reduction, self.count // reduction)


class Picture(Protocol):
    """A picture of which parts can be read.

    Attributes:
        height: H.
        width: W.
    """

    height: int
    width: int

    def reduction(self, scale: float) -> int:
        """Return the highest factor, 1 or more, by which the picture can be read smaller, but not below `scale`."""

    def read(self, rows: Span, columns: Span, reduction: int = 1) -> np.ndarray:
        """Decode a part.

        Args:
            rows: within the picture; start and count are multiples of `reduction`.
            columns: likewise.
            reduction: as `reduction()` returns it; every reduced pixel stands for a square of so many.

        Returns:
            uint8 (rows.count // reduction, columns.count // reduction, 3) RGB, or class ids without the last
            dimension.

        Raises:
            OSError: the picture is broken off or otherwise unreadable.
            ValueError: likewise, or a label that is no 8-bit class map.
        """


class DecodedPicture:
    """A picture that is decoded already.

    Args:
        pixels: uint8 (H, W, ...).
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def reduction(self, scale: float) -> int:
        """Return 1: nothing is to be gained any more."""
        return 1

    def read(self, rows: Span, columns: Span, reduction: int = 1) -> np.ndarray:
        """Return a part; see `Picture.read`."""
        return np.ascontiguousarray(self._pixels[rows.start : rows.stop, columns.start : columns.stop])


class _EncodedImage:
    """A JPEG, or a PNG that is not to be turned, with 8 bits a channel."""

    def __init__(self, data: bytes, header: Header) -> None:
        self._data, self._header = data, header
        self._turned, swapped = _orientation(data) if header.metadata else (False, False)
        self.height, self.width = (header.width, header.height) if swapped else (header.height, header.width)

    def reduction(self, scale: float) -> int:
        factors = _REDUCTIONS if self._header.kind == "jpeg" else ()
        return next((factor for factor in factors if scale <= 1 / factor and self._divides(factor)), 1)

    def _divides(self, factor: int) -> bool:
        # Squares begin at the stored picture's corner: turned, an incomplete one would come first and shift the others.
        whole = self.height % factor == self.width % factor == 0
        return whole or (not self._turned and min(self.height, self.width) >= factor)

    def read(self, rows: Span, columns: Span, reduction: int = 1) -> np.ndarray:
        # The first rows of a picture that is turned may be any of its edges.
        data = self._data if self._turned else self._header.first_rows(self._data, rows.stop)
        rows, columns = rows.divided(reduction), columns.divided(reduction)
        with opened_picture(data) as image:
            if reduction > 1:
                image.draft(None, (image.width // reduction, max(1, image.height // reduction)))
            upright = ImageOps.exif_transpose(image) if self._turned else image
            part = upright.crop((columns.start, rows.start, columns.stop, rows.stop))
        return np.array(part if part.mode == "RGB" else part.convert("RGB"))


class _EncodedLabel:
    """A class map as PNG."""

    def __init__(self, data: bytes, header: Header) -> None:
        self._data, self._header = data, header
        self.height, self.width = header.height, header.width

    def reduction(self, scale: float) -> int:
        return 1

    def read(self, rows: Span, columns: Span, reduction: int = 1) -> np.ndarray:
        ids = decode_label(self._header.first_rows(self._data, rows.stop))
        return ids[rows.start : rows.stop, columns.start : columns.stop]


def open_image(data: bytes) -> Picture:
    """Return an image whose parts are those of `decode_image`, once decoded.

    Raises:
        OSError: the bytes are no picture that Pillow can read.
        ValueError: it has too many pixels, or values that are no brightness; see `decode_image`.
    """
    header = read_header(data)
    return DecodedPicture(decode_image(data)) if header is None else _EncodedImage(data, header)


def open_label(data: bytes) -> Picture:
    """Return a class map whose parts are those of `decode_label`, once decoded.

    Raises:
        OSError: the bytes are no picture that Pillow can read.
        ValueError: the picture has no single integer channel, or too many pixels.
    """
    header = read_header(data)
    if header is None or header.kind != "png":
        return DecodedPicture(decode_label(data))
    return _EncodedLabel(data, header)


def _orientation(data: bytes) -> tuple[bool, bool]:
    """Return whether a JPEG's metadata turn or mirror it, and whether height and width change places."""
    with opened_picture(data) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation in range(2, 9), orientation in range(5, 9)
