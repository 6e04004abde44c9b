"""transformers' encoders as the segmenter needs them: which layers give features; what no loss reaches is left out.

Distributed training refuses a parameter that never gets a gradient, such as the mask token of a pretraining or a norm
that only classifiers read.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoBackbone, CLIPVisionModel, MobileNetV2Model, PreTrainedConfig, SegformerModel
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

# MobileNetV2's inverted residual blocks 1 and 15 (counted after the stem) end strides 4 and 32.
_MOBILENET_LOW_LEVEL_BLOCK = 1
_MOBILENET_LAST_BLOCK = 15


class MobileNetV2Pyramid(nn.Module):
    """The layers of transformers' MobileNetV2 up to its last block, which offers no AutoBackbone.

    The classification-only 1x1 convolution is left out: without a loss on it, its parameters would never get a
    gradient, which distributed training refuses.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        network = MobileNetV2Model(config, add_pooling_layer=False)
        self.conv_stem = network.conv_stem
        self.layer = network.layer
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                # transformers carries TensorFlow's decay 0.997 over as torch's momentum, which means the opposite:
                # running statistics would be the last batch's.
                module.momentum = 0.1
        blocks = (self.layer[_MOBILENET_LOW_LEVEL_BLOCK], self.layer[_MOBILENET_LAST_BLOCK])
        self.channels = [block.reduce_1x1.convolution.out_channels for block in blocks]

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of blocks 1 (stride 4) and 15 for (B, 3, H, W)."""
        features = self.conv_stem(pixel_values)
        outputs = []
        for index, block in enumerate(self.layer):
            features = block(features)
            if index in (_MOBILENET_LOW_LEVEL_BLOCK, _MOBILENET_LAST_BLOCK):
                outputs.append(features)
        return outputs


class SegformerPyramid(nn.Module):
    """The first and the last stage of SegFormer's encoder (MiT), which offers no AutoBackbone."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        config = copy.deepcopy(config)
        config.reshape_last_stage = True
        self.network = SegformerModel(config)
        self.channels = [config.hidden_sizes[0], config.hidden_sizes[-1]]

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of the first (stride 4) and the last stage for (B, 3, H, W), multiples of 32."""
        stages = self.network(pixel_values, output_hidden_states=True).hidden_states
        return [stages[0], stages[-1]]


class ClipTokens(nn.Module):
    """Patch tokens of CLIP's image encoder after the given layers; it offers no AutoBackbone.

    The norm behind the last layer is left out: only the class token ever passes it.
    """

    def __init__(self, config: PreTrainedConfig, layers: Sequence[int]) -> None:
        super().__init__()
        self.network = CLIPVisionModel(copy.deepcopy(config))
        self.network.post_layernorm = nn.Identity()
        self.layers = list(layers)
        self.patch_size = square_patch_size(config)
        self.channels = [config.hidden_size] * len(self.layers)

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return one (B, C, H / p, W / p) per layer for (B, 3, H, W), multiples of the patch size p."""
        grid = [side // self.patch_size for side in pixel_values.shape[-2:]]
        states = self.network(pixel_values, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
        # Token 0 is the class token, state 0 the input of layer 1.
        return [states[layer][:, 1:].transpose(1, 2).unflatten(2, grid) for layer in self.layers]


class OffsetDinov2Embeddings(Dinov2Embeddings):
    """DINOv2's embeddings whose positions are resized as its original code does: `position_offset` patches too large.

    The original adds 0.1 to the number of patches against rounding, and resizes by that factor; transformers resizes to
    the number itself.
    """

    position_offset: float

    def interpolate_pos_encoding(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Return (1, 1 + h * w, C) for an image of h x w patches, (height, width) pixels."""
        patches = [side // size for side, size in zip((height, width), self.patch_embeddings.patch_size, strict=True)]
        class_position, positions = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        side = round(positions.shape[1] ** 0.5)
        if patches == [side, side]:
            return self.position_embeddings
        grid = positions.float().transpose(1, 2).unflatten(2, (side, side))
        factors = [(count + self.position_offset) / side for count in patches]
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([class_position, grid.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def square_patch_size(config: PreTrainedConfig) -> int:
    """Return the side of a vision transformer's patches in pixels.

    Raises:
        ValueError: The patches are no squares.
    """
    size = config.patch_size
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"the backbone {config.model_type!r} has patches of {tuple(size)} pixels; choose square ones")
    return int(sides.pop())


def build_transformer(config: PreTrainedConfig, layers: Sequence[int], position_offset: float) -> Any:
    """Build a plain vision transformer that gives the patch tokens after `layers` (from 1) as maps, normalised.

    CLIP's are not normalised: it has no norm for them.
    """
    if config.model_type == "clip_vision_model":
        return ClipTokens(config, layers)
    config = copy.deepcopy(config)
    config.reshape_hidden_states = True
    config.set_output_features_output_indices(out_features=[f"stage{layer}" for layer in layers], out_indices=None)
    encoder = AutoBackbone.from_config(config)
    _leave_out_mask_token(encoder.embeddings)
    if not getattr(config, "apply_layernorm", True) and hasattr(encoder, "layernorm"):
        encoder.layernorm = nn.Identity()
    if position_offset:
        # By its class, which renames no weight.
        encoder.embeddings.__class__ = OffsetDinov2Embeddings
        encoder.embeddings.position_offset = position_offset
    return encoder


def _leave_out_mask_token(embeddings: nn.Module) -> None:
    """Make the token of masked pretraining something that neither learns nor is saved.

    Still a tensor, because transformers initialises it by its name.
    """
    token = getattr(embeddings, "mask_token", None)
    if isinstance(token, nn.Parameter):
        del embeddings.mask_token
        embeddings.register_buffer("mask_token", torch.zeros_like(token), persistent=False)


def build_pyramid(config: PreTrainedConfig) -> Any:
    """Build an encoder that gives its stride-4 and its last features.

    Raises:
        ValueError: transformers has none for this `model_type`, or it has no features at stride 4.
    """
    if config.model_type == "segformer":
        return SegformerPyramid(config)
    try:
        encoder = AutoBackbone.from_config(config)
    except ValueError as error:
        raise ValueError(
            f"transformers has no backbone for the model_type {config.model_type!r}; choose a pyramid such as "
            "'resnet', 'convnext', 'swin' or 'mobilenet_v2', or a vision transformer such as 'dinov2'"
        ) from error
    if len(encoder.channels) != 2 or getattr(config, "downsample_in_first_stage", False):
        raise ValueError(
            f"the backbone {config.model_type!r} as configured has no feature at stride 4 before its last one; "
            "choose a pyramid with strides 4, 8, 16, 32"
        )
    if config.model_type == "swin":
        # Its final norm feeds the classification output only, and would never get a gradient.
        encoder.swin.layernorm = nn.Identity()
    return encoder
