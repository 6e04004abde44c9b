"""S4MIM for 48-pixel crops and an untrained teacher, and its masked view of a batch."""

from __future__ import annotations

from typing import Any

import torch

from s4mim_hf.data.loaders import Batch
from s4mim_hf.methods import S4MIMMethodConfig, StepContext
from s4mim_hf.methods.masked_view import MaskedView, SemanticTargets
from s4mim_hf.methods.s4mim import S4MIM
from s4mim_hf.methods.s4mim_config import AggregationConfig, MaskingConfig, ReconstructionConfig, SemanticConfig
from s4mim_hf.methods.unlabeled import unlabeled_images


def masks(**fields: Any) -> MaskingConfig:
    """Return masks of weak views, labelled ones too, of small patches: whatever the defaults are."""
    return MaskingConfig(**{"patch_size": 8, "ratio": 0.6, "images": "labeled_and_unlabeled", "view": "weak", **fields})


def semantics(**fields: Any) -> SemanticConfig:
    """Return a term over the pixels that the teacher knows, each of which counts fully: whatever the defaults are."""
    fixed = {"weight": 0.5, "average_over": "known", "unlabeled_weighting": "threshold", "labels_from": "teacher"}
    return SemanticConfig(**{**fixed, **fields})


TERMS = {
    "reconstruction": {"reconstruction": ReconstructionConfig(weight=0.1)},
    "aggregation": {"aggregation": AggregationConfig(weight=0.1)},
    "semantic": {"semantic": semantics()},
}
NO_TERMS: dict[str, Any] = {
    "reconstruction": ReconstructionConfig(weight=0),
    "aggregation": AggregationConfig(weight=0),
    "semantic": SemanticConfig(weight=0),
}


def config(**fields: Any) -> S4MIMMethodConfig:
    """Return a config of small patches, one strong view, the teacher's labels, and thresholds reached untrained."""
    small: dict[str, Any] = {
        "masking": masks(),
        "semantic": semantics(),
        "threshold": 0.25,
        "class_map_threshold": 0.25,
        "strong_views": 1,
        "pseudo_labels_from": "teacher",
    }
    return S4MIMMethodConfig(**{**small, **fields})


def masked_view(method: S4MIM, batch: Batch, context: StepContext, teacher: torch.nn.Module) -> MaskedView:
    """Return the masked view of the clean images, as the method makes it from weak views."""
    weak, valid = unlabeled_images(batch, method.name)
    unlabeled = method.normalize(weak)
    pseudo = method.pseudo_labels(teacher, unlabeled, valid)
    return method.masked_view(method.normalize(batch.labeled_images), batch.labels.long(), unlabeled, pseudo, context)


def semantic_targets(method: S4MIM, batch: Batch, context: StepContext, teacher: torch.nn.Module) -> SemanticTargets:
    """Return what the masked view of the clean images has to predict, by the teacher's labels."""
    weak, valid = unlabeled_images(batch, method.name)
    pseudo = method.pseudo_labels(teacher, method.normalize(weak), valid)
    mask = masked_view(method, batch, context, teacher).patch_mask
    return method.semantic_targets(batch.labels.long(), pseudo, mask)
