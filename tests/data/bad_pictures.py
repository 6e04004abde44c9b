"""Pictures and masks of every kind that people have, good and bad, as bytes."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION_TAG = 0x0112


def encode(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Return a picture's file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def photo(seed: int, width: int = 40, height: int = 30) -> np.ndarray:
    """Return a smooth colourful picture, uint8 (H, W, 3): no two seeds look alike, and JPEG keeps it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def ids_of(seed: int, width: int = 40, height: int = 30, values: tuple[int, ...] = (0, 1, 2, 255)) -> np.ndarray:
    """Return a class map of these ids, uint8 (H, W)."""
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), (height, width))


def turned(orientation: int) -> Image.Exif:
    """Return EXIF data that say how a picture is to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return exif


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return how an upright picture (H, W, ...) lies in a file of this EXIF orientation."""
    swapped = upright.swapaxes(0, 1)
    return np.ascontiguousarray(
        {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: swapped,
            6: swapped[::-1],
            7: swapped[::-1, ::-1],
            8: swapped[:, ::-1],
        }[orientation]
    )


def grey_png(values: np.ndarray, depth: int) -> bytes:
    """Return a grey PNG of 1, 2 or 4 bits, written by hand: Pillow writes 1 or 8 only. W must fill whole bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    per_byte = 8 // depth
    shifts = depth * np.arange(per_byte - 1, -1, -1)
    packed = (values.reshape(values.shape[0], -1, per_byte).astype(int) << shifts).sum(-1).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def without_adobe_marker(jpeg: bytes) -> bytes:
    """Return a CMYK JPEG without Adobe's segment, so that its ink is no longer taken as inverted."""
    start = jpeg.index(b"\xff\xee")
    (length,) = struct.unpack(">H", jpeg[start + 2 : start + 4])
    return jpeg[:start] + jpeg[start + 2 + length :]


class RawTree:
    """A raw folder that is written file by file.

    Args:
        folder: where to write it.
        classes: class names; None writes no classes.json.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...] | None = ("road", "tree", "sky")) -> None:
        self.folder = folder
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True)
        if classes is not None:
            (folder / "classes.json").write_text(json.dumps(list(classes)))

    def add(
        self,
        name: str,
        image: bytes | np.ndarray | None = None,
        mask: bytes | np.ndarray | None = None,
        suffix: str = ".jpg",
        mask_suffix: str = ".png",
    ) -> None:
        """Write a pair; arrays become a JPEG of high quality and a PNG; None leaves the mask out.

        The seed of a picture that is not given is its name.
        """
        image = photo(zlib.crc32(name.encode())) if image is None else image
        files = [("images", suffix, image if isinstance(image, bytes) else encode(image, "JPEG", quality=95))]
        if mask is not None:
            files.append(("masks", mask_suffix, mask if isinstance(mask, bytes) else encode(mask)))
        for part, ending, content in files:
            path = self.folder / part / f"{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def fill(self, count: int, folder: str = "") -> RawTree:
        """Add sound pairs good00, good01, ... and return this."""
        for index in range(count):
            name = f"{folder}good{index:02d}"
            self.add(name, mask=ids_of(zlib.crc32(name.encode())))
        return self
