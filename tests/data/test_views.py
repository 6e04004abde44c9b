from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from s4mim_hf.data import views
from s4mim_hf.data.decoding import DecodedPicture, Span, open_image
from s4mim_hf.data.views import PADDING_COLOR, WeakViewConfig
from s4mim_hf.randomness import generator


def _picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose first two channels hold a pixel's row and column, and a label that follows from them."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)
    return image, ((rows // 8 + columns // 8) % 5).astype(np.uint8)


def _config(**fields: Any) -> WeakViewConfig:
    return WeakViewConfig(**fields)


def weak_view(
    image: np.ndarray, label: np.ndarray | None, config: WeakViewConfig, draws: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    return views.weak_view(DecodedPicture(image), None if label is None else DecodedPicture(label), config, draws)


def test_shapes_and_types() -> None:
    image, label = _picture(40, 60)
    view, label_view, valid = weak_view(image, label, _config(crop_size=33), generator(0, "x"))
    assert (view.shape, view.dtype) == ((3, 33, 33), torch.uint8)
    assert label_view is not None
    assert (label_view.shape, label_view.dtype) == ((33, 33), torch.uint8)
    assert (valid.shape, valid.dtype) == ((33, 33), torch.bool)
    assert view.is_contiguous()
    assert label_view.is_contiguous()
    assert valid.is_contiguous()
    assert weak_view(image, None, _config(crop_size=33), generator(0, "x"))[1] is None


def test_the_same_generator_gives_the_same_view_with_and_without_a_label() -> None:
    image, label = _picture(50, 50)
    config = _config(crop_size=24)
    with_label = weak_view(image, label, config, generator(1, "x"))
    without = weak_view(image, None, config, generator(1, "x"))
    assert torch.equal(with_label[0], without[0])
    assert torch.equal(with_label[2], without[2])
    assert not torch.equal(with_label[0], weak_view(image, label, config, generator(2, "x"))[0])


def test_unscaled_crops_are_pixels_of_the_image_and_agree_with_their_labels() -> None:
    image, label = _picture(45, 70)
    config = _config(crop_size=20, scale_range=(1, 1))
    corners, flips = set(), 0
    for step in range(200):
        view, label_view, valid = weak_view(image, label, config, generator(0, "x", step))
        assert label_view is not None
        rows, columns = view[0].numpy(), view[1].numpy()
        assert valid.all()
        assert (np.diff(rows, axis=0) == 1).all()
        flips += int(columns[0, 1] < columns[0, 0])
        corners.add((rows.min(), columns.min()))
        assert np.array_equal(view.numpy(), image[rows, columns].transpose(2, 0, 1))
        assert np.array_equal(label_view.numpy(), label[rows, columns])
    assert 70 <= flips <= 130
    assert min(corner[0] for corner in corners) == 0
    assert max(corner[0] for corner in corners) == 25
    assert min(corner[1] for corner in corners) <= 1
    assert max(corner[1] for corner in corners) >= 49


def _drawn_span(length: int, size: int, scale: float, draw: float) -> Span:
    count = min(round(size / scale), length)
    return Span(int(draw * (length - count + 1)), count)


def _weights(count: int, length: int) -> np.ndarray:
    """Return the share of each of `count` pixels in each of `length`: a triangle as wide as a pixel of either."""
    ratio = count / length
    centers, reach = (np.arange(length) + 0.5) * ratio, max(1.0, ratio)
    triangle = np.clip(1 - np.abs(np.arange(count) + 0.5 - centers[:, None]) / reach, 0, None)
    return triangle / triangle.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.0, 1.31, 2.0])
def test_a_scaled_crop_is_the_part_that_was_drawn_bilinearly_resized(scale: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (57, 83, 3), dtype=np.uint8)
    label = noise[..., 0] % 7
    config = _config(crop_size=24, scale_range=(scale, scale), flip_probability=0)
    for step in range(10):
        view, label_view, valid = weak_view(noise, label, config, generator(0, "x", step))
        assert label_view is not None
        assert valid.all()
        _, top_draw, left_draw, _ = torch.rand(4, generator=generator(0, "x", step), dtype=torch.float64).tolist()
        rows, columns = _drawn_span(57, 24, scale, top_draw), _drawn_span(83, 24, scale, left_draw)
        part = noise[rows.start : rows.stop, columns.start : columns.stop].astype(float)
        expected = np.einsum("ij,jkc,lk->cil", _weights(rows.count, 24), part, _weights(columns.count, 24))
        # Two passes round to 8 bits each.
        assert np.abs(view.numpy() - expected).max() <= 1.2
        below = [np.floor((np.arange(24) + 0.5) * span.count / 24).astype(int) + span.start for span in (rows, columns)]
        assert np.array_equal(label_view.numpy(), label[below[0]][:, below[1]])


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.3, 2.0])
def test_a_small_image_is_resized_whole_as_pillow_does_it(scale: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (57, 83, 3), dtype=np.uint8)
    height, width = round(57 * scale), round(83 * scale)
    config = _config(crop_size=170, scale_range=(scale, scale), flip_probability=0)
    view, _, valid = weak_view(noise, None, config, generator(0, "x"))
    assert valid.sum() == height * width
    whole = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(view[:, :height, :width].numpy() - whole.transpose(2, 0, 1)).max() <= 1


