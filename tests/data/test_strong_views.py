from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from pydantic import ValidationError

from s4mim_hf.data.strong_views import (
    StrongParameters,
    StrongViewConfig,
    cutmix,
    draw_cutmix_mask,
    draw_strong_parameters,
    normalize,
    strong_view,
)
from s4mim_hf.randomness import generator

OFF: dict[str, Any] = {"jitter_probability": 0, "grayscale_probability": 0, "blur_probability": 0}


def _images(batch_size: int = 4, height: int = 19, width: int = 23) -> torch.Tensor:
    return torch.rand(batch_size, 3, height, width, generator=generator(0, "images"))


def _draw(batch_size: int = 4, step: int = 0, **fields: Any) -> StrongParameters:
    return draw_strong_parameters(batch_size, StrongViewConfig(**fields), generator(0, "strong", step))


def _gray(image: np.ndarray) -> np.ndarray:
    return np.tensordot([0.299, 0.587, 0.114], image, axes=1)[None]


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(image * factor, 0, 1)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(factor * image + (1 - factor) * _gray(image).mean(), 0, 1)


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(factor * image + (1 - factor) * _gray(image), 0, 1)


def _hue(image: np.ndarray, turns: float) -> np.ndarray:
    def rotate(pixel: np.ndarray) -> tuple[float, float, float]:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)

    return np.apply_along_axis(rotate, 0, image)


def _blurred(image: np.ndarray, sigma: float, kernel_size: int) -> np.ndarray:
    """Blur by the definition: a sum over the window, the border's pixels repeated."""
    reach = kernel_size // 2
    weights = np.array([math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-reach, reach + 1)])
    window = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    patches = np.lib.stride_tricks.sliding_window_view(padded, window.shape, axis=(1, 2))
    return np.einsum("chwij,ij->chw", patches, window)


REFERENCE = {0: _brightness, 1: _contrast, 2: _saturation, 3: _hue}


def _reference(image: np.ndarray, parameters: StrongParameters, row: int) -> np.ndarray:
    values = (parameters.brightness, parameters.contrast, parameters.saturation, parameters.hue)
    if parameters.jitter[row]:
        for operation in parameters.order[row].tolist():
            image = REFERENCE[operation](image, float(values[operation][row]))
    if parameters.grayscale[row]:
        image = np.repeat(_gray(image), 3, axis=0)
    if parameters.blur[row]:
        image = _blurred(image, float(parameters.sigma[row]), parameters.kernel_size)
    return image


@pytest.mark.parametrize("step", range(4))
def test_equals_the_formulas_image_by_image(step: int) -> None:
    images = _images(8)
    parameters = _draw(8, step=step)
    views = strong_view(images, parameters)
    for row in range(8):
        expected = _reference(images[row].double().numpy(), parameters, row)
        assert np.abs(views[row].numpy() - expected).max() < 2e-5


@pytest.mark.parametrize("operation", range(4))
def test_each_jitter_operation_alone(operation: int) -> None:
    names = ["brightness", "contrast", "saturation", "hue"]
    strengths = dict.fromkeys(names, 0.0) | {names[operation]: 0.4}
    images = _images()
    parameters = _draw(4, 0, **OFF | strengths | {"jitter_probability": 1})
    values = getattr(parameters, names[operation])
    assert values.unique().numel() == 4
    views = strong_view(images, parameters)
    for row in range(4):
        expected = REFERENCE[operation](images[row].double().numpy(), float(values[row]))
        assert np.abs(views[row].numpy() - expected).max() < 1e-5


def test_blur_is_like_pillows() -> None:
    images = _images(1, 40, 40)
    parameters = _draw(1, **{**OFF, "blur_probability": 1}, blur_sigma=(1.5, 1.5))
    blurred = strong_view(images, parameters)[0]
    picture = Image.fromarray((images[0] * 255).round().byte().permute(1, 2, 0).numpy())
    pillow = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5))) / 255
    # Pillow approximates the Gaussian by box filters.
    assert np.abs(blurred.permute(1, 2, 0).numpy() - pillow).mean() < 0.02


def test_an_image_does_not_depend_on_its_neighbours_and_the_input_is_kept() -> None:
    images = _images(6)
    kept = images.clone()
    parameters = _draw(6)
    views = strong_view(images, parameters)
    assert torch.equal(images, kept)
    other = images.clone()
    other[3] = 0.5
    changed = strong_view(other, parameters)
    rows = [0, 1, 2, 4, 5]
    assert torch.equal(changed[rows], views[rows])


def test_nothing_happens_where_nothing_is_drawn() -> None:
    images = _images()
    assert torch.equal(strong_view(images, _draw(**OFF)), images)


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (64, 64)])
def test_any_size_stays_in_range(size: tuple[int, int]) -> None:
    views = strong_view(_images(5, *size), _draw(5))
    assert views.shape == (5, 3, *size)
    assert views.isfinite().all()
    assert views.min() >= 0
    assert views.max() <= 1


