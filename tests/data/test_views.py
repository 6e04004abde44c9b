from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from s4mim_hf.data.views import PADDING_COLOR, WeakViewConfig, weak_view
from s4mim_hf.randomness import generator


def _picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose first two channels hold a pixel's row and column, and a label that follows from them."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)
    return image, ((rows // 8 + columns // 8) % 5).astype(np.uint8)


def _config(**fields: Any) -> WeakViewConfig:
    return WeakViewConfig(**fields)


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


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.0, 1.31, 2.0])
def test_a_scaled_crop_is_the_crop_of_the_scaled_image(scale: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (57, 83, 3), dtype=np.uint8)
    label = noise[..., 0] % 7
    height, width = round(57 * scale), round(83 * scale)
    whole = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    rows = np.floor((np.arange(height) + 0.5) * 57 / height).astype(int)
    columns = np.floor((np.arange(width) + 0.5) * 83 / width).astype(int)
    whole_label = label[rows][:, columns]
    config = _config(crop_size=24, scale_range=(scale, scale), flip_probability=0)
    for step in range(10):
        view, label_view, valid = weak_view(noise, label, config, generator(0, "x", step))
        assert label_view is not None
        assert valid.all()
        windows = np.lib.stride_tricks.sliding_window_view(whole_label, (24, 24))
        found = np.argwhere((windows == label_view.numpy()).all((2, 3)))
        assert len(found) == 1
        top, left = found[0]
        expected = whole[top : top + 24, left : left + 24].transpose(2, 0, 1)
        # Pillow keeps the box in single precision: a weight may round to the other side.
        assert np.abs(view.numpy() - expected).max() <= 1


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
