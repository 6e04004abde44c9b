"""Encoders as maps: a pyramid's features at stride 4 and at the output stride, or a vision transformer's four layers.

Legend: B images, H x W pixels, r the stride of a feature. A feature of stride r has ceil(H/r) x ceil(W/r) positions,
and position i stands for pixels i*r .. i*r + r - 1, for every encoder and every size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig

from .configuration_s4mim import VISION_TRANSFORMERS, even_layers
from .encoders import MobileNetV2Pyramid, build_pyramid, build_transformer, square_patch_size

LOW_LEVEL_STRIDE = 4
NATIVE_STRIDE = 32

# Encoders whose own layers round sizes up; all others are given inputs padded to a multiple of their largest stride.
_ROUND_UP = frozenset({"resnet", "mobilenet_v2", "swin"})
_CAN_DILATE = frozenset({"resnet", "convnext", "mobilenet_v2"})


class Pyramid(NamedTuple):
    """A pyramid's features.

    Attributes:
        low_level: (B, C_low, ceil(H/4), ceil(W/4)).
        last: (B, C, ceil(H/r), ceil(W/r)) with r the output stride.
    """

    low_level: torch.Tensor
    last: torch.Tensor


class Backbone(nn.Module):
    """An encoder with randomly initialised weights, at the asked output stride.

    Args:
        config: The encoder's configuration; a pyramid with `stage_names` must be set to output its first and last
            stage.
        output_stride: 8, 16, 32, or None for the encoder's own.
        layers: Of a vision transformer, which layers give features, from 1; None: four, evenly spaced.
        position_offset: See `S4MIMConfig.position_embedding_offset`.

    Attributes:
        map_channels: Channels of each map, from the shallowest to the deepest.
        low_level_channels: Those of the first map.
        channels: Those of the last map.
        output_stride: Pixels per position of the last map.
        patch_size: Side of a vision transformer's patches in pixels; None for a pyramid.
        frozen: Whether `freeze` was called.

    Raises:
        ValueError: The encoder is neither, or cannot be brought to this output stride.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        output_stride: int | None,
        layers: Sequence[int] | None = None,
        position_offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.output_stride = resolve_output_stride(config, output_stride)
        self._rounds_up = config.model_type in _ROUND_UP
        self.model_type: str = config.model_type
        self.patch_size: int | None = None
        self.frozen = False
        if config.model_type in VISION_TRANSFORMERS:
            layers = even_layers(config.num_hidden_layers) if layers is None else layers
            self.encoder: Any = build_transformer(config, layers, position_offset)
            self.patch_size = self.output_stride
        elif config.model_type == "mobilenet_v2":
            config = copy.deepcopy(config)
            config.output_stride = self.output_stride
            self.encoder = MobileNetV2Pyramid(config)
        else:
            self.encoder = build_pyramid(config)
            _set_output_stride(self.encoder, config.model_type, self.output_stride)
        self.map_channels: tuple[int, ...] = tuple(self.encoder.channels)
        self.low_level_channels, self.channels = self.map_channels[0], self.map_channels[-1]
        self.in_channels = getattr(config, "num_channels", 3)

    def freeze(self) -> None:
        """Stop learning for good: no gradient, no graph, evaluation mode whatever mode the model is put into."""
        self.requires_grad_(False)
        self.frozen = True
        self.train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Switch dropout, stochastic depth and batch statistics on or off; a frozen encoder's stay off."""
        return super().train(mode and not self.frozen)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode (B, 3, H, W) normalised images, of any H, W >= 1: a `Pyramid`, or one map per layer at the patch size.

        Raises:
            ValueError: The encoder's features are not at strides 4 and `output_stride`.
        """
        with torch.no_grad() if self.frozen else nullcontext():
            return self._encode(pixel_values)

    def _encode(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        height, width = pixel_values.shape[-2:]
        if not self._rounds_up:
            pixel_values = _pad_to_multiple(pixel_values, self.patch_size or NATIVE_STRIDE)
        outputs = self.encoder(pixel_values)
        maps = outputs if isinstance(outputs, list) else outputs.feature_maps
        if self.patch_size is not None:
            return tuple(self._crop(one, self.patch_size, pixel_values.shape, height, width) for one in maps)
        low_level, last = maps
        return Pyramid(
            self._crop(low_level, LOW_LEVEL_STRIDE, pixel_values.shape, height, width),
            self._crop(last, self.output_stride, pixel_values.shape, height, width),
        )

    def _crop(self, feature: torch.Tensor, stride: int, shape: torch.Size, height: int, width: int) -> torch.Tensor:
        expected = (math.ceil(shape[-2] / stride), math.ceil(shape[-1] / stride))
        if tuple(feature.shape[-2:]) != expected:
            raise ValueError(
                f"the backbone {self.model_type!r} gives features of {tuple(feature.shape[-2:])} where stride {stride} "
                f"means {expected} for an input of {tuple(shape[-2:])}; choose a pyramid with strides 4, 8, 16, 32"
            )
        return feature[..., : math.ceil(height / stride), : math.ceil(width / stride)]


def resolve_output_stride(config: PreTrainedConfig, output_stride: int | None) -> int:
    """Return the output stride that a backbone will have: the asked one, or its own.

    Raises:
        ValueError: This encoder exists at its own stride only.
    """
    if config.model_type in VISION_TRANSFORMERS:
        native = square_patch_size(config)
    else:
        native = int(config.output_stride) if config.model_type == "mobilenet_v2" else NATIVE_STRIDE
    if output_stride is None or output_stride == native:
        return native
    if config.model_type not in _CAN_DILATE:
        raise ValueError(
            f"S4MIMConfig.output_stride is {output_stride}, but the backbone {config.model_type!r} cannot be dilated "
            f"and exists at stride {native} only; set output_stride to None (null), or choose a backbone among "
            f"{', '.join(sorted(_CAN_DILATE))}"
        )
    return output_stride


def _pad_to_multiple(pixel_values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad with zeros (the mean colour) to the right and below, which leaves the position of every pixel as it is."""
    height, width = pixel_values.shape[-2:]
    return F.pad(pixel_values, (0, -width % multiple, 0, -height % multiple))


def _set_output_stride(encoder: Any, model_type: str, output_stride: int) -> None:
    """Turn the strides of the last stages into dilations, in place; weights stay as they are.

    The layer that had the stride keeps the dilation in force before it and later ones get the doubled, so that the
    dilated network's features at every second position are the undilated network's.
    """
    dilation = 1
    for index, stage in enumerate(encoder.encoder.stages if model_type in _CAN_DILATE else ()):
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
