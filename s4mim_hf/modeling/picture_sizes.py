"""The sizes that a picture goes through on its way into the network: shrunk, resized, padded.

All sizes are (height, width) in pixels. A picture lies in the upper left corner of its padded input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import SizeDict

Size = tuple[int, int]


def shrunk_size(height: int, width: int, max_side: int | None) -> Size:
    """Return the size that a picture has once its longer side is at most `max_side`."""
    longest = max(height, width)
    if max_side is None or longest <= max_side:
        return height, width
    if max_side < 1:
        raise ValueError(f"max_side is {max_side}; it must be at least 1, or None to shrink nothing")
    return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))


def resized_size(height: int, width: int, size: SizeDict, keep_aspect_ratio: bool | None = None) -> Size:
    """Return the size that a picture is resized to.

    Args:
        height: Of the picture.
        width: Of the picture.
        size: {"shortest_edge": N}, {"longest_edge": N}, both (then the longer side is at most its N), or
            {"height": H, "width": W}.
        keep_aspect_ratio: True: the picture's shape stays, and it is as large as fits into H x W. False: the size is
            exactly H x W, or N x N. None: as `size` says, edges keep it and H x W does not.

    Raises:
        ValueError: Another `size`, or two edges whose ratio is not to be kept.
    """
    shortest, longest = size.shortest_edge, size.longest_edge
    box = (size.height, size.width) if size.height and size.width else None
    keep = keep_aspect_ratio if keep_aspect_ratio is not None else box is None
    if box is not None:
        return _scaled(height, width, min(box[0] / height, box[1] / width)) if keep else box
    if not shortest and not longest:
        raise ValueError(
            f"the size to resize to is {dict(size)}; give shortest_edge, longest_edge, both, or height and width"
        )
    if not keep:
        if shortest and longest:
            raise ValueError(
                f"keep_aspect_ratio is False and the size has a shortest_edge {shortest} and a longest_edge {longest}; "
                "give height and width instead"
            )
        edge = shortest or longest
        return edge, edge
    if not shortest:
        return _scaled(height, width, longest / max(height, width))
    rows, columns = get_size_with_aspect_ratio((height, width), shortest, longest)
    return max(1, rows), max(1, columns)


def _scaled(height: int, width: int, scale: float) -> Size:
    return max(1, round(height * scale)), max(1, round(width * scale))


def padded_size(sizes: Sequence[Size], divisor: int | None = None, least: SizeDict | None = None) -> Size:
    """Return the size that all pictures of a batch are padded to.

    Args:
        sizes: Theirs.
        divisor: Height and width become multiples of it; None: no need.
        least: {"height": H, "width": W} that the padded pictures have at least; None: no need.

    Raises:
        ValueError: A divisor below 1, or a picture larger than `least`.
    """
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    if least is not None and least.height and least.width:
        if height > least.height or width > least.width:
            raise ValueError(
                f"pad_size is {least.height}x{least.width}, but an image is {height}x{width}; resize it first "
                "(do_resize), or give a larger pad_size"
            )
        height, width = least.height, least.width
    if divisor is None:
        return height, width
    if divisor < 1:
        raise ValueError(f"size_divisor is {divisor}; it must be at least 1, or None to pad to no multiple")
    return height + -height % divisor, width + -width % divisor


def as_sizes(sizes: Any, kind: str, count: int, most: Size | None = None) -> list[Size] | None:
    """Return sizes as plain integers; None for None.

    Args:
        sizes: Pairs of numbers, or a tensor (count, 2).
        kind: What they are, for messages.
        count: How many there must be.
        most: What none may exceed; None: there is no limit.

    Raises:
        ValueError: Another number of them, or one that is empty or too large.
    """
    if sizes is None:
        return None
    if len(sizes) != count:
        raise ValueError(f"{len(sizes)} {kind} sizes are given for {count} images; give one for each")
    found = [(int(height), int(width)) for height, width in sizes]
    for height, width in found:
        if min(height, width) < 1:
            raise ValueError(f"the {kind} size {height}x{width} has no pixels; give height and width of at least 1")
        if most is not None and (height > most[0] or width > most[1]):
            raise ValueError(
                f"the {kind} size {height}x{width} is larger than the logits, {most[0]}x{most[1]}; give the part of "
                "them that the picture fills"
            )
    return found
