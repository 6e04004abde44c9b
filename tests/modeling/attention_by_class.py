"""The attention decoder as a plain loop over images and classes, and without any classes: what one pass must equal."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from s4mim_hf.modeling.mim_attention import AttentionDecoder, ClassAttentionBlock


def cell_classes(class_map: list[list[int]], side: int) -> dict[tuple[int, int], int]:
    """Return the majority class of each cell of one image, by counting."""
    votes: dict[tuple[int, int], dict[int, int]] = {}
    for row, line in enumerate(class_map):
        for column, one in enumerate(line):
            cell = votes.setdefault((row // side, column // side), {})
            if one != 255:
                cell[one] = cell.get(one, 0) + 1
    return {place: min(cell, key=lambda k: (-cell[k], k)) for place, cell in votes.items() if cell}


def position(row: int, column: int, channels: int) -> torch.Tensor:
    quarter = -(-channels // 4)
    angles = [10000.0 ** (-index / quarter) for index in range(quarter)]
    values = [f(place * angle) for place in (row, column) for f in (math.sin, math.cos) for angle in angles]
    return torch.tensor(values[:channels], dtype=torch.float64)


def reference(model: AttentionDecoder, features: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
    """Once per image and class: ungated attention, written out, of that class's tokens and nothing else."""
    side = model.token_patch // model.patch
    canvas = []
    for z, ids in zip(features, class_map, strict=True):
        height, width = ids.shape
        pixels = torch.zeros(3, height * model.patch, width * model.patch, dtype=z.dtype)
        cells = cell_classes(ids.tolist(), side)
        for one in sorted(set(cells.values())):
            places = [place for place, found in cells.items() if found == one]
            members = []
            for row, column in places:
                inside = torch.zeros_like(ids, dtype=torch.bool)
                inside[row * side : (row + 1) * side, column * side : (column + 1) * side] = True
                members.append(inside & (ids == one))
            tokens = torch.stack([z[:, member].mean(1) for member in members])
            tokens = F.linear(tokens, model.embed.weight, model.embed.bias)
            tokens = tokens + torch.stack([position(*place, tokens.shape[1]) for place in places]).to(tokens)
            for block in model.blocks:
                tokens = plain_block(block, tokens)
            squares = model.predict(model.layernorm(tokens))
            for (row, column), member, square in zip(places, members, squares, strict=True):
                size = model.token_patch
                full = F.pad(square.view(3, size, size), (column * size, width * 4, row * size, height * 4))
                covered = member.repeat_interleave(4, 0).repeat_interleave(4, 1)
                pixels = pixels + full[:, : height * 4, : width * 4] * covered
        canvas.append(pixels)
    return torch.stack(canvas)


def plain_block(block: ClassAttentionBlock, tokens: torch.Tensor) -> torch.Tensor:
    """Attend with softmax written out, head by head."""
    queries, keys, values = block.query_key_value(block.attention_layernorm(tokens)).chunk(3, -1)
    width, heads = tokens.shape[1] // block.heads, []
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        weights = (queries[:, part] @ keys[:, part].t() / math.sqrt(width)).softmax(-1)
        heads.append(weights @ values[:, part])
    tokens = tokens + block.mix(torch.cat(heads, -1))
    return tokens + block.contract(F.gelu(block.expand(block.layernorm(tokens))))


def ungated(model: AttentionDecoder, features: torch.Tensor) -> torch.Tensor:
    """The basic decoder as one would write it; tokens divide the features."""
    tokens = model.embed(F.avg_pool2d(features, model.token_patch // model.patch).permute(0, 2, 3, 1))
    _, rows, columns, channels = tokens.shape
    places = [position(row, column, channels) for row in range(rows) for column in range(columns)]
    tokens = tokens.flatten(1, 2) + torch.stack(places).to(tokens)
    for block in model.blocks:
        heads = block.query_key_value(block.attention_layernorm(tokens)).unflatten(-1, (3, block.heads, -1))
        mixed = F.scaled_dot_product_attention(*heads.permute(2, 0, 3, 1, 4).unbind())
        tokens = tokens + block.mix(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + block.contract(F.gelu(block.expand(block.layernorm(tokens))))
    squares = model.predict(model.layernorm(tokens)).unflatten(1, (rows, columns))
    return F.pixel_shuffle(squares.permute(0, 3, 1, 2), model.token_patch)
