"""Segmenters of a few thousand weights, with or without what reconstructs."""

from __future__ import annotations

from pathlib import Path

import torch

from s4mim_hf import S4MIMConfig, S4MIMForSemanticSegmentation, S4MIMImageProcessor
from s4mim_hf.data.synthetic import CLASSES, PALETTE

BACKBONE = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}


def architecture(classes: tuple[str, ...] = CLASSES, **fields: object) -> S4MIMConfig:
    fields.setdefault("semantic_loss_ignore_index", -100)
    return S4MIMConfig(
        backbone_config=BACKBONE, decoder_channels=8, low_level_channels=8, mim_channels=8,
        id2label=dict(enumerate(classes)),
        # Wide enough for an untrained model to predict several classes.
        initializer_range=1.0,
        **fields,
    )  # fmt: skip


def save_segmenter(folder: Path, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Path:
    torch.manual_seed(seed)
    palette = [list(color) for color in PALETTE] if classes == CLASSES else None
    S4MIMForSemanticSegmentation(architecture(classes, palette=palette)).save_pretrained(folder)
    S4MIMImageProcessor().save_pretrained(folder)
    return folder
