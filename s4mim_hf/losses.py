"""The equations of the method as functions of tensors, one per term.

Legend: B images, K classes, C feature channels, H x W pixels, h x w positions (one every `stride` pixels).
Every loss is a float32 scalar; where nothing counts it is exactly 0 with a finite (zero) gradient, never NaN.
In every label map `ignore_index` (255) is "unknown": such a pixel is neither target nor evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def _in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Switch autocast off: it would run matrix products, here sums over many thousand pixels, in half precision."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0] if args else next(iter(kwargs.values()))
        assert isinstance(first, Tensor)
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapped


def _mean_over(values: Tensor, selected: Tensor) -> Tensor:
    """Mean of `values` where `selected` (same shape, bool or weights), 0 where nothing is selected."""
    weights = selected.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """L_sup: mean cross-entropy over the known pixels.

    Args:
        logits: float, (B, K, H, W).
        labels: int64, (B, H, W), ids 0..K-1 or `ignore_index`.
        ignore_index: the id of unknown pixels.
    """
    per_pixel = F.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="none")
    return _mean_over(per_pixel, labels != ignore_index)


def ohem_cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, threshold: float = 0.7, min_kept: float = 1 / 16
) -> Tensor:
    """Cross-entropy over the hard pixels only: online hard example mining, as the peers use it on Cityscapes.

    A known pixel is hard when the true class has a probability below `threshold`. At least the share `min_kept` of all
    pixels (in [0, 1]) is kept, the hardest first, so that an easy batch still teaches. Shapes as in `cross_entropy`.
    """
    known = labels != ignore_index
    per_pixel = F.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="none")
    # CE = -log p, so "p below the threshold" is "CE above -log(threshold)"; unknown pixels rank last.
    ranked = torch.where(known, per_pixel.detach(), per_pixel.new_full((), -1.0)).flatten()
    kept = max(1, int(min_kept * ranked.numel()))
    kth_hardest = ranked.topk(kept).values[-1]
    limit = kth_hardest.clamp(max=-math.log(threshold))
    return _mean_over(per_pixel, known & (per_pixel.detach() >= limit))


def consistency_loss(
    logits: Tensor, pseudo_labels: Tensor, confidence: Tensor, valid: Tensor, threshold: float
) -> Tensor:
    """L_con = Σ 1[c ≥ τ] CE(f(strong), ŷ) / (number of valid pixels), as FixMatch and UniMatch compute it.

    Dividing by all valid pixels, not by the confident ones, keeps the term small while the teacher is unsure.

    Args:
        logits: float, (B, K, H, W), of the strong view.
        pseudo_labels: int64, (B, H, W), the labeller's (teacher's or student's) argmax ŷ.
        confidence: float in [0, 1], (B, H, W), the labeller's maximum probability c.
        valid: bool, (B, H, W), False on padding.
        threshold: τ in [0, 1].
    """
    per_pixel = F.cross_entropy(logits.float(), pseudo_labels, reduction="none")
    confident = (confidence >= threshold) & valid
    return (per_pixel * confident).sum() / valid.sum().clamp(min=1)


def probability_consistency_loss(logits: Tensor, probabilities: Tensor, valid: Tensor) -> Tensor:
    """The mean teacher's L_con: mean over valid pixels of Σ_k (softmax(f(strong))_k − p_k)².

    Args:
        logits: float, (B, K, H, W), of the strong view.
        probabilities: float in [0, 1], (B, K, H, W), p, the teacher's of the weak view.
        valid: bool, (B, H, W), False on padding.
    """
    squared = (logits.float().softmax(dim=1) - probabilities).square().sum(dim=1)
    return _mean_over(squared, valid)


def patch_statistics(
    images: Tensor, patch_size: int, known: Tensor | None = None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Return each patch's mean and standard deviation over its known pixels, all channels, spread over all its pixels.

    Patches are those of the mask's grid: they start at the top left corner, and those cut by the right or bottom edge
    use the pixels they have. The variance is the biased one. A patch without a known pixel has mean 0.

    Args:
        images: float, (B, 3, H, W), in normalised pixel space.
        patch_size: patch edge in pixels.
        known: bool, (B, H, W), the pixels that count; None: all.
        eps: added to the variance.

    Returns:
        mean and standard deviation, each (B, 1, H, W).
    """
    height, width = images.shape[-2:]
    counted = torch.ones_like(images[:, :1]) if known is None else known.unsqueeze(1).to(images.dtype)

    def per_patch(values: Tensor) -> Tensor:
        # Sums: a divisor of 1 in place of the window's size.
        pooled = F.avg_pool2d(values, patch_size, ceil_mode=True, divisor_override=1)
        return pooled.repeat_interleave(patch_size, -2).repeat_interleave(patch_size, -1)[..., :height, :width]

    counts = per_patch(counted).clamp(min=1)
    mean = per_patch(counted * images.mean(dim=1, keepdim=True)) / counts
    variance = per_patch(counted * (images - mean).square().mean(dim=1, keepdim=True)) / counts
    return mean, (variance + eps).sqrt()


