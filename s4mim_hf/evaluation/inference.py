"""From one batch of images of one size to class scores: whole, in windows, at several scales, mirrored.

Shapes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

Protocol = Literal["whole", "sliding_window", "center_crop"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class InferenceConfig:
    """How an image is shown to the model; two numbers compare only where this is the same.

    Args:
        protocol: "whole" shows the image as it is; "sliding_window" shows windows that overlap and averages their
            probabilities; "center_crop" cuts image and label to the centre, and counts nothing else.
        window: side of the window or of the centre crop, in pixels; at least 1. A smaller image is shown whole.
        overlap: share of a window that the next one covers again, 0 <= overlap < 1.
        scales: factors on the image's size, each above 0, whose probabilities are averaged.
        flip: whether the mirrored image's probabilities are averaged in.
    """

    protocol: Protocol = "whole"
    window: int = Field(default=513, ge=1)
    overlap: float = Field(default=1 / 3, ge=0, lt=1)
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @field_validator("scales")
    @classmethod
    def _check_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales is {scales}; give at least one factor above 0, such as (0.75, 1.0, 1.25)")
        return scales

    @property
    def averages(self) -> bool:
        """Whether several views of an image are averaged."""
        return self.flip or self.scales != (1.0,)

    @property
    def gives_probabilities(self) -> bool:
        """Whether `predict_logits` returns probabilities, and not logits."""
        return self.averages or self.protocol == "sliding_window"

    def describe(self) -> str:
        """Say the protocol in words, for tables and model cards."""
        if self.protocol == "whole":
            words = "whole image at original size"
        elif self.protocol == "center_crop":
            words = f"centre crop {self.window} at original size"
        else:
            overlap = Fraction(self.overlap).limit_denominator(20)
            share = str(overlap) if math.isclose(overlap, self.overlap, abs_tol=1e-6) else f"{self.overlap:g}"
            words = f"sliding window {self.window}, overlap {share}, at original size"
        if self.scales != (1.0,):
            words += f", scales {' '.join(f'{scale:g}' for scale in self.scales)}"
        return words + (", with flip" if self.flip else "")


def shrinking_in_words(max_side: int | None) -> str:
    """Return what follows the protocol's words where larger images are shrunk first."""
    return "" if max_side is None else f", images above {max_side} pixels a side shrunk to that"


def center_box(height: int, width: int, config: InferenceConfig) -> tuple[slice, slice]:
    """Return the rows and columns that count: the centre crop's, or all."""
    if config.protocol != "center_crop":
        return slice(0, height), slice(0, width)
    tall, wide = min(height, config.window), min(width, config.window)
    top, left = (height - tall) // 2, (width - wide) // 2
    return slice(top, top + tall), slice(left, left + wide)


def predict_logits(model: nn.Module, pixel_values: Tensor, config: InferenceConfig) -> Tensor:
    """Score every pixel's classes; the highest is the prediction.

    Args:
        model: `model(pixel_values).logits` is (B, K, H', W'), brought to the input's size bilinearly where it differs.
        pixel_values: normalised images of one size, float (B, 3, H, W).
        config: the protocol. A centre crop is cut here: the scores are the crop's (`center_box`).

    Returns:
        float32 (B, K, H, W): logits where an image is shown once, else the mean of the views' probabilities.
    """
    rows, columns = center_box(pixel_values.shape[-2], pixel_values.shape[-1], config)
    pixel_values = pixel_values[..., rows, columns]
    if not config.averages:
        return _one_view(model, pixel_values, config)
    total: Tensor | None = None
    for scale in config.scales:
        scaled = _rescale(pixel_values, scale)
        for flipped in (False, True)[: 1 + config.flip]:
            view = _one_view(model, scaled.flip(-1) if flipped else scaled, config)
            view = view if config.protocol == "sliding_window" else view.softmax(dim=1)
            view = _resize(view.flip(-1) if flipped else view, pixel_values.shape[-2:])
            total = view if total is None else total + view
    assert total is not None, "scales is never empty"
    return total / (len(config.scales) * (1 + config.flip))


def whole_pictures(processor: Any, images: Sequence[Image.Image]) -> Tensor:
    """Return the `pixel_values` of whole pictures, float (B, 3, h, w).

    Processors that transformers' MobileNetV2 and MobileViT have cut out the centre unless they are told otherwise, and
    a map of that is none of the picture.

    Args:
        processor: an image processor.
        images: of one size.
    """
    options = {"do_center_crop": False} if getattr(processor, "do_center_crop", None) else {}
    return processor(images=list(images), return_tensors="pt", **options)["pixel_values"]


def without_padding(scores: Tensor, processor: Any, size: tuple[int, int]) -> Tensor:
    """Cut scores (..., h, w) to the part that a picture fills which the processor has padded.

    Args:
        scores: at the size of `pixel_values`.
        processor: the image processor; one without an `input_size`, as other libraries have, pads nothing.
        size: (height, width) of the picture as it was given to the processor.
    """
    if not hasattr(processor, "input_size"):
        return scores
    height, width = processor.input_size(*size)
    return scores[..., :height, :width]


def _one_view(model: nn.Module, pixel_values: Tensor, config: InferenceConfig) -> Tensor:
    if config.protocol == "sliding_window":
        return _slide(model, pixel_values, config)
    return _logits(model, pixel_values)


def _logits(model: nn.Module, pixel_values: Tensor) -> Tensor:
    # Mixed precision ends here: probabilities of many views are summed.
    return _resize(model(pixel_values).logits.float(), pixel_values.shape[-2:])


def _resize(scores: Tensor, size: torch.Size) -> Tensor:
    if scores.shape[-2:] == size:
        return scores
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def _rescale(pixel_values: Tensor, scale: float) -> Tensor:
    if scale == 1.0:
        return pixel_values
    height, width = (max(1, round(side * scale)) for side in pixel_values.shape[-2:])
    return F.interpolate(pixel_values, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _slide(model: nn.Module, pixel_values: Tensor, config: InferenceConfig) -> Tensor:
    """Average the probabilities of windows; (B, K, H, W). Every pixel is in at least one window."""
    height, width = pixel_values.shape[-2:]
    window, stride = config.window, window_stride(config.window, config.overlap)
    total: Tensor | None = None
    counts = pixel_values.new_zeros((height, width), dtype=torch.float32)
    for top in window_starts(height, window, stride):
        for left in window_starts(width, window, stride):
            rows, columns = slice(top, top + window), slice(left, left + window)
            probabilities = _logits(model, pixel_values[..., rows, columns]).softmax(dim=1)
            if total is None:
                total = probabilities.new_zeros((*probabilities.shape[:2], height, width))
            total[..., rows, columns] += probabilities
            counts[rows, columns] += 1
    assert total is not None, "an image has at least one window"
    return total / counts


def window_stride(window: int, overlap: float) -> int:
    """Return by how many pixels windows are apart that overlap by a share of their side (by less, up to a pixel)."""
    # Rounding first: 513 * (1 - 1/3) is a little more than 342 in floating point.
    return max(1, math.ceil(round(window * (1 - overlap), 6)))


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Return where windows start along a side, `stride` apart; the last ends at the side's end, inside the image."""
    if side <= window:
        return [0]
    return [*range(0, side - window, stride), side - window]
