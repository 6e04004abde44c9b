"""The views of one step, sent through the student in one forward.

Under several processes every parameter must take part in exactly one call per step, and view groups keep the
normalisation statistics of unlike images apart within that call.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from s4mim_hf.methods.base import NormalizationConfig, ViewName
from s4mim_hf.modeling.feature_noise import FeatureNoise
from s4mim_hf.modeling.normalization import ViewGroup


class MaskedRows(NamedTuple):
    """What the student needs for its masked images.

    Args:
        patch_mask: bool, (B_m, 1, H, W), True = masked.
        feature_mask: bool, (B_m, 1, h, w), the same at the resolution of z; only for a reconstruction.
        class_map: int64, (B_m, h, w), s↓; None where nothing is reconstructed.
        one_region: whether classes are reconstructed together, as basic masked image modelling does.
    """

    patch_mask: Tensor
    feature_mask: Tensor | None = None
    class_map: Tensor | None = None
    one_region: bool = False


class StudentOutput(NamedTuple):
    """The student's answers.

    Args:
        logits: float, (B of the view, K, H, W), by view; "perturbed" is the view that was perturbed, once more.
        features: z of the masked images, (B_m, C, h, w), None where there are none.
        reconstruction: x̂, (B_m, 3, H, W), None where none was asked for.
        reconstructed: bool, (B_m, h, w), the positions that x̂ covers; None like it.
    """

    logits: dict[ViewName, Tensor]
    features: Tensor | None
    reconstruction: Tensor | None
    reconstructed: Tensor | None


class Views:
    """Collects the views of a step; masked images come last, as the student expects them.

    Args:
        normalization: which views share BatchNorm statistics.
    """

    def __init__(self, normalization: NormalizationConfig) -> None:
        self._normalization = normalization
        self._images: dict[ViewName, Tensor] = {}
        self._masked: MaskedRows | None = None
        self._noise: FeatureNoise | None = None

    def add(self, name: ViewName, pixel_values: Tensor) -> None:
        """Add a view of normalised images, (B, 3, H, W)."""
        if name in self._images:
            raise ValueError(f"the view {name!r} was added already")
        if self._masked is not None:
            raise ValueError(f"the view {name!r} was added after the masked images, which must be the last rows")
        self._images[name] = pixel_values

    def add_masked(self, pixel_values: Tensor, rows: MaskedRows) -> None:
        """Add the clean images (B_m, 3, H, W) that the student masks itself, with their masks."""
        self.add("masked", pixel_values)
        self._masked = rows

    def perturb(self, name: ViewName, *factors: Tensor) -> None:
        """Let the student segment a view once more, from features whose channels are multiplied by these factors.

        Args:
            name: a view that was added before.
            factors: for each of the encoder's maps, (B of the view, C of the map).
        """
        names = list(self._images)
        first_row = sum(len(self._images[earlier]) for earlier in names[: names.index(name)])
        self._noise = FeatureNoise(first_row, factors, "perturbed" in self._normalization.running_from)

    def groups(self) -> list[ViewGroup] | None:
        """Return the row groups that share statistics, None for plain BatchNorm over all rows.

        Perturbed rows are not among them: the encoder never sees them.
        """
        if self._normalization.statistics == "together":
            return None
        running = self._normalization.running_from
        return [ViewGroup(len(images), name in running) for name, images in self._images.items()]

    def forward(self, student: torch.nn.Module) -> StudentOutput:
        """Run the student once over all rows and split its answers by view."""
        masked = {} if self._masked is None else self._masked._asdict()
        rows = torch.cat(list(self._images.values()))
        output = student(rows, view_groups=self.groups(), feature_noise=self._noise, **masked)
        parts = output.logits.split([len(images) for images in self._images.values()])
        logits = dict(zip(self._images, parts, strict=True))
        if self._noise is not None:
            logits["perturbed"] = output.perturbed_logits
        return StudentOutput(logits, output.features, output.reconstruction, output.reconstructed)
