"""What the one-pass decoders are measured against: their own layers without gates, once or once per class.

Legend: B masked images, C channels, (h, w) positions, (rows, columns) tokens, T of them in all; inside, channels are
last, as in the decoders.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from s4mim_hf.modeling.mim_attention import AttentionDecoder, grid_positions
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


def run_ungated_attention(decoder: AttentionDecoder, features: Tensor) -> Tensor:
    """Reconstruct with every token seeing every token of its image: (B, 3, h * r, w * r) of z (B, C, h, w)."""
    side = decoder.token_patch // decoder.patch
    pooled = F.avg_pool2d(features, side, ceil_mode=True, count_include_pad=False)
    pixels = _of_tokens(decoder, pooled.permute(0, 2, 3, 1), None)
    height, width = (length * decoder.patch for length in features.shape[-2:])
    return pixels[..., :height, :width]


def run_attention_loop(decoder: AttentionDecoder, features: Tensor, class_map: Tensor, num_classes: int) -> Tensor:
    """Reconstruct class by class, each with all tokens, of which those of other classes are hidden.

    Args:
        decoder: whose layers are used.
        features: z, (B, C, h, w).
        class_map: (B, h, w) int, ids below `num_classes`, or 255.
        num_classes: how many passes there are.
    """
    _, token_classes = decoder.members(class_map)
    covered = decoder.covered(class_map)
    side, total = decoder.token_patch // decoder.patch, torch.zeros(())
    height, width = class_map.shape[1:]
    beyond = (0, -width % side, 0, -height % side)
    for one in range(num_classes):
        inside = F.pad((covered & (class_map == one)).unsqueeze(1).to(features.dtype), beyond)
        sums = F.avg_pool2d(F.pad(features, beyond) * inside, side, divisor_override=1)
        means = sums / F.avg_pool2d(inside, side, divisor_override=1).clamp(min=1)
        pixels = _of_tokens(decoder, means.permute(0, 2, 3, 1), token_classes == one)
        shown = inside.repeat_interleave(decoder.patch, 2).repeat_interleave(decoder.patch, 3)
        total = total + pixels * shown
    return total[..., : height * decoder.patch, : width * decoder.patch]


def _of_tokens(decoder: AttentionDecoder, pooled: Tensor, seen: Tensor | None) -> Tensor:
    """Return pixels of pooled features (B, rows, columns, C); tokens see those of `seen`, bool (B, rows, columns)."""
    rows, columns = pooled.shape[1:3]
    tokens = decoder.embed(pooled)
    tokens = (tokens + grid_positions(rows, columns, tokens)).flatten(1, 2)
    bias = None
    if seen is not None:
        # Where no token has the class nothing of it is shown either, so that all may be seen.
        hidden = ~seen.flatten(1) & seen.flatten(1).any(1, keepdim=True)
        bias = torch.zeros_like(hidden, dtype=tokens.dtype).masked_fill(hidden, float("-inf"))[:, None, None]
        bias = bias.expand(-1, -1, tokens.shape[1], -1)
    for block in decoder.blocks:
        tokens = block(tokens, partial(F.scaled_dot_product_attention, attn_mask=bias))
    pixels = decoder.predict(decoder.layernorm(tokens)).unflatten(1, (rows, columns))
    return F.pixel_shuffle(pixels.permute(0, 3, 1, 2), decoder.token_patch)


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
