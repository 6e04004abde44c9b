"""Encoders as a pyramid of two maps: features at stride 4 and the last ones at the output stride.

Legend: B images, H x W pixels, r the stride of a feature. A feature of stride r has ceil(H/r) x ceil(W/r) positions,
and position i stands for pixels i*r .. i*r + r - 1, for every encoder and every size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoBackbone, AutoConfig, MobileNetV2Model, PreTrainedConfig
from transformers.utils import logging

LOW_LEVEL_STRIDE = 4
NATIVE_STRIDE = 32

# Encoders whose own layers round sizes up; all others are given inputs padded to a multiple of their largest stride.
_ROUND_UP = frozenset({"resnet", "mobilenet_v2", "swin"})
_CAN_DILATE = frozenset({"resnet", "convnext", "mobilenet_v2"})

# MobileNetV2's inverted residual blocks 1 and 15 (counted after the stem) end strides 4 and 32.
_MOBILENET_LOW_LEVEL_BLOCK = 1
_MOBILENET_LAST_BLOCK = 15


class Pyramid(NamedTuple):
    """An encoder's features.

    Attributes:
        low_level: (B, C_low, ceil(H/4), ceil(W/4)).
        last: (B, C, ceil(H/r), ceil(W/r)) with r the output stride.
    """

    low_level: torch.Tensor
    last: torch.Tensor


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


class Backbone(nn.Module):
    """An encoder with randomly initialised weights, at the asked output stride.

    Args:
        config: The encoder's configuration; with `stage_names` it must be set to output its first and last stage.
        output_stride: 8, 16, 32, or None for the encoder's own.

    Raises:
        ValueError: The encoder is no pyramid, or cannot be brought to this output stride.
    """

    def __init__(self, config: PreTrainedConfig, output_stride: int | None) -> None:
        super().__init__()
        self.output_stride = resolve_output_stride(config, output_stride)
        self._rounds_up = config.model_type in _ROUND_UP
        self.model_type: str = config.model_type
        if config.model_type == "mobilenet_v2":
            config = copy.deepcopy(config)
            config.output_stride = self.output_stride
            self.encoder: Any = MobileNetV2Pyramid(config)
        else:
            self.encoder = _build_auto_backbone(config)
            _set_output_stride(self.encoder, config.model_type, self.output_stride)
        self.low_level_channels, self.channels = self.encoder.channels
        self.in_channels = getattr(config, "num_channels", 3)

    def forward(self, pixel_values: torch.Tensor) -> Pyramid:
        """Encode (B, 3, H, W) normalised images, of any H, W >= 1.

        Raises:
            ValueError: The encoder's features are not at strides 4 and `output_stride`.
        """
        height, width = pixel_values.shape[-2:]
        if not self._rounds_up:
            pixel_values = _pad_to_multiple(pixel_values, NATIVE_STRIDE)
        outputs = self.encoder(pixel_values)
        low_level, last = outputs if isinstance(outputs, list) else outputs.feature_maps
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
    native = int(config.output_stride) if config.model_type == "mobilenet_v2" else NATIVE_STRIDE
    if output_stride is None or output_stride == native:
        return native
    if config.model_type not in _CAN_DILATE:
        raise ValueError(
            f"S4MIMConfig.output_stride is {output_stride}, but the backbone {config.model_type!r} cannot be dilated "
            f"and exists at stride {native} only; leave output_stride out, or choose a backbone among "
            f"{', '.join(sorted(_CAN_DILATE))}"
        )
    return output_stride


def _build_auto_backbone(config: PreTrainedConfig) -> Any:
    try:
        encoder = AutoBackbone.from_config(config)
    except ValueError as error:
        raise ValueError(
            f"transformers has no backbone for the model_type {config.model_type!r}; choose a pyramid such as "
            "'resnet', 'convnext', 'swin' or 'mobilenet_v2'"
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


def load_backbone_weights(backbone: Backbone, name_or_path: str) -> None:
    """Fill `backbone` with the pretrained weights of a Hub name or a local folder, in place.

    Raises:
        ValueError: The checkpoint cannot be had, or lacks a weight of the encoder.
    """
    # Not by AutoBackbone.from_pretrained: that asks the Hub about a local folder's name, and fails.
    is_mobilenet = isinstance(backbone.encoder, MobileNetV2Pyramid)
    loader = MobileNetV2Model if is_mobilenet else type(backbone.encoder)
    wanted = {} if is_mobilenet else {"config": backbone.encoder.config}
    try:
        with _quiet():
            pretrained, report = loader.from_pretrained(name_or_path, output_loading_info=True, **wanted)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the weights of the backbone {name_or_path!r} cannot be loaded: {_one_line(error)}"
        ) from error
    own = backbone.encoder.state_dict()
    missing = sorted(key for key in report["missing_keys"] if key in own and not _may_be_missing(key))
    if missing:
        raise ValueError(
            f"the checkpoint {name_or_path!r} lacks {len(missing)} weights of its own architecture, the first being "
            f"{missing[0]!r}; they would be random, so choose a complete checkpoint"
        )
    state = pretrained.state_dict()
    backbone.encoder.load_state_dict({key: state[key] for key in own})


def load_backbone_config(name_or_path: str) -> PreTrainedConfig:
    """Read an encoder's configuration from a Hub name or a local folder, without its classes' names.

    Raises:
        ValueError: It cannot be had.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the backbone {name_or_path!r} is neither a folder with a config.json nor a model that the Hub gives: "
            f"{_one_line(error)}"
        ) from error
    config.architectures = None
    # ImageNet's thousand names would otherwise travel along in every saved configuration.
    config.num_labels = 2
    return config


def _may_be_missing(key: str) -> bool:
    """Say whether a classifier's checkpoint rightly lacks `key`.

    A backbone's norms of its outputs exist in no classifier: they start as the identity scale that they are made with.
    """
    return key.startswith("hidden_states_norms.") or key.endswith("num_batches_tracked")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' table of a classifier's leftover weights: what is missing is our own error."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


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
