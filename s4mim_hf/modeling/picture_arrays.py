"""Pictures and segmentation maps of every kind that people have, as numpy arrays.

Legend: (H, W) a picture's size. Photographs are taken as they are stored: EXIF orientation is the caller's to apply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension

from .picture_sizes import shrunk_size

# A broken PNG can make Pillow raise SyntaxError.
_UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError)


def rgb_array(image: Any, input_data_format: Any = None) -> np.ndarray:
    """Return one picture as (3, H, W) of its own dtype, but 8-bit where it has 16; gray is repeated, alpha dropped.

    Args:
        image: PIL image of any mode, array or tensor: (H, W), or with 1, 3 or 4 channels first or last.
        input_data_format: "channels_first" or "channels_last"; None: whichever it can be.

    Raises:
        ValueError: It is none of these, has no pixels, or cannot be decoded.
    """
    if isinstance(image, Image.Image):
        return np.moveaxis(np.asarray(_decoded(image)), -1, 0)
    if isinstance(image, torch.Tensor):
        is_tensor, image = True, image.detach().cpu()
        image = image.float() if image.dtype == torch.bfloat16 else image
    else:
        is_tensor = False
    array = np.asarray(image)
    if array.ndim == 2:
        array, input_data_format = array[None], ChannelDimension.FIRST
    if 0 in array.shape:
        raise ValueError(f"an image has the shape {tuple(array.shape)}; it must have at least one pixel")
    if input_data_format is None:
        input_data_format = _channel_dimension(array.shape, first_by_default=is_tensor)
    if input_data_format == ChannelDimension.LAST:
        array = np.moveaxis(array, -1, 0)
    array = np.repeat(array, 3, axis=0) if array.shape[0] == 1 else array[:3]
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    return array * np.uint8(255) if array.dtype == bool else array


def _decoded(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit RGB."""
    try:
        if image.mode.startswith("I"):
            # Pillow's own conversion clips at 255, which turns 16-bit gray into white.
            gray = np.asarray(image).astype(np.int64)
            _check_range(image, gray, 2**16 - 1)
            deep = image.mode.startswith("I;16") or gray.max(initial=0) > 255
            image = Image.fromarray((gray >> 8 if deep else gray).astype(np.uint8))
        elif image.mode == "F":
            _check_range(image, np.asarray(image), 255)
        return image.convert("RGB")
    except _UNREADABLE as error:
        raise ValueError(f"{_named(image)} cannot be decoded ({error}); replace it") from error


def _named(image: Image.Image) -> str:
    file = getattr(image, "filename", "")
    return f"the image {file!r}" if file else "the image"


def _check_range(image: Image.Image, values: np.ndarray, highest: int) -> None:
    """Refuse values that would become black or white: brighter than `highest`, negative, NaN, fractions up to 1."""
    smallest, largest = values.min(initial=0), values.max(initial=0)
    # Written so that NaN is refused as well.
    outside = not (smallest >= 0 and largest <= highest)
    if outside or (values.dtype.kind == "f" and 0 < largest <= 1):
        wrong = f"not within 0..{highest}" if outside else "which would be black"
        raise ValueError(
            f"{_named(image)} has values from {smallest:g} to {largest:g}, {wrong}; store it with 8 or 16 bits"
        )


def flatten(images: Any) -> list[Any]:
    """Return single pictures of nested lists and of 4-D batches."""
    if isinstance(images, list | tuple):
        return [one for part in images for one in flatten(part)]
    return list(images) if getattr(images, "ndim", 0) == 4 else [images]


def _channel_dimension(shape: tuple[int, ...], *, first_by_default: bool) -> ChannelDimension:
    """Say where the channels are; where both ends could be: first in tensors, last in arrays, as is usual for each."""
    ends = [len(shape) == 3 and shape[end] in (1, 3, 4) for end in (0, -1)]
    if not any(ends):
        raise ValueError(
            f"an image has the shape {tuple(shape)}; its first or last dimension must be 1, 3 or 4 channels"
        )
    return ChannelDimension.FIRST if ends[0] and (first_by_default or not ends[1]) else ChannelDimension.LAST


def map_arrays(maps: Any) -> list[np.ndarray]:
    """Return one (H, W) array of ids for each map; a stack (B, H, W) counts as a list.

    Raises:
        ValueError: A map of another shape.
    """
    if isinstance(maps, Image.Image) or (hasattr(maps, "ndim") and maps.ndim == 2):
        maps = [maps]
    arrays = [np.asarray(one.cpu() if isinstance(one, torch.Tensor) else one) for one in maps]
    for array in arrays:
        if array.ndim != 2:
            raise ValueError(f"a segmentation map has the shape {array.shape}; it must be (height, width) of class ids")
    return arrays


def check_pairs(images: list[tuple[int, ...]], maps: list[tuple[int, ...]]) -> None:
    """Refuse maps (H, W) that are not their images', pairwise.

    Raises:
        ValueError: A map whose size or number differs.
    """
    if images != maps:
        raise ValueError(
            f"the images' sizes are {images} and the segmentation maps' {maps}; they must be the same, pairwise"
        )


def shrunk_map(ids: np.ndarray, max_side: int | None) -> np.ndarray:
    """Shrink (H, W) ids like their picture: each pixel takes the id at its centre."""
    return resized_map(ids, *shrunk_size(ids.shape[0], ids.shape[1], max_side))


def resized_map(ids: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W) ids of any type to (height, width) by nearest neighbour: each pixel takes the id at its centre."""
    sizes = zip((height, width), ids.shape, strict=True)
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in sizes)
    return ids[rows[:, None], columns]
