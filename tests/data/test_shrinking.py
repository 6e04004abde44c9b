"""Large pictures shrink with their labels, as the image processor shrinks them; small ones are not touched."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from s4mim_hf import S4MIMImageProcessor
from s4mim_hf.data.prepared import decode_image
from s4mim_hf.data.shrinking import file_name_of, shrink, shrink_label, shrink_pixels, shrunk_size


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int) -> np.ndarray:
    """Return a picture that is neither flat nor as hard as noise, (height, width, 3)."""
    small = np.random.default_rng(0).integers(0, 256, (height // 24 + 1, width // 24 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def lanczos(values: np.ndarray, new: int) -> np.ndarray:
    """Shrink the first axis with a window of three lobes, by its definition, in float64."""
    scale = len(values) / new
    positions = (np.arange(len(values))[None] + 0.5 - (np.arange(new)[:, None] + 0.5) * scale) / scale
    weights = np.where(np.abs(positions) < 3, np.sinc(positions) * np.sinc(positions / 3), 0)
    return np.tensordot(weights / weights.sum(1, keepdims=True), values, axes=1)


def test_small_pictures_keep_their_bytes() -> None:
    data, ids = encode(Image.fromarray(noise(30, 40)), "JPEG"), np.zeros((30, 40), np.int64)
    for longest in (40, 41, 4000):
        found, label = shrink(data, ids, longest)
        assert found is data
        assert label is ids


def test_large_ones_are_shrunk_by_lanczos_as_the_processor_does() -> None:
    pixels = noise(91, 133)
    data, _ = shrink(encode(Image.fromarray(pixels)), None, 50)
    found = decode_image(data)
    assert found.shape == (34, 50, 3)
    expected = lanczos(lanczos(pixels.astype(float), 34).swapaxes(0, 1), 50).swapaxes(0, 1)
    np.testing.assert_allclose(found, expected.clip(0, 255), atol=1.01)
    processor = S4MIMImageProcessor(max_side=50, do_rescale=False, do_normalize=False)
    shown = processor(Image.fromarray(pixels), return_tensors="np").pixel_values[0]
    np.testing.assert_array_equal(found, np.moveaxis(shown, 0, -1))
    np.testing.assert_array_equal(found, shrink_pixels(pixels, 50))


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((3000, 4000), 1024, (768, 1024)), ((3000, 2), 100, (100, 1)), ((7, 7), 3, (3, 3)), ((5, 4), 5, (5, 4))],
)
def test_sizes(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    assert shrunk_size(*size, longest) == expected


@pytest.mark.parametrize("size", [(50, 34), (7, 1), (100, 131), (91, 133)])
def test_labels_are_taken_at_the_centres(size: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(0, 256, (101, 133), dtype=np.uint8)
    nearest = Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST)
    np.testing.assert_array_equal(shrink_label(ids, size), np.asarray(nearest))
    many = ids.astype(np.int64) * 1000
    np.testing.assert_array_equal(shrink_label(many, size), np.asarray(nearest).astype(np.int64) * 1000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_picture_and_label_stay_on_each_other(kind: str) -> None:
    """A JPEG of 1601 pixels decoded at an eighth has 201, which are 1608: that must not stretch it."""
    ramp = np.repeat((np.arange(1601) + 0.5)[None] / 1601 * 255, 1203, axis=0)
    picture = Image.fromarray(np.repeat(ramp.round().astype(np.uint8)[..., None], 3, axis=2))
    source = encode(picture, kind, **({"quality": 100} if kind == "JPEG" else {}))
    data, label = shrink(source, (ramp * 1000).astype(np.int64), 100)
    assert label is not None
    found = decode_image(data)[..., 1].astype(float)
    assert found.shape == label.shape == (75, 100)
    beside = found - label / 1000
    assert np.abs(beside.mean(0)).max() < 2
    # A stretch by 7 pixels would move the right side by 1.1 against the left.
    assert abs(beside[:, -20:].mean() - beside[:, :20].mean()) < 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, kind: str) -> None:
    stored = Image.fromarray(noise(120, 200))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    source = encode(stored, kind, exif=exif)
    upright = decode_image(source)
    ids = upright[..., 0].astype(np.int64)
    data, label = shrink(source, ids, 50)
    assert label is not None
    found = decode_image(data)
    assert found.shape[:2] == label.shape == ((50, 30) if orientation > 4 else (30, 50))
    np.testing.assert_allclose(found, shrink_pixels(upright, 50), atol=1 if kind == "PNG" else 60)
    assert np.abs(found.astype(float) - shrink_pixels(upright, 50)).mean() < 6
    with Image.open(io.BytesIO(data)) as image:
        assert ImageOps.exif_transpose(image).size == image.size == found.shape[1::-1]
        assert not image.getexif()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("JPEG", "JPEG"),
        ("WEBP", "JPEG"),
        ("MPO", "JPEG"),
        ("PNG", "PNG"),
        ("TIFF", "PNG"),
        ("BMP", "PNG"),
        ("GIF", "PNG"),
    ],
)
def test_what_was_stored_without_loss_stays_so(kind: str, expected: str) -> None:
    data, _ = shrink(encode(Image.fromarray(noise(120, 200)), kind), None, 64)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == (expected, "RGB", (64, 38))
        if expected == "JPEG":
            with Image.open(io.BytesIO(encode(image, "JPEG", quality=95))) as reference:
                assert image.quantization == reference.quantization


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK", "I;16"])
def test_pictures_of_every_mode(mode: str) -> None:
    picture = Image.fromarray(noise(120, 200))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        image = picture.convert(mode)
    data = encode(image, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 100} if mode == "CMYK" else {}))
    found, expected = decode_image(shrink(data, None, 64)[0]), shrink_pixels(decode_image(data), 64)
    assert np.abs(found.astype(float) - expected).mean() < (3 if mode == "CMYK" else 0.01)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_that_are_cut_short(kind: str) -> None:
    data = encode(Image.fromarray(noise(200, 300)), kind)
    with pytest.raises(OSError):  # noqa: PT011  (Pillow words it)
        shrink(data[: len(data) // 2], None, 64)


def test_names_follow_what_is_in_the_file() -> None:
    jpeg, png = encode(Image.new("RGB", (9, 9)), "JPEG"), encode(Image.new("RGB", (9, 9)))
    assert file_name_of("a.b.JPEG", jpeg) == "a.b.JPEG"
    assert file_name_of("a.tif", png) == "a.png"
    assert file_name_of("a.webp", jpeg) == "a.jpg"
    assert file_name_of("a", png) == "a.png"
