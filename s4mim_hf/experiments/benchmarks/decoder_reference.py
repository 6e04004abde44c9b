"""What the one-pass decoder is measured against: its own layers without gates, once or once per class.

Legend: B masked images, C channels, (h, w) positions; inside, channels are last, as in the decoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from s4mim_hf.modeling.mim_head import ClassGatedBlock, ConvolutionDecoder


def run_ungated(decoder: ConvolutionDecoder, features: Tensor, inside: Tensor | None = None) -> Tensor:
    """Reconstruct with torch's own convolutions, which see everything.

    Args:
        decoder: whose layers are used.
        features: z, (B, C, h, w).
        inside: bool (B, h, w): after every layer that could fill them, positions outside are emptied again (METHOD.md's
            x̂_k). None: nothing is emptied, which is basic masked image modelling.

    Returns:
        (B, 3, h * r, w * r).
    """
    outside = None if inside is None else ~inside.unsqueeze(-1)

    def kept(hidden: Tensor) -> Tensor:
        return hidden if outside is None else hidden.masked_fill(outside, 0)

    hidden = kept(decoder.embed(kept(features.permute(0, 2, 3, 1))))
    for block in decoder.blocks:
        assert isinstance(block, ClassGatedBlock)
        weight = block.depthwise.weight
        # A view: (B, h, w, C) in memory is what torch calls channels_last.
        seen = F.conv2d(hidden.permute(0, 3, 1, 2), weight, padding=weight.shape[-1] // 2, groups=len(weight))
        inner = kept(block.layernorm(seen.permute(0, 2, 3, 1)))
        hidden = hidden + kept(block.contract(F.gelu(kept(block.expand(inner)))))
    pixels = kept(decoder.predict(kept(decoder.layernorm(hidden))))
    return F.pixel_shuffle(pixels.permute(0, 3, 1, 2), decoder.patch)


def run_class_loop(decoder: ConvolutionDecoder, features: Tensor, class_map: Tensor, num_classes: int) -> Tensor:
    """Reconstruct class by class, the ungated decoder on the full map for each: x̂ = Σ_k up(1[s = k]) ⊙ x̂_k.

    Args:
        decoder: whose layers are used.
        features: z, (B, C, h, w).
        class_map: (B, h, w) int, ids below `num_classes`, or 255.
        num_classes: how many passes there are.
    """
    total = run_ungated(decoder, features, class_map == 0)
    for one in range(1, num_classes):
        total = total + run_ungated(decoder, features, class_map == one)
    return total


def draw_class_map(size: int, num_classes: int, generator: torch.Generator) -> Tensor:
    """Draw a map of regions, int64 (1, size, size), in which every class occurs.

    Each position has the class of the nearest of some random points, whose classes take turns.

    Raises:
        ValueError: there are more classes than positions.
    """
    if num_classes > size * size:
        raise ValueError(f"a map of {size} x {size} positions has no room for {num_classes} classes")
    count = min(size * size, max(2 * num_classes, 40))
    points = torch.randperm(size * size, generator=generator)[:count]
    rows, columns = points // size, points % size
    grid = torch.arange(size)
    # A point's own position is nearest to itself, so each class has one at least.
    distance = (grid[:, None, None] - rows) ** 2 + (grid[None, :, None] - columns) ** 2
    return (distance.argmin(dim=2) % num_classes).unsqueeze(0)
