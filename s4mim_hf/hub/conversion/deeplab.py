"""The DeepLabV3+ that UniMatch and CorrMatch share, on their ResNet with a deep stem or on their Xception-65.

Theirs differs from our default in its stem, in corners that are aligned where maps are enlarged, in the order in which
stride-4 and deep features are joined, and in having no dropout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from s4mim_hf.errors import InputError
from s4mim_hf.hub.conversion.renaming import check_shapes, count_numbered, normalized, rename, shape_of
from s4mim_hf.modeling import S4MIMConfig

_ENCODER = "backbone.encoder"
_HEAD = "decode_head"
# Their Xception-65's BatchNorm keeps this share of each batch's statistics.
_XCEPTION_MOMENTUM = 0.0003
_XCEPTION_ENTRY, _XCEPTION_TAIL = 3, 3
_BOTTLENECK = 4


def convert_deeplab(
    state: Mapping[str, torch.Tensor], *, output_stride: int, rates: Sequence[int], left_out: tuple[str, ...] = ()
) -> tuple[S4MIMConfig, dict[str, torch.Tensor]]:
    """Read the architecture from the weights' shapes, and give them our names.

    Args:
        state: tensors by the peer's names.
        output_stride: of a ResNet, which no shape tells. Their Xception has 16.
        rates: dilations of the pyramid's three 3x3 branches, which no shape tells. Nor does one tell a ResNet's
            multi-grid: none is taken.
        left_out: prefixes of weights that only training reads.

    Returns:
        The architecture, and every weight of our segmenter.

    Raises:
        InputError: a weight is missing, more than the network has, or of a shape that does not fit.
    """
    if "backbone.block1.skip.weight" in state:
        backbone, names = _xception(state)
        output_stride, variant = 16, {}
    else:
        backbone, names = _resnet(state)
        variant = {"deep_stem": True}
    names |= _head_names()
    weights = rename(state, names, left_out)
    config = S4MIMConfig(
        backbone_config=backbone,
        output_stride=output_stride,
        aspp_rates=list(rates),
        decoder_channels=shape_of(state, "head.project.0.weight")[0],
        low_level_channels=shape_of(state, "reduce.0.weight")[0],
        decoder_dropout=0.0,
        align_corners=True,
        low_level_first=True,
        num_labels=shape_of(state, "classifier.weight")[0],
        mask_token="none",
        mim_decoder=False,
        **variant,
    )
    check_shapes(config, weights, names)
    return config, weights


def _resnet(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a ResNet's configuration for transformers, and its weights' names, ours by theirs."""
    stages = [f"backbone.layer{number}" for number in (1, 2, 3, 4)]
    depths = [count_numbered(state, f"{stage}.") for stage in stages]
    widths = [shape_of(state, f"{stage}.0.conv3.weight")[0] for stage in stages]
    inner = shape_of(state, f"{stages[0]}.0.conv1.weight")[0]
    if inner * _BOTTLENECK != widths[0]:
        raise InputError(
            f"'{stages[0]}.0.conv1.weight' makes {inner} channels, but a bottleneck of {widths[0]} has "
            f"{widths[0] // _BOTTLENECK}; wide and grouped ResNets cannot be converted"
        )
    names: dict[str, str] = {}
    stem = f"{_ENCODER}.embedder.convolutions"
    for theirs, norm, ours in (("conv1.0", "conv1.1", 0), ("conv1.3", "conv1.4", 3), ("conv1.6", "bn1", 6)):
        names |= normalized(f"backbone.{theirs}", f"backbone.{norm}", (f"{stem}.{ours}", f"{stem}.{ours + 1}"))
    for index, (stage, depth) in enumerate(zip(stages, depths, strict=True)):
        for layer in range(depth):
            their_layer, our_layer = f"{stage}.{layer}", f"{_ENCODER}.encoder.stages.{index}.layers.{layer}"
            for part in range(3):
                ours_part = f"{our_layer}.layer.{part}"
                names |= normalized(
                    f"{their_layer}.conv{part + 1}",
                    f"{their_layer}.bn{part + 1}",
                    (f"{ours_part}.convolution", f"{ours_part}.normalization"),
                )
        shortcut = f"{_ENCODER}.encoder.stages.{index}.layers.0.shortcut"
        names |= normalized(
            f"{stage}.0.downsample.0",
            f"{stage}.0.downsample.1",
            (f"{shortcut}.convolution", f"{shortcut}.normalization"),
        )
    config = {
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "embedding_size": shape_of(state, "backbone.conv1.6.weight")[0],
        "hidden_sizes": widths,
        "depths": depths,
    }
    return config, names