def normalize_per_patch(images: Tensor, patch_size: int, known: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Subtract each patch's mean and divide by its standard deviation (MAE's norm_pix); see `patch_statistics`."""
    mean, deviation = patch_statistics(images, patch_size, known, eps)
    return (images - mean) / deviation


@_in_full_precision
def reconstruction_loss(
    reconstruction: Tensor,
    target: Tensor,
    selected: Tensor,
    class_map: Tensor,
    num_labels: int,
    reduction: Literal["pixel", "class"] = "pixel",
) -> Tensor:
    """L_rec: mean of |x̂ − x̄| over the selected pixels.

    Args:
        reconstruction: float, (B, 3, H, W), x̂.
        target: float, (B, 3, H, W), x̄.
        selected: bool, (B, H, W): masked, known, and agreeing with the class map that the decoder saw.
        class_map: int64, (B, H, W); read only where `selected`.
        num_labels: K.
        reduction: "pixel" weighs every pixel alike, "class" every class that has a selected pixel in the batch.
    """
    error = (reconstruction.float() - target).abs().mean(dim=1)
    if reduction == "pixel":
        return _mean_over(error, selected)
    buckets = torch.where(selected, class_map, num_labels).flatten()
    counts = _counts(buckets, num_labels)
    # Each class's pixels share a weight of 1 / (classes there are); those not selected have none.
    share = (counts > 0) / (counts.clamp(min=1) * (counts > 0).sum().clamp(min=1))
    weights = F.pad(share, (0, 1))[buckets]
    return (error.flatten() * weights).sum()


def _counts(buckets: Tensor, count: int) -> Tensor:
    """Return how often each id below `count` occurs, (count,).

    Not by one-hot vectors, which would be as long as there are classes for every pixel, nor by bincount, which waits
    for the device.
    """
    edges = torch.searchsorted(buckets.sort().values, torch.arange(count + 1, device=buckets.device))
    return edges.diff()


def class_prototypes(features: Tensor, membership: Tensor, scope: Literal["image", "batch"]) -> tuple[Tensor, Tensor]:
    """v_k: the mean feature of the member positions of each class, and how many members there are.

    Args:
        features: float32, (B, N, C), N = h·w positions.
        membership: float32 in {0, 1}, (B, N, K).
        scope: a prototype per image, or one per class for the whole batch.

    Returns:
        prototypes (G, K, C) and counts (G, K), with G = B for "image" and 1 for "batch".
    """
    # A product with the one-hot membership, not a scatter: deterministic on every device.
    sums, counts = membership.transpose(1, 2) @ features, membership.sum(dim=1)
    if scope == "batch":
        sums, counts = sums.sum(dim=0, keepdim=True), counts.sum(dim=0, keepdim=True)
    return sums / counts.clamp(min=1).unsqueeze(-1), counts


def _directed(features: Tensor, shortest: float = 1e-2) -> Tensor:
    """Stop the gradient of features (..., C) that are too short to have a direction.

    A cosine's gradient grows like 1 / length: a position of no active channel, which a new projection (bias 0) leaves
    at length 0, would by itself throw the weights far away.
    """
    short = features.detach().norm(dim=-1, keepdim=True) < shortest
    return torch.where(short, features.detach(), features)


@_in_full_precision
def aggregation_loss(
    features: Tensor,
    class_map: Tensor,
    feature_mask: Tensor,
    num_labels: int,
    *,
    ignore_index: int = 255,
    min_positions: int = 1,
    distance: Literal["cosine", "l2"] = "cosine",
    scope: Literal["image", "batch"] = "image",
    stop_gradient: bool = True,
    reduction: Literal["class", "position"] = "class",
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_agg: masked features are drawn to the mean of the visible features of their class.

    For each image (or the batch) and class with at least `min_positions` visible and as many masked positions:
    the mean over masked positions i of dist(z_i, v_k); then the mean over those classes, or over all their positions.

    Args:
        features: float, (B, C, h, w), z.
        class_map: int64, (B, h, w), s↓.
        feature_mask: bool, (B, 1, h, w), M↓, True = masked.
        num_labels: K.
        ignore_index: the id of unknown positions, which take no part.
        min_positions: at least 1.
        distance: "cosine" is 1 − cos in [0, 2] (1, without gradient, for a feature of length 0); "l2" is the squared
            difference averaged over channels.
        scope: where visible positions are averaged: in one image, or in the batch.
        stop_gradient: whether v_k is a fixed target.
        reduction: "class" weighs every class of an image (or the batch) alike, however small its region; "position"
            every masked position.

    Returns:
        the loss, and diagnostics without gradient: `feature_norm` (mean length of z) and `between_class_similarity`
        (mean cosine between prototypes of different classes; near 1 while features are alike, so at collapse).
    """
    z = features.flatten(2).transpose(1, 2).float()
    classes, masked = class_map.flatten(1), feature_mask.flatten(1)
    one_hot = F.one_hot(torch.where(classes == ignore_index, num_labels, classes), num_labels + 1)
    one_hot = one_hot[..., :num_labels].to(z.dtype)
    visible_members, masked_members = one_hot * ~masked.unsqueeze(-1), one_hot * masked.unsqueeze(-1)
    prototypes, visible_counts = class_prototypes(z, visible_members, scope)
    diagnostics = feature_diagnostics(z.detach(), prototypes.detach(), visible_counts)
    if stop_gradient:
        prototypes = prototypes.detach()
    own_prototype = one_hot @ prototypes
    if distance == "cosine":
        distances = 1 - F.cosine_similarity(_directed(z), _directed(own_prototype), dim=-1)
    else:
        distances = (z - own_prototype).square().mean(dim=-1)
    sums, masked_counts = (distances.unsqueeze(-1) * masked_members).sum(dim=1), masked_members.sum(dim=1)
    if scope == "batch":
        sums, masked_counts = sums.sum(dim=0, keepdim=True), masked_counts.sum(dim=0, keepdim=True)
    counted = (visible_counts >= min_positions) & (masked_counts >= min_positions)
    weights = counted if reduction == "class" else counted * masked_counts
    return _mean_over(sums / masked_counts.clamp(min=1), weights), diagnostics


