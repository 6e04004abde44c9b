"""The network of a run: a segmenter, the heads that its method needs, and how its BatchNorm treats views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.engine.run_config import ModelConfig, RunConfig
from s4mim_hf.errors import InputError, nearest
from s4mim_hf.methods import Method
from s4mim_hf.methods.base import ModelRequirements
from s4mim_hf.modeling import (
    S4MIMConfig,
    S4MIMForSemanticSegmentation,
    S4MIMForSemiSupervisedSegmentation,
    convert_batch_norm,
    freeze_batch_norm,
)
from s4mim_hf.modeling.backbone_weights import load_backbone_config
from s4mim_hf.modeling.backbones import LOW_LEVEL_STRIDE, NATIVE_STRIDE
from s4mim_hf.modeling.configuration_xception import backbone_config_class
from s4mim_hf.modeling.encoders import square_patch_size
from s4mim_hf.modeling.xception import NATIVE_STRIDE as XCEPTION_STRIDE
from s4mim_hf.randomness import derive_seed

Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What a family's published ImageNet weights were trained with, where it is not the usual one.
STATISTICS_BY_FAMILY: dict[str, tuple[Triple, Triple]] = {
    "clip_vision_model": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "mobilenet_v2": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


# What torch, transformers and huggingface_hub raise for an architecture that cannot be built.
_REFUSALS = (
    ValueError, OSError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, StrictDataclassError,
)  # fmt: skip


@contextmanager
def _explained(key: str, advice: str = "correct it, or name another backbone") -> Iterator[None]:
    """Turn a sentence of the model folder, which cannot know our errors, into one about a key."""
    try:
        yield
    except InputError:
        raise
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS as error:
        raise InputError(f"{key}: {' '.join(str(error).split())}; {advice}") from None


def image_statistics(config: RunConfig, model_type: str) -> tuple[Triple, Triple]:
    """Return mean and standard deviation per channel: the config's, else the backbone family's."""
    if config.data.image_mean is not None and config.data.image_std is not None:
        return config.data.image_mean, config.data.image_std
    return STATISTICS_BY_FAMILY.get(model_type, IMAGENET)


def build_segmenter(config: ModelConfig, data: PreparedData, seed: int) -> S4MIMForSemanticSegmentation:
    """Build the segmenter, on pretrained weights where the config names some; the rest starts from the seed.

    Raises:
        InputError: the backbone is unknown, cannot be had, lacks weights, or has no such output stride.
    """
    torch.manual_seed(derive_seed(seed, "initial-weights"))
    fields = {
        "output_stride": config.output_stride,
        "deep_stem": config.deep_stem,
        "multi_grid": None if config.multi_grid is None else list(config.multi_grid),
        "decode_head": config.decode_head,
        "decoder_channels": config.decoder_channels,
        "low_level_channels": config.low_level_channels,
        "aspp_rates": None if config.aspp_rates is None else list(config.aspp_rates),
        "decoder_dropout": config.decoder_dropout,
        "separable_convolutions": config.separable_convolutions,
        "align_corners": config.align_corners,
        "low_level_first": config.low_level_first,
        "dpt_layers": None if config.dpt_layers is None else list(config.dpt_layers),
        "dpt_channels": None if config.dpt_channels is None else list(config.dpt_channels),
        "dpt_align_corners": config.dpt_align_corners,
        "position_embedding_offset": config.position_embedding_offset,
        "mim_features": config.mim_features,
        "id2label": data.id2label,
        "label2id": {name: class_id for class_id, name in data.id2label.items()},
        "palette": [list(color) for color in data.palette],
        "semantic_loss_ignore_index": data.ignore_index,
        "mask_token": "none",
        "mim_decoder": False,
    }
    if config.backbone is not None:
        with _explained(f"model.backbone={config.backbone}"):
            return S4MIMForSemanticSegmentation.from_pretrained_backbone(config.backbone, **fields)
    check_backbone_keys(dict(config.backbone_config or {}))
    with _explained("model.backbone_config"):
        return S4MIMForSemanticSegmentation(S4MIMConfig(backbone_config=dict(config.backbone_config or {}), **fields))


def check_backbone_keys(backbone_config: dict[str, Any]) -> None:
    """Refuse a key that the backbone's configuration class does not have: transformers would keep it and ignore it.

    Raises:
        InputError: naming the key and the nearest one.
    """
    model_type = backbone_config.get("model_type")
    config_class = backbone_config_class(model_type)
    if config_class is None:
        return  # S4MIMConfig says so, with the nearest name
    known = {*config_class().to_dict(), *config_class.attribute_map, "num_labels", "out_features", "out_indices"}
    for key in backbone_config:
        if key not in known:
            raise InputError(
                f"unknown key 'model.backbone_config.{key}': {model_type} has no such setting{nearest(key, known)}"
            )


def check_segmenter(segmenter: S4MIMForSemanticSegmentation) -> None:
    """Run one small image through the segmenter, so that an architecture that cannot work fails before anything else.

    Raises:
        InputError: the backbone takes no RGB images, or its parts do not fit each other.
    """
    channels = segmenter.backbone.in_channels
    if channels != 3:
        raise InputError(
            f"the backbone takes images of {channels} channels, but photographs have 3; choose another one"
        )
    with _explained("model.backbone_config"), torch.no_grad():
        segmenter.eval()(torch.zeros(1, 3, 64, 64))
    segmenter.train()


def planned_strides(config: ModelConfig) -> tuple[int, int | None]:
    """Return what z's stride and the backbone's patch size (None: it has none) will be, before anything is built.

    Raises:
        InputError: the backbone cannot be had, or does not fit the decode head.
    """
    if config.decode_head == "deeplabv3plus":
        own = XCEPTION_STRIDE if (config.backbone_config or {}).get("model_type") == "xception" else NATIVE_STRIDE
        return (LOW_LEVEL_STRIDE if config.mim_features == "decoder" else config.output_stride or own), None
    key = "model.backbone_config" if config.backbone is None else f"model.backbone={config.backbone}"
    with _explained(key):
        given = config.backbone_config if config.backbone is None else load_backbone_config(config.backbone)
        resolved = S4MIMConfig(backbone_config=given, decode_head=config.decode_head).backbone_config
        patch_size = square_patch_size(resolved)
    return (patch_size // 2 if config.mim_features == "decoder" else patch_size), patch_size


def check_crop(config: RunConfig, patch_size: int | None) -> None:
    """Refuse crops that are no whole number of a vision transformer's patches: their last patches would be half empty.

    Args:
        config: the run's.
        patch_size: side of a patch in pixels; None: the backbone has none.

    Raises:
        InputError: naming the nearest sizes that fit.
    """
    crop = config.data.views.crop_size
    if patch_size is None or crop % patch_size == 0:
        return
    below, above = crop // patch_size * patch_size, (crop // patch_size + 1) * patch_size
    # The nearer one first.
    fitting = [size for size in sorted((below, above), key=lambda size: abs(size - crop)) if size]
    raise InputError(
        f"data.views.crop_size is {crop}, not a multiple of the backbone's patch of {patch_size} pixels; use "
        f"{' or '.join(map(str, fitting))}"
    )


def decoder_reach(config: ModelConfig, feature_stride: int) -> int | None:
    """Return how many pixels the reconstruction decoder would see to each side of a position; None: its whole class.

    The decoder's own `reach`, known before it is built.

    Args:
        config: the model's.
        feature_stride: pixels per position of z.
    """
    if config.mim_decoder_type == "attention":
        return None
    return config.mim_depth * (config.mim_kernel_size // 2) * feature_stride


def add_training_heads(
    segmenter: S4MIMForSemanticSegmentation, config: ModelConfig, method: Method
) -> S4MIMForSemiSupervisedSegmentation:
    """Put beside the segmenter the heads that an active term needs, and no others.

    Raises:
        InputError: the heads do not fit the segmenter, each other or the device.
    """
    needs = method.model_requirements()
    attends = needs.mim_decoder and config.mim_decoder_type == "attention"
    if attends and config.mim_attention == "flex" and not torch.cuda.is_available():
        raise InputError(
            "model.mim_attention is flex, which learns on CUDA only, and no such device is found; use auto or sdpa"
        )
    if config.freeze_backbone:
        _check_frozen(config, needs)
    architecture = segmenter.config.to_dict() | {
        "mask_token": config.mask_token if needs.mask_token else "none",
        "mim_decoder": needs.mim_decoder,
        "mim_projection_channels": config.mim_projection_channels if needs.mim_features else None,
        "mim_decoder_type": config.mim_decoder_type,
        "mim_channels": config.mim_channels,
        "mim_depth": config.mim_depth,
        "mim_kernel_size": config.mim_kernel_size,
        "mim_expansion": config.mim_expansion,
        "mim_attention_stride": config.mim_attention_stride,
        "mim_num_heads": config.mim_num_heads,
        "mim_attention": config.mim_attention,
        "masked_features": config.masked_features,
    }
    with _explained("model", "correct it"):
        return S4MIMForSemiSupervisedSegmentation.from_segmenter(segmenter, S4MIMConfig.from_dict(architecture))


def _check_frozen(config: ModelConfig, needs: ModelRequirements) -> None:
    """Refuse what could only learn through a backbone that is frozen."""
    if needs.mask_token and config.mask_token == "learned":
        raise InputError(
            "model.freeze_backbone is true, so model.mask_token=learned would never get a gradient; use "
            "model.mask_token=zero"
        )
    if needs.mim_features and config.mim_features == "encoder":
        raise InputError(
            "model.freeze_backbone is true, so the terms on z would teach the model nothing with "
            "model.mim_features=encoder; use decoder"
        )


def set_up_normalization(model: S4MIMForSemiSupervisedSegmentation, config: RunConfig) -> None:
    """Make BatchNorm know view groups, freeze the backbone's or share it between processes, as the config says."""
    if config.model.sync_batch_norm and not torch.cuda.is_available():
        raise InputError("model.sync_batch_norm is true, which needs GPUs, and none is found; set it to false")
    convert_batch_norm(model.segmenter, sync=config.model.sync_batch_norm)
    momentum = config.model.batch_norm_momentum
    for module in model.modules():
        if momentum is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum
    if config.method.normalization.statistics == "frozen_backbone":
        freeze_batch_norm(model.segmenter.backbone)


def freeze_backbone(model: S4MIMForSemiSupervisedSegmentation, config: ModelConfig) -> None:
    """Take the backbone out of the training where the config says so, after its layers were last replaced."""
    if config.freeze_backbone:
        model.segmenter.backbone.freeze()
