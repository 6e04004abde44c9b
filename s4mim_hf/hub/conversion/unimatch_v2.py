"""UniMatch V2's weights (arXiv 2410.10777, github.com/LiheYoung/UniMatch-V2) as ours: DINOv2 with a DPT head.

Its `DPT` model holds `backbone` (DINOv2's original names; query, key and value in one matrix) and `head`. The logits
are the same to rounding for images whose sides are multiples of 14; other images are resized to that before its
network, and padded to it inside ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from s4mim_hf.errors import InputError, some
from s4mim_hf.modeling.configuration_s4mim import S4MIMConfig, even_layers
from s4mim_hf.modeling.modeling_s4mim import S4MIMForSemanticSegmentation

METHOD = "UniMatch V2"
# Every published size of DINOv2 has heads of 64 channels.
_HEAD_CHANNELS = 64
# The layers that its code takes, counted from 1; for 24 they are not evenly spaced.
_LAYERS = {24: [5, 12, 18, 24]}
# What never enters the logits: the token of masked pretraining, and a unit that the coarsest fusion has nothing for.
LEFT_OUT = ("backbone.mask_token", "head.scratch.refinenet4.resConfUnit1.")
_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.")


def convert(state: Mapping[str, Tensor]) -> tuple[S4MIMConfig, dict[str, Tensor]]:
    """Turn the state dict of UniMatch V2's model into ours.

    Args:
        state: its `DPT` model's tensors by name, with or without the prefix `module.` of a distributed run.

    Returns:
        The architecture, its classes not yet named, and the state dict of `S4MIMForSemanticSegmentation`, float32.

    Raises:
        InputError: a tensor is absent, left over or of another shape than this architecture has.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    config = _architecture(given)
    backbone: Any = config.backbone_config
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in S4MIMForSemanticSegmentation(config).state_dict().items()}
    converted: dict[str, Tensor] = {}
    used: set[str] = set()
    for source, targets in _sources(backbone, wanted):
        tensor = _take(given, source)
        used.add(source)
        for target, part in zip(targets, tensor.float().chunk(len(targets)), strict=True):
            if part.shape != wanted[target]:
                raise InputError(
                    f"{source} has the shape {tuple(tensor.shape)}, which does not fit {METHOD}'s network of "
                    f"{backbone.num_hidden_layers} layers of {backbone.hidden_size} channels; give the model's "
                    "own weights, unchanged"
                )
            converted[target] = part.clone()
    left = sorted(name for name in given if name not in used and not name.startswith(LEFT_OUT))
    if left:
        raise InputError(
            f"the checkpoint holds {len(left)} tensors that {METHOD}'s network does not have ({some(left)}); name the "
            "method that it is from"
        )
    return config, converted


