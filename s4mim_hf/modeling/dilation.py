"""Strides of an encoder's last stages turned into dilations, weights untouched."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

LOW_LEVEL_STRIDE = 4
CAN_DILATE = frozenset({"resnet", "convnext", "mobilenet_v2", "xception"})


def set_output_stride(encoder: Any, model_type: str, output_stride: int) -> None:
    """Turn the strides of the last stages into dilations, in place; weights stay as they are.

    The layer that had the stride keeps the dilation in force before it and later ones get the doubled, so that the
    dilated network's features at every second position are the undilated network's.
    """
    dilation = 1
    for index, stage in enumerate(encoder.encoder.stages if model_type in ("resnet", "convnext") else ()):
        if LOW_LEVEL_STRIDE * 2**index <= output_stride:
            continue
        if model_type == "resnet":
            _dilate_resnet_stage(stage, dilation)
        else:
            _dilate_convnext_stage(stage, dilation)
        dilation *= 2


def _dilate_resnet_stage(stage: Any, dilation: int) -> None:
    first, *rest = stage.layers
    if hasattr(first.shortcut, "convolution"):
        first.shortcut.convolution.stride = (1, 1)
    for convolution in _convolutions(first.layer):
        had_stride = convolution.stride != (1, 1)
        convolution.stride = (1, 1)
        _dilate(convolution, dilation)
        if had_stride:
            dilation *= 2
    for layer in rest:
        for convolution in _convolutions(layer.layer):
            _dilate(convolution, dilation)


def _dilate_convnext_stage(stage: Any, dilation: int) -> None:
    downsampling = stage.downsampling_layer[1]
    downsampling.stride = (1, 1)
    downsampling.dilation = (dilation, dilation)
    # By its class: a padding layer before it would rename its weights, and pretrained ones would not be found.
    downsampling.__class__ = _RightPaddedConvolution
    for layer in stage.layers:
        _dilate(layer.dwconv, 2 * dilation)


class _RightPaddedConvolution(nn.Conv2d):
    """A 2x2 convolution of stride 1 that reaches right and down only, and is padded there alone: nothing moves."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rows, columns = (int(step) for step in self.dilation)
        return super().forward(F.pad(features, (0, columns, 0, rows)))


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [child for child in module.modules() if isinstance(child, nn.Conv2d)]


def _dilate(convolution: nn.Conv2d, dilation: int) -> None:
    convolution.dilation = (dilation, dilation)
    rows, columns = convolution.kernel_size
    convolution.padding = (rows // 2 * dilation, columns // 2 * dilation)
