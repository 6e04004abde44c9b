"""The class-wise reconstruction decoder of attention: a token sees the tokens of its own class in its own image.

METHOD.md's equation 3 like `mim_head`, with another d_φ: positions are pooled to tokens of a coarser stride, since
attention costs the square of their number, and within its class every token sees every other one.

Legend: B masked images, C channels, (h, w) positions of stride r, (rows, columns) tokens of stride R, T of them in all,
n = (R / r)² positions per token; class_map 255 = unknown.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_s4mim import FLEX_HEAD_CHANNELS
from .mim_head import UNKNOWN_CLASS, ClassWiseDecoder, PointwiseLayer

# queries, keys, values (B, heads, T, C / heads) -> (B, heads, T, C / heads)
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# Queries that are run together on a CPU: few calls, and little of the matrix outside the classes.
QUERY_CHUNK = 128


class ClassAttentionBlock(nn.Module):
    """Multi-head attention and two pointwise layers with GELU, each on normalised tokens and added to its input."""

    def __init__(self, channels: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_layernorm = nn.LayerNorm(channels)
        self.query_key_value = PointwiseLayer(channels, 3 * channels)
        self.mix = PointwiseLayer(channels, channels)
        self.layernorm = nn.LayerNorm(channels)
        self.expand = PointwiseLayer(channels, expansion * channels)
        self.contract = PointwiseLayer(expansion * channels, channels)

    def forward(self, tokens: torch.Tensor, attention: Attention) -> torch.Tensor:
        """Map (B, T, C) to the same; `attention` says which tokens see which."""
        heads = self.query_key_value(self.attention_layernorm(tokens)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        tokens = tokens + self.mix(attention(queries, keys, values).transpose(1, 2).flatten(2))
        return tokens + self.contract(F.gelu(self.expand(self.layernorm(tokens))))


class AttentionDecoder(ClassWiseDecoder):
    """Tokens of a coarser stride, blocks of attention within each class, then the pixels of each token.

    A token stands for the class that most of its known positions have (the smallest id among equals): it is the mean
    of z over these, and gives the pixels of these. Positions of another class in its cell are not reconstructed.

    Args:
        in_channels: Channels C of z.
        channels: Channels inside.
        depth: Number of blocks.
        heads: Attention heads, a divisor of `channels`.
        expansion: Width of a block's hidden layer over `channels`.
        patch: Pixels r per position and side.
        token_patch: Pixels R per token and side, a multiple of r.
        masked_features: "keep", or "token": a learned vector stands for z at masked positions.
        attention: "sdpa", "flex" (FlexAttention, which skips pairs of classes that have nothing in common but learns
            on CUDA only), or "auto": flex where the device, the heads and the precision allow it.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int,
        depth: int,
        heads: int,
        expansion: int,
        patch: int,
        token_patch: int,
        masked_features: str = "keep",
        attention: str = "auto",
    ) -> None:
        super().__init__(in_channels, patch, masked_features)
        self.token_patch = token_patch
        self.heads = heads
        self.attention = attention
        self.embed = PointwiseLayer(in_channels, channels)
        self.blocks = nn.ModuleList([ClassAttentionBlock(channels, heads, expansion) for _ in range(depth)])
        self.layernorm = nn.LayerNorm(channels)
        self.predict = nn.Linear(channels, 3 * token_patch * token_patch)

    @property
    def reach(self) -> None:
        """None: a position sees everything of its class."""
        return

    def covered(self, class_map: torch.Tensor) -> torch.Tensor:
        """Return (B, h, w) bool: positions of a known class that is their token's."""
        members, _ = self.members(class_map)
        return self._positions(members, *class_map.shape[1:])

    def _positions(self, members: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Return the members of tokens (B, rows, columns, n) where they lie, (B, height, width)."""
        side = self.token_patch // self.patch
        positions = members.unflatten(-1, (side, side)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return positions[:, :height, :width]

    def members(self, class_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which positions tokens stand for, (B, rows, columns, n) bool, and their class (B, rows, columns)."""
        cells = _cells(class_map.unsqueeze(-1), self.token_patch // self.patch, UNKNOWN_CLASS).squeeze(-1)
        token_classes = majority_class(cells)
        return (cells == token_classes.unsqueeze(-1)) & (cells != UNKNOWN_CLASS), token_classes

    def decode(self, features: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
        """Return x̂ (B, 3, h * r, w * r) of z (B, h, w, C), 0 where `covered` is False."""
        height, width = (side * self.patch for side in class_map.shape[1:])
        members, token_classes = self.members(class_map)
        tokens = self.embed(_means(_cells(features, self.token_patch // self.patch, 0), members))
        tokens = tokens + grid_positions(token_classes.shape[1], token_classes.shape[2], tokens)
        # Attention weighs a token of another class by exactly 0, but 0 · NaN is NaN: what is broken stays outside, and
        # breaks its own pixels only.
        broken = ~tokens.isfinite().all(-1, keepdim=True)
        outside = broken | (token_classes == UNKNOWN_CLASS).unsqueeze(-1)
        tokens = self.attend(tokens.masked_fill(outside, 0).flatten(1, 2), token_classes.flatten(1))
        pixels = self.predict(self.layernorm(tokens)).unflatten(1, token_classes.shape[1:])
        pixels = pixels.masked_fill(broken, float("nan")).permute(0, 3, 1, 2)
        pixels = F.pixel_shuffle(pixels, self.token_patch)[..., :height, :width]
        covered = self._positions(members, *class_map.shape[1:])
        covered = covered.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        return pixels.masked_fill(~covered.unsqueeze(1), 0)

    def attend(self, tokens: torch.Tensor, token_classes: torch.Tensor) -> torch.Tensor:
        """Run the blocks over tokens (B, T, C) of classes (B, T) int."""
        sight = sort_by_class(token_classes)
        images = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        tokens = tokens[images, sight.order]
        attention = class_attention(sight, tokens, self.heads, self.attention)
        for block in self.blocks:
            tokens = block(tokens, attention)
        return tokens[images, sight.order.argsort(dim=1)]


def _cells(positions: torch.Tensor, side: int, fill: float) -> torch.Tensor:
    """Return positions (B, h, w, C) by the token they belong to, (B, rows, columns, side * side, C), gaps filled."""
    height, width = positions.shape[1:3]
    padded = F.pad(positions, (0, 0, 0, -width % side, 0, -height % side), value=fill)
    return padded.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(3, 4)


def majority_class(cells: torch.Tensor) -> torch.Tensor:
    """Return the most frequent known class of each cell, the smallest id among equals, 255 where none is known.

    Args:
        cells: int, (..., n), ids 0..254, or 255 = unknown.

    Returns:
        int, (...).
    """
    # By pairs, not by class: neither memory nor time depends on how many classes there are.
    votes = (cells.unsqueeze(-1) == cells.unsqueeze(-2)).sum(-1).masked_fill(cells == UNKNOWN_CLASS, 0)
    best = votes.amax(-1, keepdim=True)
    return cells.masked_fill(votes < best, UNKNOWN_CLASS).amin(-1)


def _means(cells: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Return the mean (B, rows, columns, C) over the members of each cell (B, rows, columns, n, C), 0 without any."""
    count = members.sum(-1, keepdim=True).clamp(min=1)
    return cells.masked_fill(~members.unsqueeze(-1), 0).sum(-2) / count


def grid_positions(rows: int, columns: int, tokens: torch.Tensor) -> torch.Tensor:
    """Return sines and cosines of each token's row and column, (rows, columns, C) like tokens (..., C).

    Computed anew in each forward: `from_pretrained` fills buffers that are not saved with garbage.
    """
    channels, dtype = tokens.shape[-1], torch.promote_types(tokens.dtype, torch.float32)
    quarter = -(-channels // 4)
    frequencies = 10000.0 ** (-torch.arange(quarter, device=tokens.device, dtype=dtype) / quarter)
    row, column = (torch.arange(side, device=tokens.device).unsqueeze(-1) * frequencies for side in (rows, columns))
    by_row = torch.cat([row.sin(), row.cos()], -1).unsqueeze(1).expand(-1, columns, -1)
    by_column = torch.cat([column.sin(), column.cos()], -1).unsqueeze(0).expand(rows, -1, -1)
    return torch.cat([by_row, by_column], -1)[..., :channels].to(tokens.dtype)


class Sight(NamedTuple):
    """Who sees whom, once the tokens of each image stand sorted by class: a class is then a run of neighbours.

    Attributes:
        order: (B, T) int64, the token that stands at each place.
        first: (B, T) int64, the first place that the token at a place sees.
        last: (B, T) int64, the place behind the last one that it sees.
    """

    order: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor


def sort_by_class(token_classes: torch.Tensor) -> Sight:
    """Sort tokens (B, T) int by class, 255 = unknown at the end.

    An unknown token sees itself, so that its softmax is defined, and nobody else does.
    """
    classes, order = token_classes.contiguous().sort(dim=1, stable=True)
    places = torch.arange(classes.shape[1], device=classes.device)
    unknown = classes == UNKNOWN_CLASS
    first = torch.where(unknown, places, torch.searchsorted(classes, classes))
    return Sight(order, first, torch.where(unknown, places + 1, torch.searchsorted(classes, classes, right=True)))


def class_attention(sight: Sight, tokens: torch.Tensor, heads: int, implementation: str) -> Attention:
    """Prepare attention within classes, once for all blocks.

    Args:
        sight: Who sees whom.
        tokens: (B, T, C), of the device and precision of the queries.
        heads: Number of heads.
        implementation: "sdpa", "flex" or "auto".
    """
    if implementation == "flex" or (implementation == "auto" and _flex_fits(tokens, heads)):
        return _flex_attention(sight)
    if tokens.device.type == "cpu":
        return _attention_by_chunks(sight, tokens.dtype)
    return _attention_by_matrix(sight, tokens.dtype)


def _attention_by_matrix(sight: Sight, dtype: torch.dtype) -> Attention:
    """Say for every pair of places whether one sees the other; all on the device."""
    # As numbers and not as bools: PyTorch would make, and keep for the backward, such a matrix in every block.
    bias = _bias(sight.first, sight.last, 0, sight.order.shape[1], dtype).unsqueeze(1)
    return functools.partial(F.scaled_dot_product_attention, attn_mask=bias)


def _bias(first: torch.Tensor, last: torch.Tensor, start: int, end: int, dtype: torch.dtype) -> torch.Tensor:
    """Return 0 for the places from `start` to `end` that each query (..., Q) sees, -inf else: (..., Q, end - start)."""
    places = torch.arange(start, end, device=first.device)
    seen = (places >= first.unsqueeze(-1)) & (places < last.unsqueeze(-1))
    return torch.zeros(seen.shape, dtype=dtype, device=first.device).masked_fill(~seen, float("-inf"))


def _attention_by_chunks(sight: Sight, dtype: torch.dtype) -> Attention:
    """Run queries in chunks, each against the run of keys that it sees: of T * T pairs only those around the diagonal.

    For a CPU, where places can be read without waiting for a device.
    """
    plans = [_chunks(*image, dtype) for image in zip(sight.first, sight.last, strict=True)]

    def attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        images = []
        for plan, query, key, value in zip(plans, queries.split(1), keys.split(1), values.split(1), strict=True):
            chunks = [
                F.scaled_dot_product_attention(chunk, key[:, :, start:end], value[:, :, start:end], attn_mask=bias)
                for chunk, (start, end, bias) in zip(query.split(QUERY_CHUNK, dim=2), plan, strict=True)
            ]
            images.append(torch.cat(chunks, dim=2))
        return torch.cat(images)

    return attention


def _chunks(first: torch.Tensor, last: torch.Tensor, dtype: torch.dtype) -> list[tuple[int, int, torch.Tensor | None]]:
    """Return for each chunk of queries which keys any of them sees, and the bias where not all see all of these."""
    plan = []
    for firsts, lasts in zip(first.split(QUERY_CHUNK), last.split(QUERY_CHUNK), strict=True):
        # Both rise along the places.
        start, end = int(firsts[0]), int(lasts[-1])
        alike = start == int(firsts[-1]) and end == int(lasts[0])
        plan.append((start, end, None if alike else _bias(firsts, lasts, start, end, dtype)))
    return plan


def _flex_fits(tokens: torch.Tensor, heads: int) -> bool:
    wide_enough = tokens.shape[-1] // heads >= FLEX_HEAD_CHANNELS
    return tokens.is_cuda and tokens.dtype != torch.float64 and wide_enough and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _flex_attention(sight: Sight) -> Attention:
    # Here, since a saved model carries this file: one that only segments needs none of it.
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(image: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        return (key >= sight.first[image, query]) & (key < sight.last[image, query])

    images, count = sight.order.shape
    blocks = create_block_mask(seen, images, None, count, count, device=str(sight.order.device))
    return functools.partial(_flex_function(sight.order.is_cuda), block_mask=blocks)


@functools.cache
def _flex_function(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    # Uncompiled it holds the whole matrix of scores, which serves comparisons only.
    return cast(Callable[..., Any], torch.compile(flex_attention) if compiled else flex_attention)
