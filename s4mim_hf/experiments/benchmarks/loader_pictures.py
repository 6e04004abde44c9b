"""Pictures to measure loading with: scenes with the detail and grain of photographs, or one's own photographs.

What a file takes to decode depends on how much is in it. The scenes are therefore made so that their files are as large
as those of the data sets that they stand for: about 105 kB for a JPEG of 500x375 (Pascal VOC), and about 2.3 MB for a
PNG of 2048x1024 (Cityscapes).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from s4mim_hf.data.prepared import decode_image
from s4mim_hf.data.sources.reading import reason
from s4mim_hf.data.synthetic import render_scene
from s4mim_hf.errors import InputError
from s4mim_hf.randomness import derive_seed

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Standard deviation of what is added to a scene, of 255: detail at every size, and the grain of single pixels.
DETAIL, GRAIN = {"JPEG": 8.0, "PNG": 2.5}, {"JPEG": 4.0, "PNG": 0.8}


@dataclass(frozen=True)
class Sample:
    """A picture with its class map, encoded.

    Args:
        image: JPEG or PNG.
        label: 8-bit PNG.
    """

    image: bytes
    label: bytes


def make_samples(count: int, width: int, height: int, image_format: str, folder: Path | None) -> list[Sample]:
    """Return samples of one size.

    Args:
        count: how many.
        width: in pixels.
        height: in pixels.
        image_format: "JPEG" or "PNG".
        folder: of photographs, which are resized and cut to the size; None for scenes.

    Raises:
        InputError: the folder is missing, has no pictures, or one that cannot be read.
    """
    photos = None if folder is None else _photos(folder, count)
    samples = []
    for number in range(count):
        rng = np.random.default_rng(derive_seed(0, "benchmark-picture", number))
        scene, label = render_scene(rng)
        if photos is None:
            image = _photo_like(scene, width, height, DETAIL[image_format], GRAIN[image_format], rng)
        else:
            image = ImageOps.fit(photos[number % len(photos)], (width, height), Image.Resampling.LANCZOS)
        map_of_classes = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
        samples.append(Sample(_encoded(image, image_format), _encoded(map_of_classes, "PNG")))
    return samples


def _photos(folder: Path, most: int) -> list[Image.Image]:
    """Decode the first pictures of a folder, by name."""
    if not folder.is_dir():
        raise InputError(f"--images {folder}: there is no such folder; name one with photographs")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:most]
    if not files:
        raise InputError(f"--images {folder} has no pictures ({', '.join(SUFFIXES)}); name a folder with photographs")
    photos = []
    for file in files:
        try:
            photos.append(Image.fromarray(decode_image(file.read_bytes())))
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"--images: {file} cannot be read: {reason(error)}; remove it from the folder") from None
    return photos


def _photo_like(
    scene: np.ndarray, width: int, height: int, detail: float, grain: float, rng: np.random.Generator
) -> Image.Image:
    """Enlarge a scene, and add noise whose power falls with the frequency as that of photographs does, and grain."""
    large = Image.fromarray(scene).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, grain, (height, width)).astype(np.float32)
    octave = 2
    while octave < min(width, height):
        coarse = rng.normal(0, detail, (height // octave + 2, width // octave + 2)).astype(np.float32)
        noise += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        octave *= 2
    pixels = np.asarray(large).astype(np.float32) + noise[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _encoded(image: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **({"quality": 95} if image_format == "JPEG" else {}))
    return buffer.getvalue()
