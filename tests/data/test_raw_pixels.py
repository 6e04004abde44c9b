"""Masks of every kind keep their ids and are turned upright with their picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from raw_trees import write_pair

from s4mim_hf.data.raw_folder import RawItem
from s4mim_hf.data.raw_pixels import read_mask


@pytest.mark.parametrize("kind", ["palette", "bits1", "bits2", "bits4", "deep", "tiff", "BMP"])
def test_masks_of_many_kinds_keep_their_ids(kind: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    ids_wanted = np.random.default_rng(1).integers(0, 2 if kind == "bits1" else 3, (8, 12)).astype(np.uint8)
    image, suffix = Image.fromarray(ids_wanted), ".png"
    if kind == "palette":
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    elif kind == "bits1":
        image = Image.fromarray(ids_wanted.astype(bool))
    elif kind == "deep":
        image = Image.fromarray(ids_wanted.astype(np.uint16))
    elif kind in ("tiff", "BMP"):
        suffix = f".{kind}"
    path = tmp_path / "masks" / f"b{suffix}"
    if kind in ("bits2", "bits4"):
        path.write_bytes(grey_png(ids_wanted, int(kind[-1])))
    else:
        image.save(path)
    found = read_mask(RawItem("a", tmp_path / "images" / "a.jpg", path))
    np.testing.assert_array_equal(found, ids_wanted)


def grey_png(values: np.ndarray, depth: int) -> bytes:
    """Write a grey PNG of 2 or 4 bits by hand: Pillow writes 8 only."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    per_byte = 8 // depth
    shifts = depth * np.arange(per_byte - 1, -1, -1)
    packed = (values.reshape(values.shape[0], -1, per_byte) << shifts).sum(-1).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_with_their_picture(orientation: int, tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    path = tmp_path / "images" / "a.jpg"
    image = Image.open(path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    stored = Image.open(tmp_path / "masks" / "a.png")
    tagged = stored.copy()
    tagged.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(tagged))
    # A mask as the picture is stored is turned only where its size says that it must be.
    found = read_mask(RawItem("a", path, tmp_path / "masks" / "a.png"))
    np.testing.assert_array_equal(found, upright if orientation >= 5 else np.asarray(stored))
    Image.fromarray(upright).save(tmp_path / "masks" / "a.png")
    np.testing.assert_array_equal(read_mask(RawItem("a", path, tmp_path / "masks" / "a.png")), upright)
