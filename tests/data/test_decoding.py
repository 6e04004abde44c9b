"""Parts of pictures are those of the whole, however it is encoded, and no more is decoded than they need."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.data.decoding import DecodedPicture, Picture, Span, open_image, open_label
from s4mim_hf.data.picture_headers import read_header
from s4mim_hf.data.prepared import decode_image, decode_label
from s4mim_hf.data.sources.reading import decode_class_map

HEIGHT, WIDTH = 71, 94
ORIENTATION = 0x0112


def _pixels(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return smooth colours with some grain, as photographs have them; their four quarters differ."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    smooth = np.stack([rows, columns, 0.5 + 0.4 * np.sin(9 * rows * columns)], axis=-1) * 200
    return (smooth + np.random.default_rng(0).integers(0, 30, (height, width, 1))).astype(np.uint8)


def _encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def _converted(mode: str) -> Image.Image:
    picture = Image.fromarray(_pixels())
    if mode in ("RGBA", "LA"):
        picture = picture.convert("RGBA" if mode == "RGBA" else "LA")
        picture.putalpha(Image.fromarray(_pixels()[..., 0]))
    return picture.convert(mode)


def _sixteen_bits() -> Image.Image:
    return Image.fromarray((_pixels()[..., 0].astype(np.uint16) << 8) + 77)


def _with_chunk(png: bytes, name: bytes, content: bytes, at_the_end: bool) -> bytes:
    """Put a chunk before the pixels of a PNG, or after them."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    place = len(png) - 12 if at_the_end else 33
    return png[:place] + chunk + png[place:]


