"""The class-wise reconstruction decoder of convolutions: every class by itself, all classes in one pass.

METHOD.md's equation 3: x̂_k = d_φ(z ⊙ 1[s = k]), hidden maps zero outside class k after every layer that could fill
them. A position belongs to one class only, so one map holds all classes at once, if no layer mixes positions of
different classes: here only the depthwise convolution looks at neighbours, and it passes over those of another class.

Legend: B masked images, C channels, (h, w) positions of stride r, K x K the kernel; class_map 255 = unknown. Inside,
channels are last: normalisation and pointwise layers then need no copies, and one gate covers consecutive numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

UNKNOWN_CLASS = 255
# An integer as wide as a floating-point number, by its bytes.
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def class_gates(class_map: torch.Tensor, kernel_size: int, dtype: torch.dtype) -> torch.Tensor:
    """Say which taps of a kernel connect two positions of one known class.

    Args:
        class_map: (B, h, w) int, 255 = unknown.
        kernel_size: Odd K.
        dtype: Floating, of the features that will be gated.

    Returns:
        (K * K, B, h, w, 1), integers as wide as `dtype`: all bits set where the tap counts, none where not.
    """
    padded = F.pad(class_map, (kernel_size // 2,) * 4, value=UNKNOWN_CLASS)
    same = torch.stack([seen == class_map for seen in _taps(padded, kernel_size)])
    return -(same & (class_map != UNKNOWN_CLASS)).to(_INTEGERS[dtype.itemsize]).unsqueeze(-1)


def _taps(padded: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Yield what each tap of the kernel sees, (B, h, w, ...), of a map with margins (B, h + K - 1, w + K - 1, ...)."""
    height, width = (side - size + 1 for side in padded.shape[1:3])
    for row in range(size):
        for column in range(size):
            yield padded[:, row : row + height, column : column + width]


class _GatedDepthwiseConvolution(torch.autograd.Function):
    """y[p] = Σ_t w[t] x[p + t] over the taps t whose gate is open.

    A loop over taps, forward and backward, which gates anew: plain autograd would keep a gated copy of the features
    for every tap. A gate clears bits: unlike 0 · x this stops NaN as well, and it is one quick pass over memory.
    """

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, weight: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(features, weight, gates)
        dtype, size = _accumulator(features), weight.shape[-1]
        total = features.new_zeros(features.shape, dtype=dtype)
        for seen, gate, factor in zip(_taps(_bits(features, size), size), gates, _by_tap(weight, dtype), strict=True):
            total.addcmul_((seen & gate).view(features.dtype).to(dtype), factor)
        return total.to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        features, weight, gates = ctx.saved_tensors
        dtype, size = _accumulator(features), weight.shape[-1]
        bits, factors, reach = _bits(features, size), _by_tap(weight, dtype), size // 2
        gradient_bits, gradient = gradient.view(gates.dtype), gradient.to(dtype)
        of_features, of_factors = torch.zeros_like(bits, dtype=dtype), torch.empty_like(factors)
        for tap, (seen, of_seen) in enumerate(zip(_taps(bits, size), _taps(of_features, size), strict=True)):
            of_seen.addcmul_((gradient_bits & gates[tap]).view(features.dtype).to(dtype), factors[tap])
            taken = (seen & gates[tap]).view(features.dtype).to(dtype)
            of_factors[tap] = (taken * gradient).sum(dim=(0, 1, 2))
        height, width = features.shape[1:3]
        inside = of_features[:, reach : reach + height, reach : reach + width]
        return inside.to(features.dtype), of_factors.t().reshape(weight.shape).to(weight.dtype), None