def _take(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise InputError(
            f"the checkpoint lacks {name}, which {METHOD}'s network has; give the state dict of its DPT model, or name "
            "the method that the checkpoint is from"
        )
    return state[name]


def _architecture(state: Mapping[str, Tensor]) -> S4MIMConfig:
    """Read sizes off the shapes."""
    positions, patches = _take(state, "backbone.pos_embed"), _take(state, "backbone.patch_embed.proj.weight")
    classifier = _take(state, "head.scratch.output_conv.2.weight")
    projected = [_take(state, f"head.projects.{index}.weight").shape[0] for index in range(4)]
    hidden, depth = (
        patches.shape[0],
        1 + max((int(found[1]) for found in map(_BLOCK.match, state) if found), default=-1),
    )
    side = math.isqrt(positions.shape[1] - 1)
    if hidden % _HEAD_CHANNELS or depth < 4 or side * side != positions.shape[1] - 1:
        raise InputError(
            f"the checkpoint's backbone has {depth} layers of {hidden} channels and {positions.shape[1] - 1} patches, "
            f"which is no DINOv2 (heads of {_HEAD_CHANNELS} channels, square images); give {METHOD}'s own weights"
        )
    backbone = {
        "model_type": "dinov2",
        "hidden_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": hidden // _HEAD_CHANNELS,
        "patch_size": patches.shape[-1],
        "image_size": side * patches.shape[-1],
        "use_swiglu_ffn": "backbone.blocks.0.mlp.w12.weight" in state,
    }
    return S4MIMConfig(
        backbone_config=backbone,
        decode_head="dpt",
        decoder_channels=classifier.shape[1],
        decoder_dropout=0.0,
        dpt_layers=_LAYERS.get(depth, even_layers(depth)),
        dpt_channels=projected,
        position_embedding_offset=0.1,
        mask_token="none",
        mim_decoder=False,
        num_labels=classifier.shape[0],
    )


def _sources(backbone: Any, wanted: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    """Yield each of their names with the names of ours that it is, or is cut into along its first dimension."""
    ours = "backbone.encoder.embeddings."
    yield "backbone.cls_token", [f"{ours}cls_token"]
    yield "backbone.pos_embed", [f"{ours}position_embeddings"]
    for part in ("weight", "bias"):
        yield f"backbone.patch_embed.proj.{part}", [f"{ours}patch_embeddings.projection.{part}"]
        yield f"backbone.norm.{part}", [f"backbone.encoder.layernorm.{part}"]
        for layer in range(backbone.num_hidden_layers):
            for theirs, names in _block(backbone.use_swiglu_ffn):
                # transformers has renamed layers since the oldest release that we run on.
                prefix = f"backbone.encoder.encoder.layer.{layer}."
                found = next((one for one in names if f"{prefix}{one[0]}.{part}" in wanted), names[0])
                yield f"backbone.blocks.{layer}.{theirs}.{part}", [f"{prefix}{name}.{part}" for name in found]
        for theirs, name in _head():
            if f"decode_head.{name}.{part}" in wanted:
                yield f"head.{theirs}.{part}", [f"decode_head.{name}.{part}"]
    for layer in range(backbone.num_hidden_layers):
        for number in ("1", "2"):
            target = f"backbone.encoder.encoder.layer.{layer}.layer_scale{number}.lambda1"
            yield f"backbone.blocks.{layer}.ls{number}.gamma", [target]


def _block(swiglu: bool) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield their modules of a transformer block, each with ours by the names of several releases."""
    yield "norm1", [["norm1"]]
    yield "norm2", [["norm2"]]
    old = "attention.attention."
    queries = [
        ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        [f"{old}query", f"{old}key", f"{old}value"],
    ]
    yield "attn.qkv", queries
    yield "attn.proj", [["attention.o_proj"], ["attention.output.dense"]]
    if swiglu:
        yield "mlp.w12", [["mlp.gate_proj", "mlp.up_proj"], ["mlp.weights_in"]]
        yield "mlp.w3", [["mlp.down_proj"], ["mlp.weights_out"]]
    else:
        yield "mlp.fc1", [["mlp.fc1"]]
        yield "mlp.fc2", [["mlp.fc2"]]


def _head() -> Iterator[tuple[str, str]]:
    """Yield their modules of the DPT head with ours; those without a bias, or that do nothing, are sorted out later."""
    for index in range(4):
        yield f"projects.{index}", f"projections.{index}"
        yield f"resize_layers.{index}", f"resizings.{index}"
        yield f"scratch.layer{index + 1}_rn", f"reductions.{index}"
        block, fusion = f"scratch.refinenet{index + 1}", f"fusions.{index}"
        for theirs, name in (("resConfUnit1", "skip"), ("resConfUnit2", "refine")):
            yield f"{block}.{theirs}.conv1", f"{fusion}.{name}.first"
            yield f"{block}.{theirs}.conv2", f"{fusion}.{name}.second"
        yield f"{block}.out_conv", f"{fusion}.project"
    yield "scratch.output_conv.0", "smooth"
    yield "scratch.output_conv.2", "classifier"


__all__ = ["convert"]
