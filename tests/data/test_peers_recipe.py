"""Strong views in batches are those of the peers' recipe, which Pillow makes image by image.

One operation at a time with the same number, and the whole recipe in distribution.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from s4mim_hf.data.strong_views import StrongViewConfig, draw_cutmix_mask, draw_strong_parameters, strong_view
from s4mim_hf.data.synthetic import synthetic_split
from s4mim_hf.experiments.benchmarks import loader_reference as peers
from s4mim_hf.randomness import generator

OFF: dict[str, Any] = {
    **dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0),
    **dict.fromkeys(("jitter_probability", "grayscale_probability", "blur_probability"), 0.0),
}


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    return Image.open(io.BytesIO(synthetic_split("labeled")[3]["image"])).convert("RGB").crop((28, 28, 60, 60))


def _tensor(picture: Image.Image, count: int) -> torch.Tensor:
    return (torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255).expand(count, -1, -1, -1)


def _enhanced(enhancer: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda picture, factor: enhancer(picture).enhance(factor)


@pytest.mark.parametrize(
    ("name", "by_pillow", "most", "mean"),
    [
        ("brightness", _enhanced(ImageEnhance.Brightness), 1, 0.6),
        ("contrast", _enhanced(ImageEnhance.Contrast), 2, 0.8),
        ("saturation", _enhanced(ImageEnhance.Color), 2, 0.8),
        # Pillow's hue has 256 steps, and its saturation and value are rounded as well.
        ("hue", peers.shift_hue, 8, 2.0),
    ],
)
def test_an_operation_is_pillows(
    scene: Image.Image, name: str, by_pillow: Callable[[Image.Image, float], Image.Image], most: float, mean: float
) -> None:
    strength = 0.25 if name == "hue" else 0.5
    config = StrongViewConfig(**OFF | {name: strength, "jitter_probability": 1})
    parameters = draw_strong_parameters(12, config, generator(0, name))
    views = strong_view(_tensor(scene, 12), parameters) * 255
    for view, value in zip(views, getattr(parameters, name).tolist(), strict=True):
        expected = np.asarray(by_pillow(scene, value)).transpose(2, 0, 1)
        difference = np.abs(view.numpy() - expected)
        assert difference.max() <= most
        assert difference.mean() <= mean


def test_greyscale_and_blur_are_pillows(scene: Image.Image) -> None:
    grey = strong_view(_tensor(scene, 1), _drawn(1, grayscale_probability=1))[0] * 255
    assert np.abs(grey.numpy() - np.asarray(scene.convert("L"))).max() <= 1
    for sigma in (0.5, 1.0, 2.0):
        drawn = _drawn(1, blur_probability=1, blur_sigma=(sigma, sigma))
        blurred = strong_view(_tensor(scene, 1), drawn)[0] * 255
        expected = np.asarray(scene.filter(ImageFilter.GaussianBlur(sigma))).transpose(2, 0, 1)
        # Pillow approximates the Gaussian by boxes.
        assert np.abs(blurred.numpy() - expected).mean() < 1.5


def _drawn(count: int, **fields: Any) -> Any:
    return draw_strong_parameters(count, StrongViewConfig(**OFF | fields), generator(0, "drawn"))


def _looks(views: torch.Tensor) -> np.ndarray:
    """Return each view's brightness, contrast, colourfulness, redness and sharpness; views float (B, 3, H, W)."""
    grey = views.mean(1)
    sharpness = grey.diff(dim=1).abs().mean((1, 2))
    colors = (views.amax(1) - views.amin(1)).mean((1, 2)), (views[:, 0] - grey).mean((1, 2))
    return torch.stack([grey.mean((1, 2)), grey.std((1, 2)), *colors, sharpness]).numpy()


def test_the_views_are_distributed_as_pillows(scene: Image.Image) -> None:
    count, rng = 500, random.Random(0)
    pictures = [np.array(peers.strong_view(scene, rng)) for _ in range(count)]
    reference = _looks(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255)

    def apart(**fields: Any) -> np.ndarray:
        """Return how far the quantiles of each look lie apart, in its standard deviations."""
        drawn = draw_strong_parameters(count, StrongViewConfig(**fields), generator(0, "views"))
        found = _looks(strong_view(_tensor(scene, count), drawn))
        shares = np.linspace(0.05, 0.95, 10)
        distance = np.quantile(found, shares, axis=1) - np.quantile(reference, shares, axis=1)
        return np.abs(distance).mean(0) / reference.std(1)

    assert apart().max() < 0.13
    # What the comparison is worth: each change of the recipe shows in the look that it is about.
    changes: list[tuple[dict[str, Any], int]] = [
        ({"brightness": 0.2}, 0),
        ({"grayscale_probability": 0.6}, 2),
        ({"hue": 0.05}, 3),
        ({"blur_probability": 0}, 4),
        ({"jitter_probability": 0.2}, 0),
    ]
    for fields, look in changes:
        assert apart(**fields)[look] > 0.2, fields


def test_cutmix_boxes_are_as_large_and_as_frequent_as_the_peers() -> None:
    count, size, rng = 4000, 80, random.Random(0)
    masks = draw_cutmix_mask(count, size, size, StrongViewConfig(), generator(0, "boxes")).flatten(1).float().mean(1)
    boxes = torch.stack([peers.cutmix_box(size, rng).mean() for _ in range(count)])
    for areas in (masks, boxes):
        assert abs((areas > 0).float().mean() - 0.5) < 0.03
        assert areas[areas > 0].min() > 0.015
        assert areas.max() < 0.41
    shares = torch.linspace(0.1, 0.9, 9)
    apart = masks[masks > 0].quantile(shares) - boxes[boxes > 0].quantile(shares)
    assert apart.abs().max() < 0.025