def _xception(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return Xception's configuration, and its weights' names, ours by theirs."""
    blocks = _count_blocks(state)
    projected = [*range(_XCEPTION_ENTRY), blocks - 1]
    stem = f"{_ENCODER}.stem"
    names = normalized("backbone.conv1", "backbone.bn1", (f"{stem}.0", f"{stem}.1"))
    names |= normalized("backbone.conv2", "backbone.bn2", (f"{stem}.3", f"{stem}.4"))
    for index in range(blocks):
        theirs, ours = f"backbone.block{index + 1}", f"{_ENCODER}.blocks.{index}"
        if index in projected:
            names |= normalized(f"{theirs}.skip", f"{theirs}.skipbn", (f"{ours}.shortcut.0", f"{ours}.shortcut.1"))
        for part in range(3):
            names |= _separable(f"{theirs}.sepconv{part + 1}", f"{ours}.layers.{part}")
    for part in range(_XCEPTION_TAIL):
        names |= _separable(f"backbone.conv{part + 3}", f"{_ENCODER}.tail.{part}")

    def width(name: str) -> int:
        return int(shape_of(state, f"backbone.{name}.weight")[0])

    config = {
        "model_type": "xception",
        "stem_channels": [width("conv1"), width("conv2")],
        "entry_channels": [width(f"block{index + 1}.skip") for index in range(_XCEPTION_ENTRY)],
        "middle_blocks": blocks - _XCEPTION_ENTRY - 1,
        "exit_channels": [
            width(f"block{blocks}.skip"),
            *(width(f"conv{part + 3}.pointwise") for part in range(_XCEPTION_TAIL)),
        ],
        "batch_norm_momentum": _XCEPTION_MOMENTUM,
    }
    return config, names


def _count_blocks(state: Mapping[str, torch.Tensor]) -> int:
    """Count Xception's blocks, which are numbered from 1."""
    numbered = (re.match(r"backbone\.block(\d+)\.", key) for key in state)
    blocks = count_numbered((f"{int(match[1]) - 1}." for match in numbered if match), "")
    return max(blocks, _XCEPTION_ENTRY + 1)


def _separable(theirs: str, ours: str) -> dict[str, str]:
    names = normalized(f"{theirs}.depthwise", f"{theirs}.bn1", (f"{ours}.depthwise", f"{ours}.depthwise_norm"))
    return names | normalized(f"{theirs}.pointwise", f"{theirs}.bn2", (f"{ours}.pointwise", f"{ours}.pointwise_norm"))


def _head_names() -> dict[str, str]:
    """Return the decoder's names, ours by theirs."""
    units = {
        "head.b0": "pyramid.branches.0",
        "head.b1": "pyramid.branches.1",
        "head.b2": "pyramid.branches.2",
        "head.b3": "pyramid.branches.3",
        "head.project": "pyramid.project",
        "reduce": "reduce_low_level",
    }
    names: dict[str, str] = {}
    for theirs, ours in units.items():
        names |= normalized(f"{theirs}.0", f"{theirs}.1", (f"{_HEAD}.{ours}.0", f"{_HEAD}.{ours}.1"))
    pooling = f"{_HEAD}.pyramid.branches.4.project"
    names |= normalized("head.b4.gap.1", "head.b4.gap.2", (f"{pooling}.0", f"{pooling}.1"))
    for index in range(2):
        theirs_at, ours_at = 3 * index, f"{_HEAD}.fuse.{index}"
        names |= normalized(f"fuse.{theirs_at}", f"fuse.{theirs_at + 1}", (f"{ours_at}.0", f"{ours_at}.1"))
    return names | {f"classifier.{part}": f"{_HEAD}.classifier.{part}" for part in ("weight", "bias")}
