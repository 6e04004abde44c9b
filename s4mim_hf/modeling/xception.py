"""Xception-65: depthwise-separable convolutions in residual blocks.

After Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", arXiv 1610.02357, in the deeper form
that DeepLabV3+ (arXiv 1802.02611) introduced for segmentation.
Legend: B images, (h, w) positions; a stride of 2 rounds sizes up.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_xception import XceptionConfig

NATIVE_STRIDE = 16


class SeparableConvolution(nn.Module):
    """A depthwise 3x3 convolution and a pointwise one, each normalised: (B, in_channels, h, w) -> (B, channels, ...).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: 1 or 2.
        dilation: Of the depthwise convolution.
        momentum: BatchNorm's.
        activate: Whether each half ends with a ReLU. Inside a residual block none does: the block begins with one.
    """

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, dilation: int, momentum: float, activate: bool
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=dilation, dilation=dilation, groups=in_channels, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(channels, momentum=momentum)
        self._activate = activate

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Convolve each channel by itself, then mix them."""
        features = self.depthwise_norm(self.depthwise(features))
        if self._activate:
            features = F.relu(features)
        features = self.pointwise_norm(self.pointwise(features))
        return F.relu(features) if self._activate else features


class XceptionBlock(nn.Module):
    """Three separable convolutions beside a shortcut: (B, widths[0], h, w) -> (B, widths[3], ...).

    The shortcut is projected where width or stride change. Where it is not, it is the *activated* input: the published
    weights were trained with in-place ReLUs, which change what the shortcut adds.
    """

    def __init__(self, widths: tuple[int, int, int, int], *, stride: int, dilation: int, momentum: float) -> None:
        super().__init__()
        self.shortcut: nn.Module | None = None
        if widths[0] != widths[-1] or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(widths[0], widths[-1], 1, stride=stride, bias=False),
                nn.BatchNorm2d(widths[-1], momentum=momentum),
            )
        self.layers = nn.ModuleList(
            SeparableConvolution(
                before,
                after,
                stride=stride if position == 2 else 1,
                dilation=dilation,
                momentum=momentum,
                activate=False,
            )
            for position, (before, after) in enumerate(itertools.pairwise(widths))
        )

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the block's output, and its features before the last convolution, which has the stride."""
        activated = F.relu(features)
        shortcut = activated if self.shortcut is None else self.shortcut(features)
        inner = self.layers[1](F.relu(self.layers[0](activated)))
        return self.layers[2](F.relu(inner)) + shortcut, inner


class XceptionPyramid(nn.Module):
    """The encoder: (B, 3, H, W) -> features at stride 4 and at the output stride.

    Args:
        config: Its widths.
        output_stride: 16, or 8: then the third block keeps the size, and all that follows is dilated by 2.

    Raises:
        ValueError: Another output stride.
    """

    def __init__(self, config: XceptionConfig, output_stride: int) -> None:
        super().__init__()
        if output_stride not in (8, NATIVE_STRIDE):
            raise ValueError(
                f"S4MIMConfig.output_stride is {output_stride}, but the backbone 'xception' exists at strides 8 and "
                "16 only; choose one of them"
            )
        dilation, momentum = NATIVE_STRIDE // output_stride, float(config.batch_norm_momentum)
        first, second = config.stem_channels
        narrow, middle, wide = config.entry_channels
        last, *tail = config.exit_channels
        self.stem = nn.Sequential(
            *_stem_unit(config.num_channels, first, 2, momentum), *_stem_unit(first, second, 1, momentum)
        )

        def block(before: int, inside: int, after: int, stride: int, dilation: int) -> XceptionBlock:
            return XceptionBlock((before, inside, after, after), stride=stride, dilation=dilation, momentum=momentum)

        self.blocks = nn.ModuleList(
            [
                block(second, narrow, narrow, 2, 1),
                block(narrow, middle, middle, 2, 1),
                block(middle, wide, wide, 2 // dilation, 1),
                *(block(wide, wide, wide, 1, dilation) for _ in range(config.middle_blocks)),
                block(wide, wide, last, 1, dilation),
            ]
        )
        self.tail = nn.Sequential(
            *(
                SeparableConvolution(before, after, stride=1, dilation=dilation, momentum=momentum, activate=True)
                for before, after in zip([last, *tail[:-1]], tail, strict=True)
            )
        )
        self.channels = [middle, tail[-1]]

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of the second block before its stride, (B, C, h4, w4), and the last, (B, C, h, w)."""
        features = self.stem(pixel_values)
        features, _ = self.blocks[0](features)
        features, low_level = self.blocks[1](features)
        for block in self.blocks[2:]:
            features, _ = block(features)
        return [low_level, self.tail(features)]


def _stem_unit(in_channels: int, channels: int, stride: int, momentum: float) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels, momentum=momentum), nn.ReLU()]
