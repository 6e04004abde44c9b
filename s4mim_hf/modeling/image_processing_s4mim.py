"""Images in, `pixel_values` out; logits in, class maps out. On Pillow and numpy only.

Legend: (H, W) a picture's size. Photographs are taken as they are stored: EXIF orientation is the caller's to apply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from .picture_arrays import check_pairs, flatten, map_arrays, resized_map, rgb_array, shrunk_map
from .picture_sizes import Size, as_sizes, padded_size, resized_size, shrunk_size

IGNORE_INDEX = 255
# Scores that are held at once where logits are enlarged to a photo's size (256 MiB): all of its classes may be 8 GB.
_SCORES_AT_ONCE = 2**26


class S4MIMImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # mypy does not see the base
    """What `S4MIMImageProcessor` takes beyond transformers' arguments."""

    max_side: int | None
    keep_aspect_ratio: bool | None
    size_divisor: int | None


class S4MIMImageProcessor(PilBackend):
    """Scale images to [0, 1] and normalise them with ImageNet's mean and deviation, at their own size by default.

    Args (the others are as in transformers' image processors):
        max_side: The longest side that the model's training pictures were allowed to keep. Images whose longer side is
            longer are first shrunk to it, with their maps (by nearest neighbour); None: none are.
        do_resize: Off by default. `size` is {"shortest_edge": N}, {"longest_edge": N}, both, or
            {"height": H, "width": W}.
        keep_aspect_ratio: True: `size` bounds the image, whose shape stays: it becomes as large as fits into H x W.
            False: the image becomes exactly H x W, or N x N for one edge. None, the default: edges keep the shape,
            H x W does not.
        resample: Pillow's resampling for images (bilinear); segmentation maps are always resized by nearest neighbour.
        do_rescale, rescale_factor: Multiply by 1/255.
        do_normalize, image_mean, image_std: (x - mean) / std for each channel.
        do_pad: Pad to the right and below: with 0 after normalisation (the mean colour), labels with 255. Images of
            different sizes become as large as the largest height and width among them.
        size_divisor: Pad height and width to multiples of this, single images too; None: to no multiple.
        pad_size: {"height": H, "width": W} to pad every image to; None: no further than the batch needs.
    """

    _auto_class = "AutoImageProcessor"
    valid_kwargs = S4MIMImageProcessorKwargs

    max_side: int | None = None
    keep_aspect_ratio: bool | None = None
    size_divisor: int | None = None
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
            images: PIL image of any mode, numpy array or tensor (gray, RGB or RGBA; channels first or last), path or
                URL, a batch (B, 3, H, W), or a list.
            segmentation_maps: (H, W) ids as PIL image, array or tensor, one for each image; None for none.
            kwargs: Any argument of the class, for this call; `return_tensors="pt"` for a batch as tensors.

        Returns:
            pixel_values: (B, 3, H, W) float32, and with maps labels: (B, H, W) int64.

        Raises:
            ValueError: An image that cannot be read or is none, a map whose size or number differs from the images',
                sizes that differ without do_pad, or an argument of other processors: do_center_crop, channels last.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def input_size(self, height: int, width: int, **kwargs: Any) -> Size:
        """Return the (height, width) that a picture of this size fills in `pixel_values`, in the upper left corner.

        What lies to the right and below is padding. `kwargs` are what a call changes: max_side, do_resize, size,
        keep_aspect_ratio.
        """
        names = ("max_side", "do_resize", "size", "keep_aspect_ratio", "default_to_square")
        chosen = self._standardize_kwargs(**{name: kwargs.get(name, getattr(self, name)) for name in names})
        height, width = shrunk_size(height, width, chosen["max_side"])
        if not chosen["do_resize"]:
            return height, width
        return resized_size(height, width, chosen["size"], chosen["keep_aspect_ratio"])

    def process_image(
        self, image: Any, do_convert_rgb: bool | None = None, input_data_format: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """Return one picture as (3, H, W) of its own dtype; gray is repeated, transparency dropped."""
        return rgb_array(image, input_data_format)

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        """Return a flat list; unlike transformers', it knows (H, W) arrays as gray pictures."""
        found = [self._fetch(one) for one in flatten(images)]
        if not found:
            raise ValueError("there are no images; give at least one")
        return found

    def _fetch(self, image: Any) -> Any:
        try:
            return self.fetch_images(image)
        except (OSError, TypeError, ValueError) as error:
            words = " ".join(str(error).split())[:300]
            raise ValueError(f"the image {image!r:.200} cannot be read ({words}); give an image") from error

    def resize(self, image: np.ndarray, size: SizeDict, resample: Any = None, **kwargs: Any) -> np.ndarray:
        """Resize (C, H, W) to `size`, its shape kept or not as `keep_aspect_ratio` among the arguments says."""
        height, width = resized_size(image.shape[-2], image.shape[-1], size, kwargs.get("keep_aspect_ratio"))
        return super().resize(image, SizeDict(height=height, width=width), resample=resample)

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
        _refuse_others(kwargs.get("do_center_crop"), kwargs.get("data_format"))
        prepared = self._prepare_image_like_inputs(images, **_only(kwargs, "do_convert_rgb", "input_data_format"))
        data = {"pixel_values": self._preprocess(prepared, **kwargs)}
        if segmentation_maps is not None:
            maps = map_arrays(segmentation_maps)
            check_pairs([image.shape[-2:] for image in prepared], [one.shape for one in maps])
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
        keep_aspect_ratio: bool | None = None,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        images = [self._shrink(image, max_side) for image in images]
        if do_resize:
            images = [self.resize(image, size, resample, keep_aspect_ratio=keep_aspect_ratio) for image in images]
        if do_rescale:
            images = [self.rescale(image, rescale_factor) for image in images]
        if do_normalize:
            images = [self.normalize(image, image_mean, image_std) for image in images]
        images = [np.ascontiguousarray(image, dtype=np.float32) for image in images]
        return self._pad_alike(images, 0, **kwargs) if do_pad else images

    def _pad_alike(
        self,
        images: list[np.ndarray],
        value: int,
        size_divisor: int | None = None,
        pad_size: SizeDict | None = None,
        **_: Any,
    ) -> list[np.ndarray]:
        height, width = padded_size([image.shape[-2:] for image in images], size_divisor, pad_size)
        return self.pad(images, SizeDict(height=height, width=width), fill_value=value)

    def _prepare_maps(
        self,
        maps: list[np.ndarray],
        *,
        max_side: int | None,
        do_resize: bool,
        size: SizeDict,
        do_pad: bool,
        keep_aspect_ratio: bool | None = None,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        # What is padded with 255 must hold it, and truth values do not.
        maps = [shrunk_map(one, max_side).astype(np.int64) for one in maps]
        if do_resize:
            sizes = [resized_size(one.shape[0], one.shape[1], size, keep_aspect_ratio) for one in maps]
            maps = [resized_map(one, height, width) for one, (height, width) in zip(maps, sizes, strict=True)]
        channels = [one[None] for one in maps]
        if do_pad:
            channels = self._pad_alike(channels, IGNORE_INDEX, **kwargs)
        return [one[0] for one in channels]

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: list[Size] | torch.Tensor | None = None,
        input_sizes: list[Size] | torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Turn logits into class maps of the pictures' own sizes.

        Where the padding lies follows from the pictures' sizes: if they, shrunk, resized and padded as this processor
        is configured, make up the logits' height and width, then each picture's part is cut out before it is resized.
        Otherwise, as with logits of a smaller scale, all of them are resized.

        Args:
            outputs: Has `logits` (B, K, H, W), or is a dictionary with them.
            target_sizes: The (height, width) of each picture as it was given to the processor, B of them; the logits
                are resized to it bilinearly. None: as they are.
            input_sizes: The (height, width) that each picture fills in the logits, where a call of the processor
                changed its configuration: `input_size` says it. None: as configured.

        Returns:
            B tensors (H, W) int64 of ids 0..K-1.

        Raises:
            ValueError: Another number of sizes than of images, or input sizes larger than the logits.
        """
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
        whole: Size = (logits.shape[-2], logits.shape[-1])
        targets = as_sizes(target_sizes, "target", len(logits))
        filled = as_sizes(input_sizes, "input", len(logits), most=whole)
        if filled is None:
            filled = [whole] * len(logits) if targets is None else self._filled(targets, whole)
        parts = [one[:, :height, :width] for one, (height, width) in zip(logits, filled, strict=True)]
        return [class_map(part, size) for part, size in zip(parts, targets or filled, strict=True)]

    def _filled(self, targets: list[Size], whole: Size) -> list[Size]:
        """Return each picture's part of logits of size `whole`: all of them where padding does not make up that."""
        if not self.do_pad:
            return [whole] * len(targets)
        sizes = [self.input_size(*target) for target in targets]
        padding = self._standardize_kwargs(pad_size=self.pad_size)["pad_size"]
        try:
            fits = padded_size(sizes, self.size_divisor, padding) == whole
        except ValueError:
            fits = False
        return sizes if fits else [whole] * len(targets)


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


def _refuse_others(do_center_crop: Any, data_format: Any) -> None:
    """Refuse what transformers' processors can do, and would be left undone here."""
    if do_center_crop:
        raise ValueError("do_center_crop is on, but S4MIMImageProcessor never cuts an image; leave it out")
    if data_format not in (None, ChannelDimension.FIRST):
        raise ValueError(f"data_format is {data_format!r}, but pixel_values are always (B, 3, H, W); leave it out")


def _only(kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Take `names` out of `kwargs`."""
    return {name: kwargs.pop(name, None) for name in names}


__all__ = ["S4MIMImageProcessor"]
