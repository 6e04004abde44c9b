"""An upload becomes upright pixels, or one sentence."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.demo.pictures import MAX_PIXELS, MIN_SIDE, read_picture
from s4mim_hf.errors import InputError


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG with the header of a large picture and hardly any pixels."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp_that_claims(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def test_a_photo_is_turned_upright(photo: Path) -> None:
    found = read_picture(photo)
    with Image.open(photo) as stored:
        assert stored.size == (72, 96)
        np.testing.assert_array_equal(found, np.rot90(np.asarray(stored), k=-1))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nothing", "x.png is no image that can be read; upload"),
        (b"", "x.png is no image that can be read"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "x.png cannot be decoded"),
        (png_that_claims(64, 64), "x.png cannot be decoded"),
        (png_that_claims(20_000, 20_000), "x.png has 20000 x 20000 pixels, more than the 64 megapixels"),
        (bmp_that_claims(9_000, 9_000), "x.png has 9000 x 9000 pixels, more than the 64 megapixels"),
        (bmp_that_claims(20_000, 20_000), "x.png has far more than 64 megapixels"),
        (png_that_claims(1, 1), f"x.png has 1 x 1 pixels; a photo must have at least {MIN_SIDE}"),
        (png_that_claims(5_000, MIN_SIDE - 1), f"at least {MIN_SIDE} on each side"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InputError) as found:
        read_picture(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words in str(found.value)
    assert "\n" not in str(found.value)
    assert "0x" not in str(found.value), "Pillow's own words name an object in memory"
    assert peak < MAX_PIXELS // 10, "no pixel of what is too large may be decoded"


def test_a_photo_that_is_cut_short_is_refused(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:-900])
    with pytest.raises(InputError, match=r"my photo\.jpg cannot be decoded"):
        read_picture(tmp_path / "cut.jpg", "my photo.jpg")
