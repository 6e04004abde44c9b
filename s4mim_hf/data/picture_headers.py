"""What a JPEG's or a PNG's header says, and the same picture with only its first rows.

A decoder works from the top and stops after as many rows as the header promises. With a smaller number written there,
it leaves the rest of the file alone, and what it does decode is bit for bit what it was. This holds for progressive
JPEGs too: every scan ends early.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

# Frames coded with Huffman tables: baseline, extended sequential, progressive.
_FRAMES = (0xC0, 0xC1, 0xC2)
_TABLES = (0xC4, 0xCC)
_START_OF_SCAN = 0xDA
_METADATA = 0xE1  # holds EXIF or XMP
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_END = 33


@dataclass(frozen=True)
class Header:
    """The header of a picture that decodes to 8 bits a channel, row by row.

    Attributes:
        height: as stored, before any turning.
        width: likewise.
        kind: "jpeg" or "png".
        row_group: rows that are coded together, a power of two.
        height_at: where the height is written, in bytes from the start.
        metadata: whether something else in the file may say that the picture is to be turned.
    """

    height: int
    width: int
    kind: str
    row_group: int
    height_at: int
    metadata: bool

    def first_rows(self, data: bytes, count: int) -> bytes:
        """Return the picture with at least its first `count` rows, which decode as they do from the whole.

        Args:
            data: the picture that this is the header of.
            count: at least 1.
        """
        # Colour is interpolated between rows in JPEGs: one row more must be there.
        kept = count if self.kind == "png" else (count // self.row_group + 1) * self.row_group
        if kept >= self.height:
            return data
        return _with_height_of_png(data, kept) if self.kind == "png" else _with_height_of_jpeg(data, kept, self)


def _with_height_of_png(data: bytes, height: int) -> bytes:
    header = data[12:20] + struct.pack(">I", height) + data[24:29]
    return b"".join((data[:12], header, struct.pack(">I", zlib.crc32(header)), memoryview(data)[_PNG_HEADER_END:]))


def _with_height_of_jpeg(data: bytes, height: int, header: Header) -> bytes:
    place = header.height_at
    return b"".join((memoryview(data)[:place], struct.pack(">H", height), memoryview(data)[place + 2 :]))


def read_header(data: bytes) -> Header | None:
    """Return a picture's header, or None where it had better be decoded whole.

    These are: other formats, broken files, CMYK, 16-bit grey, interlaced or animated PNGs, and PNGs that may be turned.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _read_jpeg(data)
        return _read_png(data) if data.startswith(_PNG) else None
    except (struct.error, IndexError):
        return None


def _read_jpeg(data: bytes) -> Header | None:
    place, metadata, found = 2, False, None
    while True:
        start, marker, length = struct.unpack_from(">BBH", data, place)
        if start != 0xFF:
            return None
        if marker == _START_OF_SCAN:
            break
        if marker in _FRAMES and found is None:
            found = place
        elif 0xC0 <= marker <= 0xCF and marker not in _TABLES:
            return None
        metadata |= marker == _METADATA
        place += 2 + length
    if found is None:
        return None
    precision, height, width, channels = struct.unpack_from(">BHHB", data, found + 4)
    if precision != 8 or channels not in (1, 3) or 0 in (height, width):
        return None
    sampling = max(data[found + 11 + 3 * channel] & 15 for channel in range(channels))
    return Header(height, width, "jpeg", 8 * sampling, found + 5, metadata)


def _read_png(data: bytes) -> Header | None:
    width, height, depth, colors, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if data[12:16] != b"IHDR" or interlaced or (depth == 16 and colors == 0) or 0 in (height, width):
        return None
    place = _PNG_HEADER_END
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        # An orientation may stand in an EXIF chunk or in a text, and either may follow the pixels.
        text = data[place + 8 : place + 25] if name in (b"tEXt", b"zTXt", b"iTXt") else b""
        if name in (b"eXIf", b"acTL") or text.startswith((b"Raw profile type", b"XML:com.adobe.xmp")):
            return None
        place += 12 + length
    return Header(height, width, "png", 1, 20, False)
