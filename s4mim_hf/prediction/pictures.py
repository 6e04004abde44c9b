"""Predictions as PNG pictures: class maps with their palette, confidence maps, overlays; and a folder of them.

H, W: an image's size after its EXIF orientation is applied.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from s4mim_hf.data.catalog import Color
from s4mim_hf.errors import InputError
from s4mim_hf.prediction.predictor import Prediction
from s4mim_hf.visualization import overlay, with_legend

# How a confidence map is stored, for cards and help texts.
QUANTISATION = "8-bit grey, value = round(255 x probability), so that value / 255 is off by 1/510 at most"


def mask_picture(label: np.ndarray, palette: Sequence[Color]) -> Image.Image:
    """Return a class map (H, W) as a palette picture: read back as an array, it gives the ids."""
    mask = Image.fromarray(label)
    mask.putpalette([channel for color in palette for channel in color])
    return mask


def confidence_picture(confidence: np.ndarray) -> Image.Image:
    """Return probabilities (H, W) as an 8-bit grey picture; see `QUANTISATION`."""
    return Image.fromarray(np.rint(255 * confidence).astype(np.uint8))


def encoded(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


class PictureFolder:
    """masks/NAME.png, and as asked for overlays/NAME.png and confidences/NAME.png.

    Args:
        output: the folder.
        palette: class colours.
        id2label: class names.
        overlays: whether each image is drawn with its classes in colours and a legend.
        confidences: whether confidence maps are written.
    """

    def __init__(
        self,
        output: Path,
        palette: Sequence[Color],
        id2label: Mapping[int, str],
        *,
        overlays: bool = True,
        confidences: bool = False,
    ) -> None:
        self._output, self._palette, self._id2label = output, palette, id2label
        self._kinds = [*["overlays"] * overlays, *["confidences"] * confidences, "masks"]

    def has(self, name: str) -> bool:
        """Say whether everything that is wanted of an image has been written before."""
        return all(self._path(kind, name).is_file() for kind in self._kinds)

    def write(self, found: Prediction) -> None:
        """Write an image's results; the mask comes last, and none of them is ever half a file.

        Raises:
            InputError: they cannot be written.
        """
        for kind in self._kinds:
            self._save(self._picture(kind, found), self._path(kind, found.image.name))

    def _picture(self, kind: str, found: Prediction) -> Image.Image:
        if kind == "masks":
            return mask_picture(found.label, self._palette)
        if kind == "confidences":
            return confidence_picture(found.confidence)
        # No class is ignored in a prediction: 255, where it occurs, is the 256th class.
        painted = overlay(found.pixels, found.label, self._palette, ignore_index=-1)
        return Image.fromarray(with_legend(painted, found.label, self._id2label, self._palette))

    def _path(self, kind: str, name: str) -> Path:
        return self._output / kind / f"{name}.png"

    def _save(self, picture: Image.Image, path: Path) -> None:
        # Not `with_name`: the name with its affixes may be longer than a file's may be.
        partial = path.parent / f".{path.stem[:100]}.{os.getpid()}.partial"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(partial, format="PNG")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(
                f"{path} cannot be written: {error.strerror or error}; make room or give another --output: what is "
                "written stays, and the same command goes on after it"
            ) from None
