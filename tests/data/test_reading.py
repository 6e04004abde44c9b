"""Masks of every kind keep their ids and are turned upright with their picture; pictures of every kind become RGB."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from raw_trees import write_pair

from s4mim_hf.data.prepared import decode_image
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.sources.reading import encode_label, is_doubtful, read_class_map, upright_label

RNG = np.random.default_rng(1)


def read_mask(image: Path, mask: Path) -> np.ndarray:
    return upright_label(read_class_map(mask), image.read_bytes())


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["palette", "bits1", "bits2", "bits4", "deep", "tiff", "BMP"])
def test_masks_of_many_kinds_keep_their_ids(kind: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    ids_wanted = RNG.integers(0, 2 if kind == "bits1" else 3, (8, 12)).astype(np.uint8)
    image, suffix = Image.fromarray(ids_wanted), ".png"
    if kind == "palette":
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    elif kind == "bits1":
        image = Image.fromarray(ids_wanted.astype(bool))
    elif kind == "deep":
        ids_wanted = ids_wanted.astype(np.uint16) * 300
        image = Image.fromarray(ids_wanted)
    elif kind in ("tiff", "BMP"):
        suffix = f".{kind}"
    path = tmp_path / "masks" / f"b{suffix}"
    if kind in ("bits2", "bits4"):
        path.write_bytes(png(ids_wanted, int(kind[-1])))
    else:
        image.save(path)
    found = read_mask(tmp_path / "images" / "a.jpg", path)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, ids_wanted)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_palette_pictures_of_few_bits(depth: int, tmp_path: Path) -> None:
    ids = RNG.integers(0, 2**depth, (8, 16)).astype(np.uint8)
    palette = bytes(RNG.integers(0, 256, 3 * 2**depth).astype(np.uint8))
    (tmp_path / "m.png").write_bytes(png(ids, depth, palette))
    np.testing.assert_array_equal(read_class_map(tmp_path / "m.png"), ids)


def png(values: np.ndarray, depth: int, palette: bytes | None = None) -> bytes:
    """Write a PNG of 1, 2 or 4 bits by hand, grey or of a palette: Pillow writes 8 only."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    per_byte = 8 // depth
    shifts = depth * np.arange(per_byte - 1, -1, -1)
    packed = (values.reshape(values.shape[0], -1, per_byte) << shifts).sum(-1).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)
    kind = 0 if palette is None else 3
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + (b"" if palette is None else chunk(b"PLTE", palette))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_with_their_picture(orientation: int, tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    path, mask = tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png"
    image = Image.open(path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    stored = Image.open(mask)
    tagged = stored.copy()
    tagged.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(tagged))
    assert decode_image(path.read_bytes()).shape[:2] == upright.shape
    # A mask as the picture is stored is turned only where its size says that it must be.
    np.testing.assert_array_equal(read_mask(path, mask), upright if orientation >= 5 else np.asarray(stored))
    assert is_doubtful(path.read_bytes()) == (orientation in (2, 3, 4))
    Image.fromarray(upright).save(mask)
    np.testing.assert_array_equal(read_mask(path, mask), upright)


def test_a_square_picture_that_is_turned_is_doubtful() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert is_doubtful(encoded(Image.new("RGB", (8, 8)), "JPEG", exif=exif))
    assert not is_doubtful(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    assert not is_doubtful(b"junk")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(Image.new("RGB", (12, 8))), "masks hold colours"),
        (encoded(Image.new("LA", (12, 8))), "masks hold colours"),
        (encoded(Image.new("L", (12, 8)), "JPEG"), "masks are JPEG files"),
        (encoded(Image.effect_noise((12, 8), 50))[:80], "masks cannot be read as pictures"),
        (b"", "masks cannot be read as pictures"),
        (None, "masks cannot be read"),
    ],
)
def test_masks_that_are_refused(data: bytes | None, message: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "m.png").write_bytes(data)
    with pytest.raises(SampleError) as caught:
        read_class_map(tmp_path / "m.png")
    assert caught.value.kind.startswith(message)


def test_another_size_is_refused() -> None:
    with pytest.raises(SampleError, match="another size") as caught:
        upright_label(np.zeros((8, 12), np.int64), encoded(Image.new("RGB", (13, 8))))
    assert caught.value.detail == "12x8 for a picture of 13x8"


def test_labels_come_back_as_they_were_encoded() -> None:
    ids = RNG.integers(0, 256, (5, 7))
    image = Image.open(io.BytesIO(encode_label(ids)))
    assert (image.mode, image.format) == ("L", "PNG")
    np.testing.assert_array_equal(np.asarray(image), ids)


def smooth() -> np.ndarray:
    """Return a picture without edges, uint8 (16, 24, 3), which JPEG keeps within a few grey levels."""
    rows, columns = np.mgrid[0:16, 0:24]
    return np.stack([10 * rows + 20, 8 * columns + 30, 200 - 4 * rows - 3 * columns], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, "PNG") for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")),
        *((mode, "TIFF") for mode in ("RGB", "RGBA", "CMYK", "P", "L", "LA", "1", "I;16", "PA")),
        *((mode, "JPEG") for mode in ("RGB", "CMYK", "L")),
    ],
)
def test_pictures_of_every_kind_become_rgb(mode: str, kind: str) -> None:
    color = Image.fromarray(smooth())
    grey = np.asarray(color.convert("L"))
    if mode == "I;16":
        image, expected = Image.fromarray(grey.astype(np.uint16) * 257), np.stack([grey] * 3, -1)
    elif mode == "1":
        image = color.convert("1")
        expected = np.stack([np.asarray(image, np.uint8) * 255] * 3, -1)
    elif mode in ("L", "LA"):
        image, expected = color.convert(mode), np.stack([grey] * 3, -1)
    elif mode in ("P", "PA"):
        image = color.quantize(256).convert(mode)
        expected = np.asarray(image.convert("RGB"))
    else:
        image, expected = color.convert(mode), smooth()
        if mode == "RGBA":
            image.putalpha(Image.fromarray(grey))
    found = decode_image(encoded(image, kind))
    assert (found.dtype, found.shape) == (np.uint8, (16, 24, 3))
    assert np.abs(found.astype(int) - expected).max() <= (12 if kind == "JPEG" else 0)


def test_adobe_jpegs_of_four_inks_are_not_seen_as_negatives() -> None:
    """Photoshop stores the inks inverted and says so with a marker; a white sheet must not become black."""
    white = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in white
    with Image.open(io.BytesIO(white)) as raw:
        # Without Pillow's inversion: what the file holds is the negative.
        raw.tile = [tile._replace(args=("CMYK", "")) for tile in raw.tile]
        assert np.asarray(raw).min() >= 250
    assert decode_image(white).min() >= 250
    cyan = decode_image(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))
    assert (cyan[..., 0].max() <= 5, cyan[..., 1].min() >= 250) == (True, True)
    dark = decode_image(encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 230)), "JPEG"))
    assert dark.max() <= 30
