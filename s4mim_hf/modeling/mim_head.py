"""The class-wise reconstruction decoder: every class by itself, all classes in one pass.

METHOD.md's equation 3: x̂_k = d_φ(z ⊙ 1[s = k]), hidden maps zero outside class k after every layer that could fill
them. A position belongs to one class only, so one map holds all classes at once, if no layer mixes positions of
different classes: here only the depthwise convolution looks at neighbours, and it passes over those of another class.

Legend: B masked images, C channels, (h, w) positions of stride r, K x K the kernel; class_map 255 = unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

UNKNOWN_CLASS = 255


class _GatedDepthwiseConvolution(torch.autograd.Function):
    """y[p] = Σ_t w[t] x[p + t] over the taps t whose neighbour p + t is inside and of the class of p.

    A loop over taps, forward and backward: unfolding or saving the gates would cost K * K times the memory.
    """

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, weight: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(features, weight, class_map)
        total = torch.zeros_like(features, dtype=_accumulator(features))
        for row, column, centre, neighbour in _taps(weight.shape[-1], *features.shape[-2:]):
            gate = _gate(class_map, centre, neighbour)
            taken = features[neighbour].masked_fill(~gate, 0)
            total[centre] += taken.to(total.dtype) * weight[:, 0, row, column].to(total.dtype)[:, None, None]
        return total.to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        features, weight, class_map = ctx.saved_tensors
        dtype = _accumulator(features)
        of_features = torch.zeros_like(features, dtype=dtype)
        of_weight = torch.zeros_like(weight, dtype=dtype)
        for row, column, centre, neighbour in _taps(weight.shape[-1], *features.shape[-2:]):
            gate = _gate(class_map, centre, neighbour)
            passed = gradient[centre].masked_fill(~gate, 0).to(dtype)
            of_features[neighbour] += passed * weight[:, 0, row, column].to(dtype)[:, None, None]
            # The gate is in `passed`, but 0 * inf of a neighbour of another class would still be NaN.
            taken = features[neighbour].masked_fill(~gate, 0).to(dtype)
            of_weight[:, 0, row, column] = (passed * taken).sum(dim=(0, 2, 3))
        return of_features.to(features.dtype), of_weight.to(weight.dtype), None


Window = tuple[Any, slice, slice]


def _taps(size: int, height: int, width: int) -> Iterator[tuple[int, int, Window, Window]]:
    """Yield every tap (row, column) of the kernel with the windows of the centres and neighbours it connects."""
    for row in range(size):
        for column in range(size):
            down, right = row - size // 2, column - size // 2
            if abs(down) >= height or abs(right) >= width:
                continue
            centre = (..., slice(max(0, -down), height - max(0, down)), slice(max(0, -right), width - max(0, right)))
            neighbour = (..., slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right)))
            yield row, column, centre, neighbour


def _gate(class_map: torch.Tensor, centre: Window, neighbour: Window) -> torch.Tensor:
    """Return (B, 1, ...) bool: centre and neighbour are of one known class."""
    at_centre = class_map[centre]
    return ((at_centre == class_map[neighbour]) & (at_centre != UNKNOWN_CLASS))[:, None]


def _accumulator(features: torch.Tensor) -> torch.dtype:
    """Sum half-precision taps in float32, as the built-in convolutions do."""
    return torch.promote_types(features.dtype, torch.float32)


class ClassGatedConvolution(nn.Module):
    """Depthwise convolution without bias whose taps reach positions of the centre's own class only.

    Args:
        channels: Channels C.
        kernel_size: Odd kernel size.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights so that the variance of the features is kept."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, features: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
        """Convolve (B, C, h, w) by class_map (B, h, w) int; positions of class 255 give 0."""
        return _GatedDepthwiseConvolution.apply(features, self.weight, class_map)


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position by itself: (B, C, h, w) -> the same."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise; no position sees another."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PointwiseConvolution(nn.Conv2d):
    """1x1 convolution of (B, in_channels, h, w) with bias; a class of its own for its initial weights."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)


class ClassGatedBlock(nn.Module):
    """Gated depthwise convolution, LayerNorm, two pointwise layers with GELU, added to the input."""

    def __init__(self, channels: int, kernel_size: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = ClassGatedConvolution(channels, kernel_size)
        self.layernorm = ChannelLayerNorm(channels)
        self.expand = PointwiseConvolution(channels, expansion * channels)
        self.contract = PointwiseConvolution(expansion * channels, channels)

    def forward(self, features: torch.Tensor, class_map: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to the same; `unknown` (B, 1, h, w) bool positions are set to 0 after every biased layer."""
        hidden = self.layernorm(self.depthwise(features, class_map)).masked_fill(unknown, 0)
        hidden = F.gelu(self.expand(hidden).masked_fill(unknown, 0))
        return features + self.contract(hidden).masked_fill(unknown, 0)


class ClassWiseDecoder(nn.Module):
    """d_φ: pixels of masked images from their features, no class seeing another.

    Args:
        in_channels: Channels C of z.
        channels: Channels inside.
        depth: Number of blocks.
        kernel_size: Odd kernel size of the gated convolutions.
        expansion: Width of a block's hidden layer over `channels`.
        patch: Pixels r per position and side.
        masked_features: "keep", or "token": a learned vector stands for z at masked positions.

    With one class everywhere (class_map 0) this is the decoder of basic masked image modelling.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int,
        depth: int,
        kernel_size: int,
        expansion: int,
        patch: int,
        masked_features: str = "keep",
    ) -> None:
        super().__init__()
        self.patch = patch
        self.feature_token = nn.Parameter(torch.zeros(in_channels)) if masked_features == "token" else None
        self.embed = PointwiseConvolution(in_channels, channels)
        self.blocks = nn.ModuleList([ClassGatedBlock(channels, kernel_size, expansion) for _ in range(depth)])
        self.layernorm = ChannelLayerNorm(channels)
        self.predict = nn.Conv2d(channels, 3 * patch * patch, 1)

    def forward(
        self, features: torch.Tensor, class_map: torch.Tensor, feature_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Reconstruct.

        Args:
            features: z, (B, C, h, w).
            class_map: (B, h, w) int, 255 = unknown: neither reconstructed (0 comes out) nor evidence.
            feature_mask: (B, 1, h, w) bool, 1 = masked; needed where masked_features is "token".

        Returns:
            (B, 3, h * r, w * r), in the pixel space of the loss's target.

        Raises:
            ValueError: class_map or feature_mask of another shape than z has, or no feature_mask for "token".
        """
        positions = (features.shape[0], *features.shape[-2:])
        if tuple(class_map.shape) != positions:
            raise ValueError(
                f"class_map has the shape {tuple(class_map.shape)}; the features' positions are {positions}"
            )
        if self.feature_token is not None:
            if feature_mask is None or tuple(feature_mask[:, 0].shape) != positions:
                found = None if feature_mask is None else tuple(feature_mask.shape)
                raise ValueError(f"masked_features 'token' needs a feature_mask for positions {positions}, not {found}")
            token = self.feature_token.to(features.dtype)[None, :, None, None]
            features = torch.where(feature_mask.bool(), token, features)
        unknown = (class_map == UNKNOWN_CLASS)[:, None]
        hidden = self.embed(features.masked_fill(unknown, 0)).masked_fill(unknown, 0)
        for block in self.blocks:
            hidden = block(hidden, class_map, unknown)
        hidden = self.layernorm(hidden).masked_fill(unknown, 0)
        return F.pixel_shuffle(self.predict(hidden).masked_fill(unknown, 0), self.patch)