def test_autocast_changes_nothing() -> None:
    images, parameters = _images(), _draw()
    expected = strong_view(images, parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(strong_view(images, parameters), expected)


def test_draws_have_the_asked_distributions() -> None:
    count = 20_000
    drawn = _draw(count)
    for coins, probability in ((drawn.jitter, 0.8), (drawn.grayscale, 0.2), (drawn.blur, 0.5)):
        assert abs(coins.float().mean() - probability) < 0.015
    bounds = {"brightness": (0.5, 1.5), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-0.25, 0.25)}
    bounds["sigma"] = (0.1, 2.0)
    for name, (low, high) in bounds.items():
        values = getattr(drawn, name)
        assert low <= values.min()
        assert values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.02 * (high - low)
        assert abs(values.var() - (high - low) ** 2 / 12) < 0.01 * (high - low) ** 2
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > count / 24 * 0.8
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(24, 4))
    together = torch.stack([drawn.jitter, drawn.grayscale, drawn.blur]).float()
    assert (torch.corrcoef(together) - torch.eye(3)).abs().max() < 0.03


def test_the_draws_of_one_purpose_do_not_depend_on_anothers_probability() -> None:
    one, other = _draw(16), _draw(16, blur_probability=0.1, hue=0.0)
    assert torch.equal(one.brightness, other.brightness)
    assert torch.equal(one.order, other.order)
    assert torch.equal(one.jitter, other.jitter)


def _masks(count: int, height: int, width: int, **fields: Any) -> torch.Tensor:
    return draw_cutmix_mask(count, height, width, StrongViewConfig(**fields), generator(0, "cutmix"))


@pytest.mark.parametrize("size", [(80, 80), (60, 110), (120, 40)])
def test_cutmix_masks_are_boxes_of_the_drawn_area(size: tuple[int, int]) -> None:
    masks = _masks(2000, *size, cutmix_probability=1)
    assert (masks.shape, masks.dtype) == ((2000, 1, *size), torch.bool)
    heights, widths = masks[:, 0].any(2).sum(1), masks[:, 0].any(1).sum(1)
    areas = masks.flatten(1).sum(1)
    assert torch.equal(areas, heights * widths)
    total = size[0] * size[1]
    # Rounding moves each side by at most half a pixel.
    assert (areas >= 0.02 * total - heights - widths).all()
    assert (areas <= 0.4 * total + heights + widths).all()
    assert abs(areas.float().mean() / total - 0.21) < 0.01
    assert masks[:, 0].float().mean(0).min() > 0, "no place is out of reach"


def test_cutmix_boxes_are_uniform_in_place_and_half_of_the_images_have_none() -> None:
    masks = _masks(4000, 64, 64)
    has_box = masks.flatten(1).any(1)
    assert abs(has_box.float().mean() - 0.5) < 0.03
    cover = masks[:, 0].float().mean(0)
    assert (cover - cover.flip(0)).abs().max() < 0.04
    assert (cover - cover.flip(1)).abs().max() < 0.04
    assert not _masks(50, 8, 8, cutmix_probability=0).any()
    assert _masks(50, 1, 1, cutmix_probability=1).all()


@pytest.mark.parametrize("partner", [None, [2, 2, 0]])
def test_cutmix_equals_a_loop_for_every_kind_of_map(partner: list[int] | None) -> None:
    mask = _masks(3, 9, 11, cutmix_probability=1)
    rows = partner or [2, 0, 1]
    order = None if partner is None else torch.tensor(partner)
    for tensor in (_images(3, 9, 11), torch.arange(3 * 99).view(3, 9, 11), torch.rand(3, 9, 11) > 0.5):
        kept = tensor.clone()
        expected = tensor.clone()
        for row in range(3):
            inside = mask[row, 0]
            expected[row][..., inside] = tensor[rows[row]][..., inside]
        mixed = cutmix(tensor, mask, order)
        assert mixed.dtype == tensor.dtype
        assert torch.equal(mixed, expected)
        assert torch.equal(tensor, kept)


def test_normalize() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = (torch.rand(2, 3, 5, 6) * 255).byte()
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert normalize(images, mean, std).dtype == torch.float32
    assert torch.allclose(normalize(images, mean, std).double(), expected, atol=1e-5)
    assert torch.allclose(normalize(images / 255, mean, std).double(), expected, atol=1e-5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="uint8"):
        strong_view(torch.zeros(4, 3, 5, 5, dtype=torch.uint8), _draw())
    with pytest.raises(ValueError, match="3 images, but parameters drawn for 4"):
        strong_view(_images(3), _draw(4))
    bad: list[dict[str, Any]] = [
        {"hue": 0.6},
        {"brightness": -0.1},
        {"jitter_probability": 2},
        {"blur_sigma": (2, 1)},
        {"blur_sigma": (0, 1)},
        {"cutmix_area": (0.1, 1.5)},
        {"cutmix_aspect": (0, 1)},
    ]
    for fields in bad:
        with pytest.raises(ValidationError):
            StrongViewConfig(**fields)
    with pytest.raises(ValidationError, match="huee"):
        StrongViewConfig(huee=0.1)  # type: ignore[call-arg]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu_and_the_views_are_the_cpus() -> None:
    images, parameters = _images(8, 64, 64), _draw(8)
    mask = _masks(8, 64, 64)
    on_device, device_mask = images.cuda(), mask.cuda()
    strong_view(on_device, parameters)
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = normalize(cutmix(strong_view(on_device, parameters), device_mask), (0.5,) * 3, (0.2,) * 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = normalize(cutmix(strong_view(images, parameters), mask), (0.5,) * 3, (0.2,) * 3)
    assert torch.allclose(views.cpu(), expected, atol=1e-3)