def _bits(features: torch.Tensor, size: int) -> torch.Tensor:
    """Return features (B, h, w, C) as integers of the same bits, with a margin of zeros for the kernel."""
    return F.pad(features.view(_INTEGERS[features.dtype.itemsize]), (0, 0, *(size // 2,) * 4))


def _by_tap(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the weights (C, 1, K, K) as (K * K, C)."""
    return weight.to(dtype).flatten(1).t().contiguous()


def _accumulator(features: torch.Tensor) -> torch.dtype:
    """Sum half-precision taps in float32, as the built-in convolutions do."""
    return torch.promote_types(features.dtype, torch.float32)


class ClassGatedConvolution(nn.Module):
    """Depthwise convolution without bias whose taps reach positions of the centre's own class only.

    Args:
        channels: Channels C.
        kernel_size: Odd kernel size K.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights so that the variance of the features is kept."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, features: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """Convolve (B, h, w, C) by `class_gates` of this kernel size and dtype; positions of class 255 give 0."""
        return _GatedDepthwiseConvolution.apply(features, self.weight, gates)


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position by itself: (B, C, h, w) -> the same."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise; no position sees another."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PointwiseLayer(nn.Linear):
    """Linear layer over the channels of each position by itself; a class of its own for its initial weights."""


class ClassGatedBlock(nn.Module):
    """Gated depthwise convolution, LayerNorm, two pointwise layers with GELU, added to the input."""

    def __init__(self, channels: int, kernel_size: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = ClassGatedConvolution(channels, kernel_size)
        self.layernorm = nn.LayerNorm(channels)
        self.expand = PointwiseLayer(channels, expansion * channels)
        self.contract = PointwiseLayer(expansion * channels, channels)

    def forward(self, features: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """Map (B, h, w, C) to the same."""
        hidden = self.layernorm(self.depthwise(features, gates))
        return features + self.contract(F.gelu(self.expand(hidden)))


class ClassWiseDecoder(nn.Module, ABC):
    """d_φ: pixels of masked images from their features, no class seeing another.

    With one class everywhere (class_map 0) it is the decoder of basic masked image modelling.

    Args:
        in_channels: Channels C of z.
        patch: Pixels r per position and side.
        masked_features: "keep", or "token": a learned vector stands for z at masked positions.
    """

    def __init__(self, in_channels: int, patch: int, masked_features: str) -> None:
        super().__init__()
        self.patch = patch
        self.feature_token = nn.Parameter(torch.zeros(in_channels)) if masked_features == "token" else None

    @property
    @abstractmethod
    def reach(self) -> int | None:
        """How many pixels a position sees to each side; None: everything of its class."""

    @abstractmethod
    def covered(self, class_map: torch.Tensor) -> torch.Tensor:
        """Return (B, h, w) bool, the positions that are reconstructed, of class_map (B, h, w) int."""

    @abstractmethod
    def decode(self, features: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
        """Return x̂ (B, 3, h * r, w * r) of z (B, h, w, C), 0 where `covered` is False."""

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
        features = features.permute(0, 2, 3, 1)
        if self.feature_token is not None:
            if feature_mask is None or tuple(feature_mask[:, 0].shape) != positions:
                found = None if feature_mask is None else tuple(feature_mask.shape)
                raise ValueError(f"masked_features 'token' needs a feature_mask for positions {positions}, not {found}")
            token = self.feature_token.to(features.dtype)
            features = torch.where(feature_mask.bool().permute(0, 2, 3, 1), token, features)
        return self.decode(features, class_map)


class ConvolutionDecoder(ClassWiseDecoder):
    """Blocks of class-gated depthwise convolution and pointwise layers, then the pixels of each position.

    Args:
        in_channels: Channels C of z.
        channels: Channels inside.
        depth: Number of blocks.
        kernel_size: Odd kernel size of the gated convolutions.
        expansion: Width of a block's hidden layer over `channels`.
        patch: Pixels r per position and side.
        masked_features: "keep", or "token": a learned vector stands for z at masked positions.
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
        super().__init__(in_channels, patch, masked_features)
        self.kernel_size = kernel_size
        self.embed = PointwiseLayer(in_channels, channels)
        self.blocks = nn.ModuleList([ClassGatedBlock(channels, kernel_size, expansion) for _ in range(depth)])
        self.layernorm = nn.LayerNorm(channels)
        self.predict = nn.Linear(channels, 3 * patch * patch)

    @property
    def reach(self) -> int:
        """How many pixels a position sees to each side."""
        return len(self.blocks) * (self.kernel_size // 2) * self.patch

    def covered(self, class_map: torch.Tensor) -> torch.Tensor:
        """Return (B, h, w) bool: every position of a known class is reconstructed."""
        return class_map != UNKNOWN_CLASS

    def decode(self, features: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
        """Return x̂ (B, 3, h * r, w * r) of z (B, h, w, C).

        Unknown positions are emptied where z comes in and where pixels leave. In between biases fill them, but no gate
        lets them reach another position and no gradient comes back from them.
        """
        unknown = (class_map == UNKNOWN_CLASS).unsqueeze(-1)
        hidden = self.embed(features.masked_fill(unknown, 0))
        gates = class_gates(class_map, self.kernel_size, hidden.dtype)
        for block in self.blocks:
            hidden = block(hidden, gates)
        pixels = self.predict(self.layernorm(hidden)).masked_fill(unknown, 0)
        return F.pixel_shuffle(pixels.permute(0, 3, 1, 2), self.patch)
