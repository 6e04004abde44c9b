"""What methods make of unlabelled images: strong views and pseudo-labels, cut and mixed alike, and channel noise.

B_u: unlabelled images of a batch. Everything random is drawn on the CPU, from generators of its own purpose.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig, cutmix, draw_cutmix_mask, draw_strong_parameters, strong_view
from s4mim_hf.errors import InputError
from s4mim_hf.methods.base import StepContext


class PseudoLabels(NamedTuple):
    """A network's opinion of unlabelled images, without gradient.

    Args:
        labels: ŷ, int64, (B_u, H, W), its argmax; also on padding.
        confidence: c, float32 in [0, 1], (B_u, H, W), its maximum probability.
        valid: bool, (B_u, H, W), False on padding.
    """

    labels: Tensor
    confidence: Tensor
    valid: Tensor

    def mixed(self, box: Tensor) -> PseudoLabels:
        """Return the labels of images that were cut and mixed by `box`, bool (B_u, 1, H, W)."""
        return PseudoLabels(*(cutmix(values, box) for values in self))


class StrongView(NamedTuple):
    """One strong view of the unlabelled images.

    Args:
        images: float in [0, 1], or normalised, (B_u, 3, H, W), cut and mixed.
        box: bool, (B_u, 1, H, W), True where the pixels are the partner's.
    """

    images: Tensor
    box: Tensor


def unlabeled_images(batch: Batch, method: str) -> tuple[Tensor, Tensor]:
    """Return the weak unlabelled images, uint8 (B_u, 3, H, W), and where they are no padding, bool (B_u, H, W).

    Raises:
        InputError: where the batch has none, naming the `method` that needs them.
    """
    if batch.unlabeled_images is None or batch.unlabeled_valid is None:
        raise InputError(
            f"the method {method!r} needs unlabelled images and the data has none; prepare data with fewer "
            f"labelled images, or train with method.name=supervised"
        )
    return batch.unlabeled_images, batch.unlabeled_valid


@torch.no_grad()
def label_pixels(logits: Tensor, valid: Tensor) -> PseudoLabels:
    """Return the pseudo-labels that logits (B_u, K, H, W) amount to; `valid` as in `PseudoLabels`."""
    confidence, labels = logits.detach().float().softmax(dim=1).max(dim=1)
    return PseudoLabels(labels, confidence, valid)


@torch.no_grad()
def make_strong_view(weak: Tensor, config: StrongViewConfig, context: StepContext, number: int = 0) -> StrongView:
    """Return a strong view of weak images, uint8 (B_u, 3, H, W), in [0, 1].

    A partner for CutMix is another image of the same batch, in its own strong view: no further images and no further
    pass over them are needed. (UniMatch takes partners from a second batch, which it labels in eval mode.)

    Args:
        weak: the images.
        config: the augmentation.
        context: where in the run this batch is.
        number: which view of the step; each has generators of its own, so that a further one changes none before it.
    """
    batch_size, _, height, width = weak.shape
    suffix = "" if number == 0 else f"-{number}"
    parameters = draw_strong_parameters(batch_size, config, context.generator(f"strong{suffix}"))
    draws = context.generator(f"cutmix{suffix}")
    box = draw_cutmix_mask(batch_size, height, width, config, draws, context.device)
    return StrongView(cutmix(strong_view(weak.float() / 255, parameters), box), box)


def draw_channel_factors(rows: int, channels: int, dropout: float, generator: torch.Generator) -> Tensor:
    """Draw which channels of each row are dropped.

    Args:
        rows: number of images.
        channels: number of channels of their features.
        dropout: p in [0, 1), the probability of dropping a channel.
        generator: a CPU generator.

    Returns:
        float32 (rows, channels) on the CPU, 0 for a dropped channel and 1 / (1 - p) for a kept one.
    """
    kept = torch.rand(rows, channels, generator=generator) >= dropout
    return kept / (1 - dropout)
