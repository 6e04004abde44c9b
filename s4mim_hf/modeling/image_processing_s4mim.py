"""Images in, `pixel_values` out; logits in, class maps out. On Pillow and numpy only.

Legend: (H, W) a picture's size. Photographs are taken as they are stored: EXIF orientation is the caller's to apply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

IGNORE_INDEX = 255
# Scores that are held at once where logits are enlarged to a photo's size (256 MiB): all of its classes may be 8 GB.
_SCORES_AT_ONCE = 2**26


class S4MIMImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # mypy does not see the base
    """What `S4MIMImageProcessor` takes beyond transformers' arguments."""

    max_side: int | None


class S4MIMImageProcessor(PilBackend):
    """Scale images to [0, 1] and normalise them with ImageNet's mean and deviation, at their own size by default.

    Args (all but `max_side` as in transformers' image processors):
        max_side: The longest side that the model's training pictures were allowed to keep. Images whose longer side is
            longer are first shrunk to it, with their maps (by nearest neighbour); None: none are.
        do_resize: Off by default. `size` is {"shortest_edge": N}, {"longest_edge": N}, both, or
            {"height": H, "width": W}.
        resample: Pillow's resampling for images (bilinear); segmentation maps are always resized by nearest neighbour.
        do_rescale, rescale_factor: Multiply by 1/255.
        do_normalize, image_mean, image_std: (x - mean) / std for each channel.
        do_pad: Pad images of different sizes to the largest height and width, to the right and below: with 0 after
            normalisation (the mean colour), labels with 255.
    """

    _auto_class = "AutoImageProcessor"
    valid_kwargs = S4MIMImageProcessorKwargs

    max_side: int | None = None
    resample = PILImageResampling.BILINEAR
    image_mean = (0.485, 0.456, 0.406)
    image_std = (0.229, 0.224, 0.225)
    size = {"shortest_edge": 512}  # noqa: RUF012 - transformers reads class attributes as defaults and copies them
    default_to_square = False
    do_resize = False
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_pad = True
    model_input_names = ["pixel_values"]  # noqa: RUF012

    def preprocess(self, images: Any, segmentation_maps: Any = None, **kwargs: Any) -> BatchFeature:
        """Prepare one picture or a list of them.

        Args:
            images: PIL image, numpy array or tensor (grayscale, RGB or RGBA; channels first or last), or a list.
            segmentation_maps: (H, W) ids as PIL image, array or tensor, one for each image; None for none.
            kwargs: Any argument of the class, for this call; `return_tensors="pt"` for a batch as tensors.

        Returns:
            pixel_values: (B, 3, H, W) float32, and with maps labels: (B, H, W) int64.

        Raises:
            ValueError: A map whose size or number differs from the images', or sizes that differ without do_pad.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def process_image(
        self, image: Any, do_convert_rgb: bool | None = None, input_data_format: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """Return one picture as (3, H, W) of its own dtype; gray is repeated, transparency dropped."""
        if isinstance(image, Image.Image):
            return np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
        array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        if array.ndim == 2:
            array, input_data_format = array[None], ChannelDimension.FIRST
        if input_data_format is None:
            input_data_format = _channel_dimension(array.shape, first_by_default=isinstance(image, torch.Tensor))
        if input_data_format == ChannelDimension.LAST:
            array = np.moveaxis(array, -1, 0)
        return np.repeat(array, 3, axis=0) if array.shape[0] == 1 else array[:3]

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        """Return a flat list; unlike transformers', it knows (H, W) arrays as gray pictures."""
        return _flatten(self.fetch_images(images))

    def resize(self, image: np.ndarray, size: SizeDict, resample: Any = None, **kwargs: Any) -> np.ndarray:
        """Resize (C, H, W), also to a longest edge alone, which the Pillow backend does not know."""
        if size.longest_edge and not size.shortest_edge:
            height, width = image.shape[-2:]
            scale = size.longest_edge / max(height, width)
            size = SizeDict(height=max(1, round(height * scale)), width=max(1, round(width * scale)))
        return super().resize(image, size, resample=resample, **kwargs)

    def _shrink(self, image: np.ndarray, max_side: int | None) -> np.ndarray:
        """Shrink (C, H, W) as the training pictures were when they were stored; smaller ones stay as they are.

        Lanczos keeps the edges of thin things, and widens with the factor, so that nothing aliases.
        """
        height, width = shrunk_size(image.shape[-2], image.shape[-1], max_side)
        if (height, width) == image.shape[-2:]:
            return image
        return super().resize(image, SizeDict(height=height, width=width), resample=PILImageResampling.LANCZOS)

    def _preprocess_image_like_inputs(
        self, images: Any, segmentation_maps: Any, *, return_tensors: Any = None, **kwargs: Any
    ) -> BatchFeature:
        prepared = self._prepare_image_like_inputs(images, **_only(kwargs, "do_convert_rgb", "input_data_format"))
        data = {"pixel_values": self._preprocess(prepared, **kwargs)}
        if segmentation_maps is not None:
            maps = _as_maps(segmentation_maps)
            _check_pairs([image.shape[-2:] for image in prepared], [one.shape for one in maps])
            data["labels"] = self._prepare_maps(maps, **kwargs)
        if return_tensors is not None and len({image.shape for image in data["pixel_values"]}) > 1:
            raise ValueError(
                "the images have different sizes and do_pad is off; pass images of one size, or do_pad=True"
            )
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _preprocess(
        self,
        images: list[np.ndarray],
        *,
        max_side: int | None,
        do_resize: bool,
        size: SizeDict,
        resample: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        do_pad: bool,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        images = [self._shrink(image, max_side) for image in images]
        if do_resize:
            images = [self.resize(image, size, resample) for image in images]
        if do_rescale:
            images = [self.rescale(image, rescale_factor) for image in images]
        if do_normalize:
            images = [self.normalize(image, image_mean, image_std) for image in images]
        images = [np.ascontiguousarray(image, dtype=np.float32) for image in images]
        return self.pad(images) if do_pad and len(images) > 1 else images

    def _prepare_maps(
        self,
        maps: list[np.ndarray],
        *,
        max_side: int | None,
        do_resize: bool,
        size: SizeDict,
        do_pad: bool,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        channels = [_shrink_map(one, max_side)[None] for one in maps]
        if do_resize:
            # As bytes: Pillow resizes 8-bit pictures, and ids fit.
            channels = [self.resize(one.astype(np.uint8), size, PILImageResampling.NEAREST) for one in channels]
        if do_pad and len(channels) > 1:
            channels = self.pad(channels, fill_value=IGNORE_INDEX)
        return [one[0].astype(np.int64) for one in channels]

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: list[tuple[int, int]] | torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Turn logits into class maps.

        Args:
            outputs: Has `logits` (B, K, H, W).
            target_sizes: The (height, width) of each map, B of them, such as the pictures' sizes before `max_side`;
                the logits are resized bilinearly. None: as they are.

        Returns:
            B tensors (H, W) int64 of ids 0..K-1.

        Raises:
            ValueError: Another number of target sizes than of images.
        """
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
        if target_sizes is None:
            return list(logits.argmax(dim=1))
        if len(target_sizes) != len(logits):
            raise ValueError(f"{len(target_sizes)} target sizes are given for {len(logits)} images; give one for each")
        sizes = [(int(height), int(width)) for height, width in target_sizes]
        return [class_map(one, size) for one, size in zip(logits, sizes, strict=True)]


def shrunk_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """Return the (height, width) that a picture has once its longer side is at most `max_side`."""
    longest = max(height, width)
    if max_side is None or longest <= max_side:
        return height, width
    if max_side < 1:
        raise ValueError(f"max_side is {max_side}; it must be at least 1, or None to shrink nothing")
    return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))


def _shrink_map(ids: np.ndarray, max_side: int | None) -> np.ndarray:
    """Shrink (H, W) ids like their picture: each pixel takes the id at its centre."""
    sizes = zip(shrunk_size(ids.shape[0], ids.shape[1], max_side), ids.shape, strict=True)
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in sizes)
    return ids[rows[:, None], columns]


def class_map(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the class with the highest score at each pixel, int64 `size` (H, W), of logits (K, h, w).

    Scores are enlarged bilinearly, a few classes at a time, so that a large picture takes little memory.
    """
    if logits.shape[-2:] == size:
        return logits.argmax(dim=0)
    at_once = max(1, _SCORES_AT_ONCE // (size[0] * size[1]))
    highest: torch.Tensor | None = None
    for start in range(0, len(logits), at_once):
        part = logits[start : start + at_once].float()
        part = F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0]
        scores, ids = part.max(dim=0)
        if highest is None:
            highest, winner = scores, ids
        else:
            better = scores > highest
            highest, winner = torch.where(better, scores, highest), torch.where(better, ids + start, winner)
    return winner


def _flatten(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return [one for part in images for one in _flatten(part)]
    return list(images) if getattr(images, "ndim", 0) == 4 else [images]


def _channel_dimension(shape: tuple[int, ...], *, first_by_default: bool) -> ChannelDimension:
    """Say where the channels are; where both ends could be: first in tensors, last in arrays, as is usual for each."""
    ends = [len(shape) == 3 and shape[end] in (1, 3, 4) for end in (0, -1)]
    if not any(ends):
        raise ValueError(
            f"an image has the shape {tuple(shape)}; its first or last dimension must be 1, 3 or 4 channels"
        )
    return ChannelDimension.FIRST if ends[0] and (first_by_default or not ends[1]) else ChannelDimension.LAST


def _only(kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Take `names` out of `kwargs`."""
    return {name: kwargs.pop(name, None) for name in names}


def _as_maps(maps: Any) -> list[np.ndarray]:
    """Return one (H, W) array of ids for each map; a stack (B, H, W) counts as a list."""
    if isinstance(maps, Image.Image) or (hasattr(maps, "ndim") and maps.ndim == 2):
        maps = [maps]
    arrays = [np.asarray(one.cpu() if isinstance(one, torch.Tensor) else one) for one in maps]
    for array in arrays:
        if array.ndim != 2:
            raise ValueError(f"a segmentation map has the shape {array.shape}; it must be (height, width) of class ids")
    return arrays


def _check_pairs(images: list[tuple[int, ...]], maps: list[tuple[int, ...]]) -> None:
    if images != maps:
        raise ValueError(
            f"the images' sizes are {images} and the segmentation maps' {maps}; they must be the same, pairwise"
        )


__all__ = ["S4MIMImageProcessor"]
