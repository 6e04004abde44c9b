"""Noise on the encoder's features: whole channels dropped, on some rows of a batch beside the clean ones.

UniMatch's feature perturbation (Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic
Segmentation", arXiv 2208.09910). The noise is drawn by the caller, so that it does not depend on the device.
Legend: B rows of a batch, B_f of them perturbed as well; C_i channels of the encoder's map i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .normalization import ViewGroup


class FeatureNoise(NamedTuple):
    """Factors for the encoder's features of consecutive rows.

    Attributes:
        first_row: The first perturbed row of the batch.
        factors: For every map that the decoder takes, (B_f, C_i): 0 for a dropped channel, 1 / (1 - p) for a kept one.
        update_running_stats: Whether the decoder's running statistics learn from the perturbed rows.
    """

    first_row: int
    factors: tuple[torch.Tensor, ...]
    update_running_stats: bool

    def perturb(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the maps, (B, C_i, h_i, w_i) each, with the perturbed rows behind the clean ones: (B + B_f, ...).

        Raises:
            ValueError: Another number of maps, or rows or channels that they do not have.
        """
        if len(self.factors) != len(maps):
            raise ValueError(f"feature_noise.factors are for {len(self.factors)} maps; the encoder gives {len(maps)}")
        pairs = enumerate(zip(maps, self.factors, strict=True))
        return tuple(self._append(features, factors, index) for index, (features, factors) in pairs)

    def _append(self, features: torch.Tensor, factors: torch.Tensor, index: int) -> torch.Tensor:
        count = factors.shape[0]
        end = self.first_row + count
        if factors.ndim != 2 or factors.shape[1] != features.shape[1] or not 0 <= self.first_row < end <= len(features):
            raise ValueError(
                f"feature_noise.factors[{index}] has the shape {tuple(factors.shape)} from row {self.first_row} on; "
                f"the features have {len(features)} rows of {features.shape[1]} channels"
            )
        factors = factors.to(features.device, features.dtype)
        return torch.cat([features, features[self.first_row : end] * factors[:, :, None, None]])

    def decoder_groups(self, view_groups: Sequence[ViewGroup] | None) -> list[ViewGroup] | None:
        """Return the view groups of all rows of the decoder: the perturbed ones are a group of their own."""
        if view_groups is None:
            return None
        return [*view_groups, ViewGroup(len(self.factors[-1]), self.update_running_stats)]