def _coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose first channel holds a pixel's column, and a label that does."""
    columns = np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width))
    return np.stack([columns] * 3, axis=-1), columns


@pytest.mark.parametrize("crop_size", [40, 64, 200])
def test_an_image_and_its_label_show_the_same_place_at_every_scale_and_flip(crop_size: int) -> None:
    image, label = _coordinates(60, 160)
    config = _config(crop_size=crop_size, scale_range=(0.3, 3))
    slopes = []
    for step in range(30):
        view, label_view, valid = weak_view(image, label, config, generator(0, "x", step))
        assert label_view is not None
        # A pixel shows its centre: half a column away from the one below it at most, and rounded.
        difference = view[0].float() - label_view.float()
        assert difference[valid].abs().max() <= 1
        line = view[0][valid.any(1)][0][valid.any(0)].double()
        slopes.append(1 / float((line[-1] - line[0]).abs() / (len(line) - 1)))
    draws = [float(torch.rand(1, generator=generator(0, "x", step), dtype=torch.float64)) for step in range(30)]
    # The ends of a line lie up to half a column off, as does the end of the part.
    np.testing.assert_allclose(slopes, 0.3 + 2.7 * np.array(draws), rtol=0.11)


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


@pytest.mark.parametrize(("height", "width", "crop_size"), [(90, 253, 20), (91, 254, 20), (90, 253, 120), (90, 9, 20)])
def test_a_jpeg_that_is_reduced_as_it_is_decoded_shows_what_its_pixels_would(
    height: int, width: int, crop_size: int
) -> None:
    image, label = _coordinates(height, width)
    config = _config(crop_size=crop_size, scale_range=(0.1, 0.6))
    reductions, shifts = set(), []
    for step in range(40):
        data = _jpeg(image)
        view, label_view, valid = views.weak_view(
            open_image(data), DecodedPicture(label), config, generator(0, "x", step)
        )
        assert label_view is not None
        scale = 0.1 + 0.5 * float(torch.rand(1, generator=generator(0, "x", step), dtype=torch.float64))
        reductions.add(open_image(data).reduction(scale))
        # A pixel of the view is up to ten columns wide; the label is the column below its centre.
        errors = (view[0].float() - label_view.float())[valid]
        assert errors.abs().max() <= 0.5 / scale + 3
        shifts.append(float(errors.mean()))
        whole = weak_view(np.array(Image.open(io.BytesIO(data))), label, config, generator(0, "x", step))
        assert torch.equal(valid, whole[2])
        assert (view[0].float() - whole[0][0].float())[valid].abs().mean() <= 1 / scale + 3
    assert reductions >= {1, 2, 4}
    assert abs(np.mean(shifts)) < 0.3, "not shifted to one side"


def test_small_images_are_padded_right_and_bottom_and_the_padding_is_known() -> None:
    image, label = _picture(20, 30)
    config = _config(crop_size=48, scale_range=(1, 1), flip_probability=0)
    view, label_view, valid = weak_view(image, label, config, generator(0, "x"))
    assert label_view is not None
    assert valid[:20, :30].all()
    assert valid.sum() == 20 * 30
    assert np.array_equal(view[:, :20, :30].numpy(), image.transpose(2, 0, 1))
    assert torch.equal(label_view != 255, valid)
    assert all((view[channel][~valid] == PADDING_COLOR[channel]).all() for channel in range(3))
    flipped = weak_view(image, label, _config(crop_size=48, scale_range=(1, 1), flip_probability=1), generator(0, "x"))
    for one, other in zip((view, label_view, valid), flipped, strict=True):
        assert other is not None
        assert torch.equal(one.flip(-1), other)


def test_scales_are_uniform_in_their_range() -> None:
    image = np.zeros((50, 2, 3), np.uint8)
    config = _config(crop_size=100)
    sides = [float(weak_view(image, None, config, generator(0, "s", i))[2].any(1).sum()) for i in range(300)]
    scales = np.array(sides) / 50
    assert scales.min() < 0.52
    assert scales.max() > 1.98
    assert abs(scales.mean() - 1.25) < 0.08


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 200), (321, 2)])
def test_extreme_images(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 9, np.uint8)
    for step in range(5):
        view, _, valid = weak_view(image, np.zeros(size, np.uint8), _config(crop_size=17), generator(0, "x", step))
        assert valid.any()
        assert (view[:, valid] == 9).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(4, 6\)"):
        weak_view(np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5), np.uint8), _config(), generator(0, "x"))
    for fields in ({"crop_size": 0}, {"scale_range": (2, 1)}, {"scale_range": (0, 1)}, {"flip_probability": 1.1}):
        with pytest.raises(ValidationError):
            _config(**fields)
    with pytest.raises(ValidationError, match="crop_sise"):
        _config(crop_sise=3)