def feature_diagnostics(features: Tensor, prototypes: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Return the mean feature length and the mean cosine between different classes' prototypes (scalars)."""
    directions = F.normalize(prototypes, dim=-1)
    present = (counts > 0).to(directions.dtype)
    pairs = present.unsqueeze(-1) * present.unsqueeze(-2)
    different = pairs * (1 - torch.eye(pairs.shape[-1], device=pairs.device, dtype=pairs.dtype))
    return {
        "feature_norm": features.norm(dim=-1).mean(),
        "between_class_similarity": _mean_over(directions @ directions.transpose(-1, -2), different),
    }


def semantic_loss(
    logits: Tensor, class_map: Tensor, weights: Tensor, ignore_index: int = 255, averaged_over: Tensor | None = None
) -> Tensor:
    """L_sem = Σ w CE(f(x_M), s) / (number of pixels averaged over): masked modelling in semantic space.

    By a mean teacher's labels, alone on the base, this is masked image consistency (MIC).

    Args:
        logits: float, (B, K, H, W), of the masked view.
        class_map: int64, (B, H, W), s; where pseudo-labels count by their confidence, every one of them.
        weights: float, (B, H, W): 0 where a pixel does not count, else its weight in (0, 1].
        ignore_index: the id of unknown pixels.
        averaged_over: bool, (B, H, W), the pixels whose number divides; None: those that count.
    """
    per_pixel = F.cross_entropy(logits.float(), class_map, ignore_index=ignore_index, reduction="none")
    counted = (class_map != ignore_index) & (weights > 0)
    divisor = counted if averaged_over is None else averaged_over
    return (per_pixel * weights * counted).sum() / divisor.sum().clamp(min=1)
