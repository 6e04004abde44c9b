"""What semi-supervised segmenters change in a ResNet: a deep stem of 3x3 convolutions, a multi-grid last stage.

After He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", arXiv 1812.01187 (the
stem), and Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587 (the grid).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

STEM_PREFIX = "embedder.convolutions."


class DeepStem(nn.Module):
    """Three 3x3 convolutions and a pooling in place of the 7x7: (B, 3, H, W) -> (B, C, ceil(H/4), ceil(W/4)).

    The first two have half of the channels, C/2.

    Args:
        in_channels: Channels of the images.
        channels: C, an even number.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.convolutions = nn.Sequential(
            *_unit(in_channels, half, stride=2), *_unit(half, half, stride=1), *_unit(half, channels, stride=1)
        )
        self.pooler = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features that the first stage takes."""
        return self.pooler(self.convolutions(pixel_values))


def _unit(in_channels: int, channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]


def check_resnet_variant(config: PreTrainedConfig, deep_stem: bool, multi_grid: Sequence[int] | None) -> None:
    """Refuse a variant of an encoder that has none, or that does not fit it.

    Raises:
        ValueError: Another encoder than a ResNet, an odd width of the stem, or another number of factors than layers.
    """
    asked = [name for name, value in (("deep_stem", deep_stem), ("multi_grid", multi_grid)) if value]
    if asked and config.model_type != "resnet":
        raise ValueError(
            f"S4MIMConfig.{asked[0]} is a choice of ResNets, and the backbone is {config.model_type!r}; leave it out"
        )
    if deep_stem and config.embedding_size % 2:
        raise ValueError(
            f"S4MIMConfig.deep_stem needs an even embedding_size in backbone_config, and it is {config.embedding_size}"
        )
    if multi_grid and len(multi_grid) != config.depths[-1]:
        raise ValueError(
            f"S4MIMConfig.multi_grid has {len(multi_grid)} factors; give one for each of the {config.depths[-1]} "
            "layers of the ResNet's last stage"
        )


def vary_resnet(encoder: Any, config: PreTrainedConfig, deep_stem: bool, multi_grid: Sequence[int] | None) -> None:
    """Give a dilated ResNet its variant, in place: a new stem with random weights, dilations times the grid's factors.

    Args:
        encoder: transformers' ResNet backbone.
        config: Its configuration, which `check_resnet_variant` has seen.
        deep_stem: Whether the stem is replaced.
        multi_grid: One factor for each layer of the last stage; None: the dilations stay.
    """
    if deep_stem:
        encoder.embedder = DeepStem(config.num_channels, config.embedding_size)
        for convolution in encoder.encoder.modules():
            if isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (1, 1):
                # A 1x1 has nothing to dilate, but the dilation picks another kernel, which rounds in another order than
                # the published networks do.
                convolution.dilation = (1, 1)
    for layer, factor in zip(encoder.encoder.stages[-1].layers, multi_grid or (), strict=False):
        for convolution in layer.layer.modules():
            if isinstance(convolution, nn.Conv2d) and convolution.kernel_size != (1, 1):
                dilation = factor * convolution.dilation[0]
                convolution.dilation = (dilation, dilation)
                convolution.padding = tuple(side // 2 * dilation for side in convolution.kernel_size)
