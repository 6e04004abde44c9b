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
}
DILATED = [name for name in BACKBONES if name != "swin"]
