"""MobileNetV2's padding without branches on an image's size, so that one exported graph serves every size.

transformers computes TensorFlow's "SAME" padding with Python integers and conditions, which fix height and width when
the network is traced. The same amounts follow from one expression.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import MobileNetV2ConvLayer


class SamePaddedLayer(MobileNetV2ConvLayer):
    """MobileNetV2's convolution, normalisation and activation, with TensorFlow's padding; bit for bit transformers'."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to (B, C', ceil(h / stride), ceil(w / stride))."""
        features = self.convolution(_pad_same(features, self.convolution))
        if self.normalization is not None:
            features = self.normalization(features)
        return features if self.activation is None else self.activation(features)


def pad_without_branches(network: nn.Module) -> None:
    """Let every layer of a MobileNetV2 that pads as TensorFlow does compute it by `SamePaddedLayer`, in place.

    By its class: weights keep their names, and pretrained ones are found.
    """
    for module in network.modules():
        if type(module) is MobileNetV2ConvLayer and getattr(module.config, "tf_padding", False):
            module.__class__ = SamePaddedLayer


def _pad_same(features: torch.Tensor, convolution: nn.Conv2d) -> torch.Tensor:
    if convolution.kernel_size == (1, 1):
        return features
    top, bottom = _amounts(features.shape[-2], convolution, axis=0)
    left, right = _amounts(features.shape[-1], convolution, axis=1)
    return F.pad(features, (left, right, top, bottom))


def _amounts(side: int, convolution: nn.Conv2d, axis: int) -> tuple[int, int]:
    """Return the zeros before and after a side; the last window then starts at the side's last whole stride.

    No kernel of MobileNetV2 is smaller than its stride, so that the sum is never negative.
    """
    kernel, stride, dilation = (
        amounts[axis] for amounts in (convolution.kernel_size, convolution.stride, convolution.dilation)
    )
    total = kernel - 1 - (side - 1) % stride if stride > 1 else kernel - 1
    before = total // 2
    return before * dilation, (total - before) * dilation
