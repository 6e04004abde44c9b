"""Weak views, made in the data loader's workers: random scale, crop and flip of one image, in 8 bits.

H, W: an image's own height and width; S: the side of the crop. `valid` is True where a pixel comes from the image and
False on padding; labels are 255 (ignore) on padding.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from s4mim_hf.data.decoding import Picture, Span

IGNORE_INDEX = 255
# ImageNet's mean colour: after normalisation padding is (nearly) zero, as a convolution's own padding is.
PADDING_COLOR = (124, 116, 104)


def ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    """Refuse, by a ValueError, a range that is not 0 < low <= high."""
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"expected 0 < low <= high, found {bounds}")
    return bounds


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class WeakViewConfig:
    """The weak augmentation.

    Args:
        crop_size: side S of the square crop, in pixels.
        scale_range: lowest and highest factor by which the image is resized, drawn uniformly.
        flip_probability: how often the crop is mirrored left to right.
    """

    crop_size: int = Field(default=321, ge=1)
    scale_range: Annotated[tuple[float, float], AfterValidator(ascending)] = (0.5, 2.0)
    flip_probability: float = Field(default=0.5, ge=0, le=1)


def weak_view(
    image: Picture, label: Picture | None, config: WeakViewConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return a random scale, crop and flip of one image and of its label map.

    The crop is cut out on whole pixels of the image and then resized, so that nothing else need be decoded: the scale
    is the one drawn to within half a pixel of the crop. Where the scaled image is smaller than the crop it is padded at
    the right and bottom (before the flip).

    Args:
        image: RGB.
        label: class ids or 255, or None.
        config: sizes and probabilities.
        generator: a CPU generator; four numbers are drawn from it whatever the configuration.

    Returns:
        the image uint8 (3, S, S), the label uint8 (S, S) or None, and valid bool (S, S).

    Raises:
        OSError: a picture that cannot be decoded.
        ValueError: likewise, or the label's size is not the image's.
    """
    if label is not None and (label.height, label.width) != (image.height, image.width):
        raise ValueError(
            f"the label map has size {(label.height, label.width)}, but its image has {(image.height, image.width)}"
        )
    scale_draw, top_draw, left_draw, flip_draw = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    low, high = config.scale_range
    scale = low + (high - low) * scale_draw
    reduction, size = image.reduction(scale), config.crop_size
    rows = _draw_axis(image.height, scale, reduction, size, top_draw)
    columns = _draw_axis(image.width, scale, reduction, size, left_draw)
    flipped = flip_draw < config.flip_probability
    # Padding ends up at the left of a flipped crop.
    left = size - columns.length if flipped else 0
    inside = slice(0, rows.length), slice(left, left + columns.length)
    step = -1 if flipped else 1

    # numpy writes with strides in half of torch's time.
    pixels = _resized(image.read(rows.source, columns.source, reduction), rows.length, columns.length)
    view = np.empty((3, size, size), np.uint8)
    valid = np.zeros((size, size), bool)
    if pixels.shape[:2] != (size, size):
        view[:] = np.array(PADDING_COLOR, np.uint8)[:, None, None]
    view[:, *inside] = pixels[:, ::step].transpose(2, 0, 1)
    valid[inside] = True
    if label is None:
        return torch.from_numpy(view), None, torch.from_numpy(valid)
    ids = label.read(rows.source, columns.source)
    label_view = np.full((size, size), IGNORE_INDEX, np.uint8)
    label_view[inside] = ids[rows.nearest()][:, columns.nearest()[::step]]
    return torch.from_numpy(view), torch.from_numpy(label_view), torch.from_numpy(valid)


class _Axis(NamedTuple):
    """One axis of a crop: the pixels `source` of the image are resized to `length` pixels."""

    source: Span
    length: int

    def nearest(self) -> np.ndarray:
        """Return which pixel of the source lies below the centre of each of the crop's, in exact integer arithmetic."""
        return (2 * np.arange(self.length) + 1) * self.source.count // (2 * self.length)


def _draw_axis(length: int, scale: float, reduction: int, size: int, draw: float) -> _Axis:
    """Place the crop on an axis of `length` pixels, on whole pixels of the reduced image.

    A reduced image may end with a pixel of which only a part is covered: it is left out, less than a pixel of the view.
    """
    scaled, available = max(1, round(length * scale)), length // reduction
    if scaled <= size:
        return _Axis(Span(0, available * reduction), scaled)
    count = min(max(1, round(size / (scale * reduction))), available)
    start = int(draw * (available - count + 1))
    return _Axis(Span(start * reduction, count * reduction), size)


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (h, w, 3) to (height, width, 3), bilinearly, with a wider filter to shrink, as Pillow does."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # On 8 bits and channels that lie side by side, this is several times as fast as Pillow.
    batch = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
    resized = F.interpolate(batch, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
