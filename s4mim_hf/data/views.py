"""Weak views, made in the data loader's workers: random scale, crop and flip of one image, in 8 bits.

H, W: an image's own height and width; S: the side of the crop. `valid` is True where a pixel comes from the image and
False on padding; labels are 255 (ignore) on padding.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

IGNORE_INDEX = 255
# ImageNet's mean colour: after normalisation padding is (nearly) zero, as a convolution's own padding is.
PADDING_COLOR = (124, 116, 104)


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
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
    scale_range: Annotated[tuple[float, float], AfterValidator(_ascending)] = (0.5, 2.0)
    flip_probability: float = Field(default=0.5, ge=0, le=1)


def weak_view(
    image: np.ndarray, label: np.ndarray | None, config: WeakViewConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return a random scale, crop and flip of one image and of its label map.

    Only the crop's pixels are resized. Where the scaled image is smaller than the crop it is padded at the right and
    bottom (before the flip).

    Args:
        image: uint8 (H, W, 3), RGB.
        label: uint8 (H, W), class ids or 255, or None.
        config: sizes and probabilities.
        generator: a CPU generator; four numbers are drawn from it whatever the configuration.

    Returns:
        the image uint8 (3, S, S), the label uint8 (S, S) or None, and valid bool (S, S).

    Raises:
        ValueError: where the label's size is not the image's.
    """
    height, width = image.shape[:2]
    if label is not None and label.shape != (height, width):
        raise ValueError(f"the label map has size {label.shape}, but its image has {(height, width)}")
    scale_draw, top_draw, left_draw, flip_draw = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    low, high = config.scale_range
    scale = low + (high - low) * scale_draw
    size = config.crop_size
    rows = _crop_span(height, max(1, round(height * scale)), size, top_draw)
    columns = _crop_span(width, max(1, round(width * scale)), size, left_draw)

    view = np.empty((size, size, 3), np.uint8)
    view[:] = PADDING_COLOR
    view[: rows.count, : columns.count] = _resize_crop(image, rows, columns)
    valid = np.zeros((size, size), bool)
    valid[: rows.count, : columns.count] = True
    label_view = None
    if label is not None:
        label_view = np.full((size, size), IGNORE_INDEX, np.uint8)
        label_view[: rows.count, : columns.count] = label[np.ix_(rows.nearest(), columns.nearest())]

    step = -1 if flip_draw < config.flip_probability else 1
    return (
        torch.from_numpy(np.ascontiguousarray(view[:, ::step].transpose(2, 0, 1))),
        None if label_view is None else torch.from_numpy(np.ascontiguousarray(label_view[:, ::step])),
        torch.from_numpy(np.ascontiguousarray(valid[:, ::step])),
    )


class _Span:
    """Pixels start .. start + count - 1 of one axis after it was resized from `length` to `scaled` pixels."""

    def __init__(self, length: int, scaled: int, start: int, count: int) -> None:
        self.length, self.scaled, self.start, self.count = length, scaled, start, count

    def source(self) -> tuple[float, float]:
        """Return the span's two ends in coordinates of the original axis."""
        ratio = self.length / self.scaled
        return self.start * ratio, min((self.start + self.count) * ratio, self.length)

    def nearest(self) -> np.ndarray:
        """Return the original index below the centre of each of the span's pixels, in exact integer arithmetic."""
        pixels = np.arange(self.start, self.start + self.count)
        return (2 * pixels + 1) * self.length // (2 * self.scaled)


def _crop_span(length: int, scaled: int, size: int, draw: float) -> _Span:
    count = min(scaled, size)
    return _Span(length, scaled, int(draw * (scaled - count + 1)), count)


def _resize_crop(image: np.ndarray, rows: _Span, columns: _Span) -> np.ndarray:
    (top, bottom), (left, right) = rows.source(), columns.source()
    # Pillow's filter looks beyond the box where the image goes on, so this equals "resize all, then crop".
    return np.asarray(
        Image.fromarray(image).resize(
            (columns.count, rows.count), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
        )
    )