def _encodings() -> dict[str, bytes]:
    picture, exif = Image.fromarray(_pixels()), _exif(6).tobytes()[6:]
    found = {f"JPEG {n}": _encode(picture, "JPEG", subsampling=n) for n in (0, 1, 2)}
    found["JPEG progressive"] = _encode(picture, "JPEG", progressive=True)
    found["JPEG restarts"] = _encode(picture, "JPEG", restart_marker_rows=1)
    found["JPEG xmp"] = _encode(picture, "JPEG", xmp=_xmp(8))
    found |= {f"JPEG turned {n}": _encode(picture, "JPEG", exif=_exif(n)) for n in range(10)}
    found |= {f"JPEG {mode}": _encode(_converted(mode), "JPEG") for mode in ("L", "CMYK")}
    found |= {f"PNG {mode}": _encode(_converted(mode)) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")}
    found["PNG transparent"] = _encode(_converted("P"), transparency=3)
    found["PNG 16 bits"] = _encode(_sixteen_bits())
    found["PNG turned"] = _encode(picture, exif=_exif(6))
    found["PNG turned at its end"] = _with_chunk(_encode(picture), b"eXIf", exif, at_the_end=True)
    found["PNG xmp"] = _with_chunk(_encode(picture), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _xmp(3), False)
    found["PNG with a remark"] = _with_chunk(_encode(picture), b"tEXt", b"Comment\0hello", at_the_end=False)
    found["PNG animated"] = _encode(picture, save_all=True, append_images=[picture.rotate(180)])
    found |= {kind: _encode(picture, kind) for kind in ("BMP", "TIFF", "GIF", "WEBP")}
    return found


ENCODINGS = _encodings()


def _spans(length: int) -> list[Span]:
    return [Span(0, length), Span(0, 1), Span(length - 1, 1), Span(3, 13), Span(16, 16), Span(length // 2, length // 3)]


def _cut(whole: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
    return whole[rows.start : rows.stop, columns.start : columns.stop]


def _assert_parts_are_those_of(whole: np.ndarray, picture: Picture) -> None:
    assert (picture.height, picture.width) == whole.shape[:2]
    for rows, columns in zip(_spans(picture.height), reversed(_spans(picture.width)), strict=True):
        part = picture.read(rows, columns)
        assert part.dtype == np.uint8
        np.testing.assert_array_equal(part, _cut(whole, rows, columns))


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_part_is_that_of_the_whole_picture(name: str) -> None:
    _assert_parts_are_those_of(decode_image(ENCODINGS[name]), open_image(ENCODINGS[name]))


def test_the_usual_pictures_take_the_short_way_and_odd_ones_do_not() -> None:
    decoded = {name for name, data in ENCODINGS.items() if isinstance(open_image(data), DecodedPicture)}
    odd = {"JPEG CMYK", "PNG 16 bits", "PNG turned", "PNG turned at its end", "PNG xmp", "PNG animated"}
    assert decoded == odd | {"BMP", "TIFF", "GIF", "WEBP"}


@pytest.mark.parametrize("name", ["JPEG 0", "JPEG 1", "JPEG 2", "JPEG L", "JPEG progressive", "JPEG restarts", "PNG P"])
def test_the_first_rows_are_bit_for_bit_those_of_the_whole(name: str) -> None:
    data, whole = ENCODINGS[name], decode_image(ENCODINGS[name])
    header = read_header(data)
    assert header is not None
    for count in range(1, HEIGHT + 1):
        found = decode_image(header.first_rows(data, count))
        assert count <= len(found) <= min(HEIGHT, count + 16)
        np.testing.assert_array_equal(found[:count], whole[:count])


@pytest.mark.parametrize("name", ["JPEG 0", "JPEG 2", "PNG RGB"])
def test_what_comes_after_the_part_is_not_decoded(name: str) -> None:
    data, rows = ENCODINGS[name], Span(2, HEIGHT // 8)
    place, end = len(data) * 3 // 5, len(data) - 20
    rubbish = np.random.default_rng(0).integers(1, 255, end - place).astype(np.uint8).tobytes()
    broken = data[:place] + rubbish + data[end:]
    whole = decode_image(data)
    try:
        assert not np.array_equal(decode_image(broken), whole)
    except OSError:
        assert name.startswith("PNG"), "what follows decodes to something in a JPEG, and is an error in a PNG"
    np.testing.assert_array_equal(open_image(broken).read(rows, Span(5, 30)), whole[2 : rows.stop, 5:35])


@pytest.mark.parametrize("name", ["JPEG 2", "JPEG progressive", "PNG RGB"])
def test_a_part_that_is_missing_is_an_error(name: str) -> None:
    data = ENCODINGS[name]
    broken_off = open_image(data[: len(data) // 2])
    assert (broken_off.height, broken_off.width) == (HEIGHT, WIDTH)
    with pytest.raises(OSError, match="truncated"):
        broken_off.read(Span(HEIGHT - 5, 5), Span(5, 30))


def test_how_far_a_picture_can_be_reduced() -> None:
    jpeg, png = open_image(ENCODINGS["JPEG 2"]), open_image(ENCODINGS["PNG RGB"])
    expected = {2.0: 1, 0.51: 1, 0.5: 2, 0.26: 2, 0.25: 4, 0.126: 4, 0.125: 8, 0.01: 8}
    assert {scale: jpeg.reduction(scale) for scale in expected} == expected
    assert {png.reduction(scale) for scale in expected} == {1}
    assert open_image(_encode(_pixels(3, 50), "JPEG")).reduction(0.01) == 2
    assert open_image(_encode(_pixels(1, 50), "JPEG")).reduction(0.01) == 1


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("name", ["JPEG 0", "JPEG 2", "JPEG progressive", "JPEG L"])
def test_a_reduced_part_is_the_mean_of_its_squares(name: str, reduction: int) -> None:
    _assert_reduced_parts_are_means(ENCODINGS[name], reduction)


@pytest.mark.parametrize("reduction", [2, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_reduced_only_where_its_squares_stay_in_place(orientation: int, reduction: int) -> None:
    _assert_reduced_parts_are_means(_encode(_pixels(72, 96), "JPEG", exif=_exif(orientation)), reduction)
    for height, width in ((71, 96), (72, 94)):
        picture = open_image(_encode(_pixels(height, width), "JPEG", exif=_exif(orientation)))
        odd = 2 if width == 94 else 1
        assert picture.reduction(0.01) == (8 if orientation == 1 else odd)


def _assert_reduced_parts_are_means(data: bytes, reduction: int) -> None:
    whole, picture = decode_image(data).astype(float), open_image(data)
    assert picture.reduction(1 / reduction) == reduction
    high, wide = picture.height // reduction, picture.width // reduction
    squares = whole[: high * reduction, : wide * reduction]
    means = squares.reshape(high, reduction, wide, reduction, 3).mean((1, 3))
    for rows, columns in ((Span(0, high), Span(0, wide)), (Span(high - 1, 1), Span(2, 5)), (Span(1, 4), Span(0, 1))):
        full = (Span(span.start * reduction, span.count * reduction) for span in (rows, columns))
        found = picture.read(*full, reduction)
        assert found.shape == (rows.count, columns.count, 3)
        difference = np.abs(found - _cut(means, rows, columns))
        assert difference.mean() < 3
        assert difference.max() < 20


@pytest.mark.parametrize("mode", ["L", "P"])
def test_parts_of_labels_keep_their_ids(mode: str) -> None:
    ids = (np.add.outer(np.arange(HEIGHT) // 3, np.arange(WIDTH) // 5) % 21).astype(np.uint8)
    label = Image.fromarray(ids)
    if mode == "P":
        label.putpalette(bytes(range(256)) * 3)
    for data in (_encode(label), _encode(label, "TIFF")):
        np.testing.assert_array_equal(decode_label(data), ids)
        _assert_parts_are_those_of(ids, open_label(data))
        assert open_label(data).reduction(0.1) == 1
    with pytest.raises(ValueError, match="mode 'RGB'"):
        open_label(_encode(_pixels())).read(Span(0, 1), Span(0, 1))


def test_pixels_that_are_there_already() -> None:
    pixels = _pixels()
    _assert_parts_are_those_of(pixels, DecodedPicture(pixels))
    assert DecodedPicture(pixels).reduction(0.1) == 1


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00", b"\x89PNG\r\n\x1a\n", b"no picture", bytes(99)]
)
def test_what_is_no_picture_is_an_error_as_for_the_whole(data: bytes) -> None:
    with pytest.raises(OSError, match="cannot identify"):
        decode_image(data)
    for open_it in (open_image, open_label):
        with pytest.raises(OSError, match="cannot identify"):
            open_it(data)


def test_odd_headers_are_left_to_pillow() -> None:
    png, jpeg = ENCODINGS["PNG RGB"], ENCODINGS["JPEG 2"]
    assert read_header(png) is not None
    assert read_header(png[:28] + b"\x01" + png[29:]) is None, "interlaced"
    assert read_header(_with_chunk(png, b"tEXt", b"Raw profile type exif\0\nexif\n", False)) is None
    frame = jpeg.index(b"\xff\xc0")
    assert read_header(jpeg) is not None
    for marker in (b"\xff\xc3", b"\xff\xc9"):
        assert read_header(jpeg[:frame] + marker + jpeg[frame + 2 :]) is None, "neither baseline nor progressive"
    assert read_header(jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]) is None, "12 bits"
    assert read_header(jpeg[: frame + 5] + b"\0\0" + jpeg[frame + 7 :]) is None, "the height comes later"
    assert read_header(jpeg[:frame]) is None


def test_damage_gives_an_error_or_the_pixels_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    same = 0
    for number in range(200):
        data = bytearray(ENCODINGS[("JPEG 2", "JPEG progressive", "PNG RGB")[number % 3]])
        for place in rng.integers(0, len(data), 2):
            data[place] = rng.integers(0, 256)
        data = data[: rng.integers(len(data) // 2, 2 * len(data))]
        try:
            whole = decode_image(bytes(data))
        except (OSError, ValueError, SyntaxError):
            continue
        picture = open_image(bytes(data))
        assert (picture.height, picture.width) == whole.shape[:2]
        part = picture.read(Span(0, picture.height), Span(0, picture.width))
        np.testing.assert_array_equal(part, whole)
        same += 1
    assert same > 20


def test_a_gigantic_picture_is_refused_by_its_header_with_what_to_do() -> None:
    """20,000 x 20,000 pixels are 400 million; nothing of them is decoded, and all readers say the same."""
    png = _encode(np.zeros((1, 1), np.uint8))
    header = png[12:16] + struct.pack(">II", 20_000, 20_000) + png[24:29]
    png = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    span = Span(0, 20_000)
    for read in (decode_image, decode_label, lambda data: open_image(data).read(span, span), decode_class_map):
        with pytest.raises(ValueError, match=r"more than 178 million pixels, .*; cut it into tiles, or shrink it"):
            read(png)
