"""Strong views of a batch on its device: colour jitter, grayscale, blur, and CutMix.

B: images in the batch; H, W: height and width. Images are RGB in [0, 1] here and are normalised afterwards.
A CutMix mask is True where a pixel is taken from the partner image.

All parameters are drawn on the CPU from an explicit generator, so the same seed gives the same views on any device, and
which images an operation touches is known on the host: no step waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from s4mim_hf.data.views import ascending
from s4mim_hf.transfers import to_device

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]


def _share(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[1] > 1:
        raise ValueError(f"expected shares of the image of at most 1, found {bounds}")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(ascending)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class StrongViewConfig:
    """The strong augmentation; the defaults are those that UniMatch and its successors use.

    Args:
        brightness: x, for a factor drawn uniformly from [1 - x, 1 + x].
        contrast: likewise.
        saturation: likewise.
        hue: x, for a rotation of the hue drawn uniformly from [-x, x], in turns.
        jitter_probability: how often the four above are applied to an image, in a random order.
        grayscale_probability: how often an image loses its colours.
        blur_probability: how often an image is blurred.
        blur_sigma: lowest and highest standard deviation of the Gaussian, in pixels.
        cutmix_probability: how often an image gets a box of its partner.
        cutmix_area: smallest and largest area of the box, as shares of the image.
        cutmix_aspect: lowest and highest ratio of the box's height to its width.
    """

    brightness: Strength = 0.5
    contrast: Strength = 0.5
    saturation: Strength = 0.5
    hue: float = Field(default=0.25, ge=0, le=0.5)
    jitter_probability: Probability = 0.8
    grayscale_probability: Probability = 0.2
    blur_probability: Probability = 0.5
    blur_sigma: Range = (0.1, 2.0)
    cutmix_probability: Probability = 0.5
    cutmix_area: Annotated[Range, AfterValidator(_share)] = (0.02, 0.4)
    cutmix_aspect: Range = (0.3, 1 / 0.3)


class StrongParameters(NamedTuple):
    """One draw of the strong view for a batch: CPU tensors whose first dimension is B.

    `jitter`, `grayscale` and `blur` are bool (B,); `brightness`, `contrast`, `saturation` (factors), `hue` (turns) and
    `sigma` (pixels) are float32 (B,); `order` is int64 (B, 4), a permutation of the four jitter operations, in which 0
    is brightness, 1 contrast, 2 saturation and 3 hue; `kernel_size` is the odd width of the blur for the whole batch.
    """

    jitter: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor
    hue: torch.Tensor
    order: torch.Tensor
    grayscale: torch.Tensor
    blur: torch.Tensor
    sigma: torch.Tensor
    kernel_size: int


def draw_strong_parameters(batch_size: int, config: StrongViewConfig, generator: torch.Generator) -> StrongParameters:
    """Draw the parameters of one strong view for B images.

    The number of draws does not depend on the configuration: changing one probability leaves the other draws alone.

    Args:
        batch_size: B.
        config: strengths and probabilities.
        generator: a CPU generator.
    """
    coins = torch.rand(3, batch_size, generator=generator)
    values = torch.rand(5, batch_size, generator=generator)
    order = torch.rand(batch_size, 4, generator=generator).argsort(dim=1)
    low, high = config.blur_sigma
    return StrongParameters(
        jitter=coins[0] < config.jitter_probability,
        brightness=1 + config.brightness * (2 * values[0] - 1),
        contrast=1 + config.contrast * (2 * values[1] - 1),
        saturation=1 + config.saturation * (2 * values[2] - 1),
        hue=config.hue * (2 * values[3] - 1),
        order=order,
        grayscale=coins[1] < config.grayscale_probability,
        blur=coins[2] < config.blur_probability,
        sigma=low + (high - low) * values[4],
        # Three standard deviations of the widest blur hold 99.7% of its weight.
        kernel_size=2 * math.ceil(3 * high) + 1,
    )


@torch.no_grad()
def strong_view(images: torch.Tensor, parameters: StrongParameters) -> torch.Tensor:
    """Return the strong view of a batch: jitter in each image's own order, then grayscale, then blur.

    Args:
        images: float (B, 3, H, W) in [0, 1] on any device; not changed.
        parameters: as drawn by `draw_strong_parameters` for the same B.

    Returns:
        float (B, 3, H, W) in [0, 1], on the same device.

    Raises:
        ValueError: where the images are not RGB floats or the batch sizes differ.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images must be float (B, 3, H, W), found {images.dtype} of shape {tuple(images.shape)}")
    if len(images) != len(parameters.jitter):
        raise ValueError(f"{len(images)} images, but parameters drawn for {len(parameters.jitter)}")
    views = images.clone()
    # In half precision a hue would move by itself and a blur would lose its weights.
    with torch.autocast(device_type=images.device.type, enabled=False):
        for turn in range(4):
            for operation, (function, values) in enumerate(_jitter_operations(parameters)):
                _apply(views, parameters.jitter & (parameters.order[:, turn] == operation), function, values)
        _apply(views, parameters.grayscale, _grayscale)
        kernels = get_gaussian_kernel1d(parameters.kernel_size, parameters.sigma[:, None])
        _apply(views, parameters.blur, _blur, kernels)
    return views


