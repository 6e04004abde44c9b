"""Whose statistics normalise whom: BatchNorm over groups of a batch's rows, BatchNorm with frozen statistics.

Legend: B rows of a batch, made of consecutive view groups (clean, strong, masked images).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn


class ViewGroup(NamedTuple):
    """Consecutive rows of a batch that share their normalisation statistics.

    Attributes:
        size: Number of rows, at least 1.
        update_running_stats: Whether the running statistics learn from these rows.
    """

    size: int
    update_running_stats: bool


class _GroupedForward(nn.Module):
    """Forward pass by view groups, for a BatchNorm class that stands behind this one in the bases."""

    view_groups: tuple[ViewGroup, ...] | None = None
    track_running_stats: bool

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W), each view group by its own batch statistics while training."""
        if self.view_groups is None or not self.training:
            return super().forward(features)
        sizes = [group.size for group in self.view_groups]
        if sum(sizes) != features.shape[0]:
            raise ValueError(f"view groups of {sizes} rows do not add up to the batch's {features.shape[0]} rows")
        tracked = self.track_running_stats
        outputs = []
        try:
            for chunk, group in zip(features.split(sizes), self.view_groups, strict=True):
                if not isinstance(self, nn.SyncBatchNorm):
                    check_statistics(chunk)
                self.track_running_stats = tracked and group.update_running_stats
                outputs.append(super().forward(chunk))
        finally:
            self.track_running_stats = tracked
        return torch.cat(outputs)


class GroupedBatchNorm2d(_GroupedForward, nn.BatchNorm2d):
    """BatchNorm2d that knows view groups; without them it is exactly BatchNorm2d."""


class GroupedSyncBatchNorm(_GroupedForward, nn.SyncBatchNorm):
    """SyncBatchNorm that knows view groups: each group's statistics are those of this group on all processes."""


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that always uses its running statistics and never changes them; weight and bias still learn."""

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stay in evaluation mode, whatever mode the model is put into."""
        super().train(False)
        return self


def check_statistics(features: torch.Tensor) -> None:
    """Refuse to normalise by the statistics of a single value.

    Args:
        features: (B, C, H, W), the rows that share statistics.

    Raises:
        ValueError: B * H * W is 1.
    """
    if features[:, 0].numel() == 1:
        raise ValueError(
            "a single image cannot be normalised by its own batch statistics (its pooled features are one value per "
            "channel); give at least 2 images to each view group, or freeze the BatchNorm statistics"
        )


def convert_batch_norm(module: nn.Module, sync: bool = False) -> nn.Module:
    """Replace every BatchNorm2d in `module` by one that knows view groups, sharing its parameters and buffers.

    Args:
        module: Changed in place; only where it is itself a BatchNorm2d is another object returned.
        sync: Whether statistics are shared by all processes (SyncBatchNorm).

    Returns:
        The module. Keys of its state dict are as before; layers with frozen statistics stay frozen.
    """
    return _replace(module, GroupedSyncBatchNorm if sync else GroupedBatchNorm2d)


def freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Freeze the statistics of every BatchNorm2d in `module`, also against a later `.train()`.

    Returns:
        The module, changed in place (another object only where it is itself a BatchNorm2d).
    """
    return _replace(module, FrozenBatchNorm2d)


@contextmanager
def use_view_groups(module: nn.Module, groups: Sequence[ViewGroup] | None) -> Iterator[None]:
    """Let every converted BatchNorm in `module` normalise by `groups` within the block; None changes nothing.

    Raises:
        ValueError: A group without rows, or groups given to a module whose BatchNorm was never converted.
    """
    if groups is None:
        yield
        return
    layers = [layer for layer in module.modules() if isinstance(layer, _GroupedForward)]
    empty = [group for group in groups if group.size < 1]
    if empty or not groups:
        raise ValueError(f"view groups {list(groups)} must be non-empty and of at least 1 row each")
    if not layers and any(type(layer) in (nn.BatchNorm2d, nn.SyncBatchNorm) for layer in module.modules()):
        raise ValueError("view groups need converted normalisation layers; call convert_batch_norm(model) first")
    try:
        for layer in layers:
            layer.view_groups = tuple(groups)
        yield
    finally:
        for layer in layers:
            layer.view_groups = None


def _replace(module: nn.Module, kind: type[nn.BatchNorm2d] | type[nn.SyncBatchNorm]) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and not isinstance(module, FrozenBatchNorm2d):
        return _rebuild(module, kind)
    for name, child in list(module.named_children()):
        replaced = _replace(child, kind)
        if replaced is not child:
            setattr(module, name, replaced)
    return module


def _rebuild(
    layer: nn.BatchNorm2d | nn.SyncBatchNorm, kind: type[nn.BatchNorm2d] | type[nn.SyncBatchNorm]
) -> nn.Module:
    new = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    # The very same tensors: an optimizer or a teacher that already holds them stays right.
    new._parameters.update(layer._parameters)
    new._buffers.update(layer._buffers)
    # transformers marks what it has initialised, and would initialise it anew without the mark.
    if getattr(layer, "_is_hf_initialized", False):
        new._is_hf_initialized = True  # type: ignore[assignment]
    return new.train(layer.training)
