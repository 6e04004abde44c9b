"""Tiny encoders of every kind that the models support."""

from __future__ import annotations

from typing import Any

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 2, 2]}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet-basic": {**RESNET, "layer_type": "basic"},
    "resnet-bottleneck": {**RESNET, "layer_type": "bottleneck"},
    "resnet-caffe": {**RESNET, "layer_type": "bottleneck", "downsample_in_bottleneck": True},
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    "swin": {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
    },
    "mobilenet_v2": {"model_type": "mobilenet_v2", "depth_multiplier": 0.35},
    "segformer": {
        "model_type": "segformer",
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 2, 1],
        "num_attention_heads": [1, 1, 2, 2],
    },
    "dinov3_convnext": {"model_type": "dinov3_convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
}
DILATED = [name for name in BACKBONES if name not in ("swin", "segformer", "dinov3_convnext")]
PYRAMIDS = list(BACKBONES)

_TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}
BACKBONES |= {
    "dinov2": {"model_type": "dinov2", "patch_size": 14, "image_size": 56, **_TRANSFORMER},
    "dinov2_with_registers": {
        "model_type": "dinov2_with_registers",
        "patch_size": 14,
        "image_size": 56,
        "num_register_tokens": 3,
        **_TRANSFORMER,
    },
    "dinov3": {"model_type": "dinov3_vit", "intermediate_size": 64, "num_register_tokens": 3, **_TRANSFORMER},
    "clip": {
        "model_type": "clip_vision_model",
        "patch_size": 16,
        "image_size": 64,
        "intermediate_size": 64,
        **_TRANSFORMER,
    },
}
TRANSFORMERS = [name for name in BACKBONES if name not in PYRAMIDS]


def head_of(name: str) -> str:
    """Return the decode head that fits a backbone."""
    return "dpt" if name in TRANSFORMERS else "deeplabv3plus"