def _jitter_operations(parameters: StrongParameters) -> list[tuple[Callable[..., torch.Tensor], torch.Tensor]]:
    # kornia's plain adjust_brightness adds; these forms are Pillow's and torchvision's. Its hue is in radians.
    return [
        (adjust_brightness_accumulative, parameters.brightness),
        (adjust_contrast_with_mean_subtraction, parameters.contrast),
        (adjust_saturation_with_gray_subtraction, parameters.saturation),
        (adjust_hue, 2 * math.pi * parameters.hue),
    ]


def _grayscale(images: torch.Tensor) -> torch.Tensor:
    return rgb_to_grayscale(images).expand_as(images)


def _blur(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    # Replicated borders, as Pillow's blur has them, work for images smaller than the kernel too.
    return filter2d_separable(images, kernels, kernels, border_type="replicate").clamp(0, 1)


def _apply(
    views: torch.Tensor, chosen: torch.Tensor, function: Callable[..., torch.Tensor], *values: torch.Tensor
) -> None:
    """Replace the chosen rows of `views` by `function(rows, values of these rows)`, in place.

    `chosen` (bool (B,)) and `values` (B, ...) are on the CPU: picking rows there keeps the host from waiting for the
    device, and rows that are not chosen cost nothing.
    """
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return
    device_rows = to_device(rows, views.device)
    arguments = [to_device(value[rows], views.device, views.dtype) for value in values]
    views.index_copy_(0, device_rows, function(views.index_select(0, device_rows), *arguments).to(views.dtype))


def draw_cutmix_mask(
    batch_size: int,
    height: int,
    width: int,
    config: StrongViewConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Draw one box per image, or none, with the configuration's probability.

    Area and aspect are drawn uniformly, and the place uniformly among those inside the image. A box that would be
    longer than the image is cut to its side and widened instead, so its area is the one drawn (to within rounding).

    Args:
        batch_size: B.
        height: H, in pixels.
        width: W, in pixels.
        config: the `cutmix_*` fields are read.
        generator: a CPU generator; five numbers per image are drawn whatever the configuration.
        device: where the mask is put together, from rows and columns: a copy of all its pixels would be waited for.

    Returns:
        bool (B, 1, H, W) on `device`, True where the partner's pixels go.
    """
    coin, area_draw, aspect_draw, top_draw, left_draw = torch.rand(
        5, batch_size, generator=generator, dtype=torch.float64
    )
    area = height * width * _between(config.cutmix_area, area_draw)
    aspect = _between(config.cutmix_aspect, aspect_draw)
    box_height = (area * aspect).sqrt().clamp(max=height)
    box_width = (area / box_height).clamp(max=width)
    box_height = (area / box_width).clamp(max=height).round().clamp(min=1)
    box_width = box_width.round().clamp(min=1)
    top = (top_draw * (height - box_height + 1)).floor()
    left = (left_draw * (width - box_width + 1)).floor()
    inside_rows = _inside(height, top, box_height) & (coin < config.cutmix_probability)[:, None]
    inside_columns = _inside(width, left, box_width)
    rows, columns = (to_device(sides, device) for sides in (inside_rows, inside_columns))
    return rows[:, None, :, None] & columns[:, None, None, :]


def _between(bounds: tuple[float, float], draw: torch.Tensor) -> torch.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _inside(length: int, start: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(length)
    return (positions >= start[:, None]) & (positions < (start + count)[:, None])


def cutmix(tensor: torch.Tensor, mask: torch.Tensor, partner: torch.Tensor | None = None) -> torch.Tensor:
    """Put each image's partner into its box; for images, pseudo-labels, confidences and validity alike.

    Args:
        tensor: (B, H, W) or (B, C, H, W) of any dtype.
        mask: bool (B, 1, H, W), True where the partner's values go; on the tensor's device.
        partner: int64 (B,), each image's partner, on the tensor's device. Where None it is the image before (the last
            image for the first).

    Returns:
        a new tensor of the same shape, dtype and device.
    """
    others = tensor.roll(1, dims=0) if partner is None else tensor.index_select(0, partner)
    return torch.where(mask if tensor.ndim == 4 else mask[:, 0], others, tensor)


def normalize(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return images with each channel's mean taken off and divided by its standard deviation.

    Args:
        images: (B, 3, H, W), uint8 in 0..255 or float in [0, 1].
        mean: per channel, on the scale of [0, 1].
        std: likewise.

    Returns:
        float32 (or the images' own floating type) (B, 3, H, W).
    """
    floats = images if images.is_floating_point() else images.to(torch.float32) / 255
    # torch.tensor(..., device=...) would wait for the device.
    scale = to_device(torch.tensor([list(mean), list(std)], dtype=floats.dtype), floats.device)
    return (floats - scale[0, :, None, None]) / scale[1, :, None, None]
