"""What a student makes of a masked image, as pictures: for panels and figures, no part of training.

H, W: pixels of one image; h, w: positions of z. Pictures are uint8 (H, W, 3) RGB. Mask polarity: True = masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch import Tensor

from s4mim_hf.data.strong_views import normalize
from s4mim_hf.evaluation.inference import InferenceConfig, center_box
from s4mim_hf.losses import patch_statistics
from s4mim_hf.masking import downsample_class_map, downsample_mask, expand_grid
from s4mim_hf.methods import S4MIMMethodConfig
from s4mim_hf.methods.masked_view import draw_patch_mask
from s4mim_hf.modeling import S4MIMForSemiSupervisedSegmentation
from s4mim_hf.randomness import generator

PATCH_NORMALIZED_NOTE = (
    "The decoder learns pixels normalised per patch; each patch is shown with the clean image's mean and deviation."
)


def pick_rows(data: datasets.Dataset, count: int) -> list[dict[str, Any]]:
    """Return `count` rows of a split (all where it has fewer), the first, the last, and at even distances between."""
    picked = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    return [data[int(index)] for index in picked]


def cut_to_window(picture: np.ndarray, inference: InferenceConfig) -> np.ndarray:
    """Return what is shown of a picture or a label (H, W, ...): the centre, where a protocol has windows.

    An image that is evaluated in windows may be too large for the networks to see at once.
    """
    if inference.protocol == "whole":
        return picture
    height, width = picture.shape[:2]
    rows, columns = center_box(height, width, replace(inference, protocol="center_crop"))
    return picture[rows, columns]


def to_pixel_values(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return a picture as the networks take it: float32 (1, 3, H, W), normalised."""
    return normalize(torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0), mean, std)


class Reconstruction(NamedTuple):
    """One image masked and filled in.

    Args:
        masked: the image, its masked pixels in the mean colour.
        filled: the image, its masked pixels as x̂ has them; those that x̂ does not cover stay in the mean colour.
        class_map: the classes that the decoder kept apart, integer (H, W) in squares of z's stride; None where it had
            one region (basic masked image modelling).
    """

    masked: np.ndarray
    filled: np.ndarray
    class_map: np.ndarray | None


@dataclass(frozen=True)
class Reconstructor:
    """Masks images as a run's method does, and fills them in by its student.

    Args:
        method: the run's method.
        num_labels: K.
        ignore_index: the id of unknown pixels.
        image_mean: per channel, of images in [0, 1].
        image_std: likewise.
    """

    method: S4MIMMethodConfig
    num_labels: int
    ignore_index: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    @property
    def note(self) -> str:
        """What must be said beside the pictures; empty where nothing must."""
        return PATCH_NORMALIZED_NOTE if self.method.reconstruction.target == "patch_normalized" else ""

    def patch_mask(self, prediction: Tensor, seed: int, number: int) -> Tensor:
        """Draw the mask of picture `number`: bool (1, 1, H, W), the same for the same seed and number.

        Args:
            prediction: int64 (1, H, W), the classes of the picture's pixels, on any device.
            seed: the run's.
            number: of the picture.
        """
        draws = generator(seed, "panels", number)
        return draw_patch_mask(self.method.masking, prediction, self.num_labels, self.ignore_index, draws)

    @torch.no_grad()
    def reconstruct(
        self, student: S4MIMForSemiSupervisedSegmentation, pixel_values: Tensor, mask: Tensor, prediction: Tensor
    ) -> Reconstruction:
        """Mask one image and fill it in.

        Args:
            student: with its decoder, in eval mode.
            pixel_values: the clean image, (1, 3, H, W), on the student's device.
            mask: bool (1, 1, H, W).
            prediction: int64 (1, H, W), the classes that the image's pixels are taken to have.
        """
        height, width = pixel_values.shape[-2:]
        mask, stride = mask.to(pixel_values.device), student.feature_stride
        classes = downsample_class_map(
            prediction, stride, self.num_labels, self.ignore_index, self.method.class_map_downsampling
        )
        by_class = self.method.reconstruction.regions == "class"
        output = student(
            pixel_values,
            patch_mask=mask,
            feature_mask=downsample_mask(mask, stride),
            class_map=classes,
            one_region=not by_class,
        )
        found = output.reconstruction.float()
        if self.method.reconstruction.target == "patch_normalized":
            # For looking at only: each patch gets the clean image's mean and spread, which the target left out.
            mean, deviation = patch_statistics(pixel_values, self.method.masking.patch_size)
            found = found * deviation + mean
        if by_class:
            covered = expand_grid(output.reconstructed, stride, height, width).unsqueeze(1)
            found = found.masked_fill(~covered, 0.0)
        shown = expand_grid(classes, stride, height, width)[0].cpu().numpy() if by_class else None
        filled = torch.where(mask, found, pixel_values)
        return Reconstruction(self._picture(pixel_values.masked_fill(mask, 0.0)), self._picture(filled), shown)

    def _picture(self, pixel_values: Tensor) -> np.ndarray:
        scale = torch.tensor([self.image_mean, self.image_std])[:, :, None, None]
        pixels = (pixel_values[0].float().cpu() * scale[1] + scale[0]).clamp(0, 1)
        return (pixels.permute(1, 2, 0) * 255).round().byte().numpy()
