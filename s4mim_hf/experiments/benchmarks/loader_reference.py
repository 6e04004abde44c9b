"""What loading is measured against: every view of every image made by Pillow in the worker, as UniMatch's code does.

The operations and their parameters are those of the peers' recipe: resizing by 0.5 to 2, padding and crop, mirroring,
and for an unlabelled image two strong views (colour jitter 0.5 / 0.5 / 0.5 / 0.25 with p 0.8, greyscale with p 0.2, and
blur with p 0.5, sigma 0.1 to 2), each with a box for CutMix; all views are normalised to floats. torchvision, which
they use, does the same on Pillow images by the same calls of Pillow.

S: the side of the crop.
"""

from __future__ import annotations

import io
import math
import random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

IGNORE_INDEX = 255
MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
# Marks padding in the otherwise empty mask of an unlabelled image.
PADDING = 254


class LabeledReference(NamedTuple):
    """A labelled image: float32 (3, S, S), normalised, and int64 (S, S), 255 where unknown."""

    image: Tensor
    label: Tensor


class UnlabeledReference(NamedTuple):
    """An unlabelled image: three views float32 (3, S, S), normalised, int64 (S, S), 255 on padding; two boxes (S, S).

    A box is 1 where a pixel is taken from another image.
    """

    weak: Tensor
    first_strong: Tensor
    second_strong: Tensor
    ignored: Tensor
    first_box: Tensor
    second_box: Tensor


def load_labeled(image: bytes, label: bytes, size: int, rng: random.Random) -> LabeledReference:
    """Decode a labelled image and make its weak view of `size` pixels."""
    whole, whole_mask = Image.open(io.BytesIO(image)).convert("RGB"), Image.open(io.BytesIO(label))
    picture, mask = weak_view(whole, whole_mask, size, IGNORE_INDEX, rng)
    return LabeledReference(normalized(picture), torch.from_numpy(np.array(mask)).long())


def load_unlabeled(image: bytes, size: int, rng: random.Random) -> UnlabeledReference:
    """Decode an unlabelled image and make its weak view and its two strong ones, of `size` pixels."""
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    mask = Image.new("L", picture.size)
    picture, mask = weak_view(picture, mask, size, PADDING, rng)
    first, second = strong_view(picture, rng), strong_view(picture, rng)
    boxes = cutmix_box(size, rng), cutmix_box(size, rng)
    padding = torch.from_numpy(np.array(mask)).long()
    ignored = torch.zeros_like(padding)
    ignored[padding == PADDING] = IGNORE_INDEX
    return UnlabeledReference(normalized(picture), normalized(first), normalized(second), ignored, *boxes)


def weak_view(
    picture: Image.Image, mask: Image.Image, size: int, padding: int, rng: random.Random
) -> tuple[Image.Image, Image.Image]:
    """Resize a whole picture and its mask by 0.5 to 2, pad them where they are smaller than `size`, crop and mirror."""
    width, height = picture.size
    longer = rng.randint(int(max(width, height) * 0.5), int(max(width, height) * 2.0))
    scale = longer / max(width, height)
    scaled = max(1, round(width * scale)), max(1, round(height * scale))
    picture, mask = picture.resize(scaled, Image.Resampling.BILINEAR), mask.resize(scaled, Image.Resampling.NEAREST)
    border = (0, 0, max(0, size - scaled[0]), max(0, size - scaled[1]))
    picture, mask = ImageOps.expand(picture, border, fill=0), ImageOps.expand(mask, border, fill=padding)
    left, top = rng.randint(0, picture.width - size), rng.randint(0, picture.height - size)
    box = (left, top, left + size, top + size)
    picture, mask = picture.crop(box), mask.crop(box)
    if rng.random() < 0.5:
        mirror = Image.Transpose.FLIP_LEFT_RIGHT
        picture, mask = picture.transpose(mirror), mask.transpose(mirror)
    return picture, mask


def strong_view(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Return a picture with its colours shifted, without them, and blurred, each or not."""
    if rng.random() < 0.8:
        picture = color_jitter(picture, rng)
    if rng.random() < 0.2:
        grey = picture.convert("L")
        picture = Image.merge("RGB", (grey, grey, grey))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    return picture


def color_jitter(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Change brightness, contrast, saturation (factors 0.5 to 1.5) and hue (by up to a quarter turn), in any order."""
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None]
    rng.shuffle(enhancers)
    for enhancer in enhancers:
        if enhancer is None:
            picture = shift_hue(picture, rng.uniform(-0.25, 0.25))
        else:
            picture = enhancer(picture).enhance(rng.uniform(0.5, 1.5))
    return picture


def shift_hue(picture: Image.Image, turns: float) -> Image.Image:
    """Turn every pixel's hue, in 8 bits."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.array(hue).astype(np.int16) + int(turns * 255)).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def cutmix_box(size: int, rng: random.Random) -> Tensor:
    """Draw, half of the time, a box of 0.02 to 0.4 of the crop that lies within it; float32 (S, S), 1 inside."""
    box = torch.zeros(size, size)
    if rng.random() < 0.5:
        return box
    area = rng.uniform(0.02, 0.4) * size * size
    while True:
        aspect = rng.uniform(0.3, 1 / 0.3)
        width, height = int(math.sqrt(area / aspect)), int(math.sqrt(area * aspect))
        left, top = rng.randint(0, size - 1), rng.randint(0, size - 1)
        if left + width <= size and top + height <= size:
            box[top : top + height, left : left + width] = 1
            return box


def normalized(picture: Image.Image) -> Tensor:
    """Return a picture as float32 (3, S, S), channels centred and scaled as ImageNet's."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div_(255).sub_(MEAN).div_(STD)
