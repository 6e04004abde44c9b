"""Encoders as maps: a pyramid's features at stride 4 and at the output stride, or a vision transformer's four layers.

Legend: B images, H x W pixels, r the stride of a feature. A feature of stride r has ceil(H/r) x ceil(W/r) positions,
and position i stands for pixels i*r .. i*r + r - 1, for every encoder. Where in them its centre lies is the encoder's
(convolutions that pad alike on both sides: i*r), but the same for every size of image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig

from .configuration_s4mim import VISION_TRANSFORMERS, S4MIMConfig, even_layers
from .dilation import CAN_DILATE, LOW_LEVEL_STRIDE, set_output_stride
from .encoders import MobileNetV2Pyramid, build_pyramid, build_transformer, square_patch_size
from .resnet_variants import check_resnet_variant, vary_resnet
from .xception import NATIVE_STRIDE as XCEPTION_STRIDE
from .xception import XceptionPyramid

NATIVE_STRIDE = 32

# Encoders whose own layers round sizes up; all others are given inputs padded to a multiple of their largest stride.
_ROUND_UP = frozenset({"resnet", "mobilenet_v2", "swin", "xception"})


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
        deep_stem: Three 3x3 convolutions in place of a ResNet's 7x7.
        multi_grid: Factors on the dilations of a ResNet's last stage, one for each of its layers; None: no factors.

    Attributes:
        map_channels: Channels of each map, from the shallowest to the deepest.
        low_level_channels: Those of the first map.
        channels: Those of the last map.
        output_stride: Pixels per position of the last map.
        patch_size: Side of a vision transformer's patches in pixels; None for a pyramid.
        frozen: Whether `freeze` was called.

    Raises:
        ValueError: The encoder is neither, or cannot be brought to this output stride or variant.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        output_stride: int | None,
        layers: Sequence[int] | None = None,
        position_offset: float = 0.0,
        deep_stem: bool = False,
        multi_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_resnet_variant(config, deep_stem, multi_grid)
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
            # TensorFlow's padding has another phase for even sides than for odd ones: features of a 320 pixel wide
            # image would lie 15 pixels (1 + 2 + 4 + 8) from where a crop of 129 has taught the head to expect them.
            # Alike on both sides it is TensorFlow's own for odd sides, and that phase for all.
            config.tf_padding = False
            self.encoder = MobileNetV2Pyramid(config)
        elif config.model_type == "xception":
            self.encoder = XceptionPyramid(config, self.output_stride)
        else:
            self.encoder = build_pyramid(config)
            set_output_stride(self.encoder, config.model_type, self.output_stride)
        if config.model_type == "resnet":
            vary_resnet(self.encoder, config, deep_stem, multi_grid)
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
        # ceil(a / b) as (a - 1) // b + 1: a graph whose sizes are free divides no floats.
        expected = ((shape[-2] - 1) // stride + 1, (shape[-1] - 1) // stride + 1)
        if tuple(feature.shape[-2:]) != expected:
            raise ValueError(
                f"the backbone {self.model_type!r} gives features of {tuple(feature.shape[-2:])} where stride {stride} "
                f"means {expected} for an input of {tuple(shape[-2:])}; choose a pyramid with strides 4, 8, 16, 32"
            )
        if self._rounds_up:
            return feature
        return feature[..., : (height - 1) // stride + 1, : (width - 1) // stride + 1]


def build_backbone(config: S4MIMConfig) -> Backbone:
    """Build the encoder that a model's configuration asks for."""
    return Backbone(
        config.backbone_config,
        config.output_stride,
        layers=config.dpt_layers,
        position_offset=config.position_embedding_offset,
        deep_stem=config.deep_stem,
        multi_grid=config.multi_grid,
    )


def resolve_output_stride(config: PreTrainedConfig, output_stride: int | None) -> int:
    """Return the output stride that a backbone will have: the asked one, or its own.

    Raises:
        ValueError: This encoder exists at its own stride only.
    """
    if config.model_type in VISION_TRANSFORMERS:
        native = square_patch_size(config)
    else:
        natives = {"mobilenet_v2": getattr(config, "output_stride", None), "xception": XCEPTION_STRIDE}
        native = int(natives.get(config.model_type) or NATIVE_STRIDE)
    if output_stride is None or output_stride == native:
        return native
    if config.model_type not in CAN_DILATE:
        raise ValueError(
            f"S4MIMConfig.output_stride is {output_stride}, but the backbone {config.model_type!r} cannot be dilated "
            f"and exists at stride {native} only; set output_stride to None (null), or choose a backbone among "
            f"{', '.join(sorted(CAN_DILATE))}"
        )
    return output_stride


def _pad_to_multiple(pixel_values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad with zeros (the mean colour) to the right and below, which leaves the position of every pixel as it is."""
    height, width = pixel_values.shape[-2:]
    return F.pad(pixel_values, (0, -width % multiple, 0, -height % multiple))
