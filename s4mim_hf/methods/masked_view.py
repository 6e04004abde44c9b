"""What S4MIM hides from the student, and what it knows of the images that it hides parts of.

Shapes: B_m masked images of H x W pixels, h x w positions of z.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from s4mim_hf.masking import (
    class_balanced_grid,
    downsample_class_map,
    draw_patch_grid,
    draw_patch_scores,
    expand_grid,
)
from s4mim_hf.methods.s4mim_config import MaskingConfig
from s4mim_hf.transfers import to_device


class MaskedView(NamedTuple):
    """The images that are masked, and what is known of them; no gradient anywhere.

    Args:
        images: x, float, (B_m, 3, H, W), unmasked and normalised: labelled rows first, where those are masked too.
        patch_mask: M, bool, (B_m, 1, H, W).
        class_map: s, int64, (B_m, H, W).
        feature_mask: M↓, bool, (B_m, 1, h, w); None, like s↓, where no term reads features.
        position_classes: s↓, int64, (B_m, h, w).
    """

    images: Tensor
    patch_mask: Tensor
    class_map: Tensor
    feature_mask: Tensor | None = None
    position_classes: Tensor | None = None


class SemanticTargets(NamedTuple):
    """What L_sem has the masked view predict; no gradient anywhere.

    Args:
        labels: int64, (B_m, H, W): s, or with weighting by confidence every pseudo-label.
        weights: float32 in [0, 1], (B_m, H, W).
        averaged_over: bool, (B_m, H, W), the pixels that L_sem is averaged over; None: those that count.
    """

    labels: Tensor
    weights: Tensor
    averaged_over: Tensor | None


def draw_patch_mask(
    masking: MaskingConfig, class_map: Tensor, num_labels: int, ignore_index: int, generator: torch.Generator
) -> Tensor:
    """Draw M, bool (B, 1, H, W), for images of these classes, int64 (B, H, W); the generator is a CPU one."""
    batch_size, height, width = class_map.shape
    if masking.strategy == "random":
        grid = draw_patch_grid(batch_size, height, width, masking.patch_size, masking.ratio, generator)
        grid = to_device(grid, class_map.device)
    else:
        scores = draw_patch_scores(batch_size, height, width, masking.patch_size, generator)
        classes = downsample_class_map(class_map, masking.patch_size, num_labels, ignore_index)
        grid = class_balanced_grid(classes, masking.ratio, to_device(scores, class_map.device))
    return expand_grid(grid.unsqueeze(1), masking.patch_size, height, width)
