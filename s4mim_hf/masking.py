"""Patch masks, and label maps at the resolution of features.

Legend: B images, H x W pixels, h x w = ceil(H/stride) x ceil(W/stride) positions; position (i, j) stands for the
pixels i·stride .. i·stride + stride − 1 (and likewise j), fewer at the right and bottom edges.
Mask polarity everywhere: True = masked (hidden from the network).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_patch_grid(
    batch_size: int, height: int, width: int, patch_size: int, ratio: float, generator: torch.Generator
) -> Tensor:
    """Draw which patches are masked, so that each image's masked area is `ratio` to within half a patch.

    A crop that the patch does not divide is covered by a grid one patch larger. Its cut patches are smaller, so
    patches are taken in random order until the area, not their number, is reached.

    Args:
        batch_size: B.
        height, width: of the images in pixels.
        patch_size: patch edge in pixels.
        ratio: masked share of the pixels, in [0, 1].
        generator: a CPU generator; the same seed gives the same masks on any device.

    Returns:
        bool on the CPU, (B, ceil(height / patch_size), ceil(width / patch_size)).
    """
    rows = _cell_sizes(height, patch_size)
    columns = _cell_sizes(width, patch_size)
    areas = (rows[:, None] * columns[None, :]).flatten()
    order = draw_patch_scores(batch_size, height, width, patch_size, generator).flatten(1).argsort(dim=1)
    ordered_areas = areas[order]
    reached = ordered_areas.cumsum(dim=1)
    # A patch is taken when that brings the area nearer to the asked one than leaving it out.
    taken = reached - ordered_areas / 2 < ratio * height * width
    masked = torch.zeros(batch_size, areas.numel(), dtype=torch.bool).scatter_(1, order, taken)
    return masked.view(batch_size, len(rows), len(columns))


def draw_patch_scores(batch_size: int, height: int, width: int, patch_size: int, generator: torch.Generator) -> Tensor:
    """Draw one number per patch, by which patches are put in random order.

    Args:
        batch_size: B.
        height, width: of the images in pixels.
        patch_size: patch edge in pixels.
        generator: a CPU generator; the same seed gives the same scores on any device.

    Returns:
        float32 in [0, 1) on the CPU, (B, ceil(height / patch_size), ceil(width / patch_size)).
    """
    rows, columns = math.ceil(height / patch_size), math.ceil(width / patch_size)
    return torch.rand(batch_size, rows, columns, generator=generator)


def class_balanced_grid(patch_classes: Tensor, ratio: float, scores: Tensor) -> Tensor:
    """Choose masked patches so that each class of each image has masked and visible ones.

    Within each group of patches of one class in one image, those of the lowest scores are masked: ratio * n of the n,
    rounded, but at least 1 and at most n - 1. A group of a single patch cannot have both; it is masked where its score
    is below `ratio`. Patches that a crop's edge cuts count like whole ones. Nothing waits for the device.

    Args:
        patch_classes: int64, (B, rows, columns), ids 0..255; patches of unknown class (255) are a group of their own.
        ratio: masked share of a group's patches, in [0, 1].
        scores: float in [0, 1), (B, rows, columns), on the same device; see `draw_patch_scores`.

    Returns:
        bool, (B, rows, columns), True = masked.
    """
    classes, flat_scores = patch_classes.flatten(1), scores.flatten(1)
    # Sorted by class, and by score within a class: two stable sorts, the more significant key last.
    by_score = flat_scores.argsort(dim=1, stable=True)
    order = by_score.gather(1, classes.gather(1, by_score).argsort(dim=1, stable=True))
    ordered_classes = classes.gather(1, order)
    sizes = torch.zeros(len(classes), 256, dtype=torch.int64, device=classes.device)
    sizes.scatter_add_(1, classes, torch.ones_like(classes))
    first_places = sizes.cumsum(dim=1) - sizes
    rank = torch.arange(classes.shape[1], device=classes.device) - first_places.gather(1, ordered_classes)
    size = sizes.gather(1, ordered_classes)
    quota = (size * ratio).round().clamp(min=1).minimum(size - 1)
    taken = torch.where(size > 1, rank < quota, flat_scores.gather(1, order) < ratio)
    return torch.zeros_like(taken).scatter_(1, order, taken).view_as(patch_classes)


def _cell_sizes(length: int, cell: int) -> Tensor:
    sizes = torch.full((math.ceil(length / cell),), float(cell))
    sizes[-1] = length - cell * (len(sizes) - 1)
    return sizes


def expand_grid(grid: Tensor, cell: int, height: int, width: int) -> Tensor:
    """Repeat each entry of `grid` (..., h, w) over a `cell` x `cell` square, cut to (..., height, width)."""
    return grid.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[..., :height, :width]


def downsample_mask(mask: Tensor, stride: int) -> Tensor:
    """M↓: a position is masked when at least half of its pixels are.

    Args:
        mask: bool, (B, 1, H, W).
        stride: pixels per position along an edge.

    Returns:
        bool, (B, 1, h, w).
    """
    share = F.avg_pool2d(mask.float(), stride, ceil_mode=True, count_include_pad=False)
    return share >= 0.5


def downsample_class_map(
    class_map: Tensor,
    stride: int,
    num_labels: int,
    ignore_index: int = 255,
    mode: Literal["majority", "nearest"] = "majority",
) -> Tensor:
    """s↓: one class per position.

    Args:
        class_map: int64, (B, H, W), ids 0..K-1 or `ignore_index`.
        stride: pixels per position along an edge.
        num_labels: K.
        ignore_index: the id of unknown pixels; a position without any known pixel gets it.
        mode: "majority" over the known pixels (the smallest id among equals), or "nearest" to the position's centre.

    Returns:
        int64, (B, h, w).
    """
    batch, height, width = class_map.shape
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    if mode == "nearest":
        row = (torch.arange(rows, device=class_map.device) * stride + stride // 2).clamp(max=height - 1)
        column = (torch.arange(columns, device=class_map.device) * stride + stride // 2).clamp(max=width - 1)
        return class_map[:, row][:, :, column]
    padded = F.pad(class_map, (0, columns * stride - width, 0, rows * stride - height), value=ignore_index)
    cells = padded.view(batch, rows, stride, columns, stride).permute(0, 1, 3, 2, 4).flatten(3)
    buckets = torch.where(cells == ignore_index, num_labels, cells)
    votes = torch.zeros(batch, rows, columns, num_labels + 1, dtype=torch.int32, device=class_map.device)
    votes.scatter_add_(3, buckets, torch.ones_like(buckets, dtype=torch.int32))
    count, winner = votes[..., :num_labels].max(dim=3)
    return torch.where(count > 0, winner, ignore_index)


def known_class_map(
    pseudo_labels: Tensor, confidence: Tensor, valid: Tensor, threshold: float, ignore_index: int = 255
) -> Tensor:
    """s of unlabelled images: ŷ where c ≥ τ_mim and the pixel is not padding, unknown elsewhere.

    Args:
        pseudo_labels: int64, (B, H, W).
        confidence: float in [0, 1], (B, H, W).
        valid: bool, (B, H, W), False on padding.
        threshold: τ_mim in [0, 1].
        ignore_index: the id given to unknown pixels.
    """
    return torch.where((confidence >= threshold) & valid, pseudo_labels, ignore_index)
