"""Predictions as PNG pictures: class maps with their palette, confidence maps, overlays; and a folder of them.

A name is no proof that a mask is an image's: frame_0001 of another video has it as well, and a picture may be replaced
in its place. So each PNG tells the sha256 of the picture file that it was predicted from, as a text chunk, and what
tells other bytes is replaced. What tells nothing stays: older code wrote it, or a person has corrected it. That costs a
later call the reading of the pictures that are done, but no decoding, and asks for nothing beside the PNGs: they may be
copied, and their bytes depend on the picture alone, as they would not with a path or a time in them.

H, W: an image's size after its EXIF orientation is applied.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.streaming.stream import UNREADABLE
from s4mim_hf.errors import InputError
from s4mim_hf.prediction.predictor import Prediction
from s4mim_hf.prediction.sources import InputImage
from s4mim_hf.visualization import overlay, with_legend

Written = Literal["all", "missing", "others"]
"""What is there of an image: all that is wanted, not all of it, or what is of another picture."""

# The text chunk's keyword.
DIGEST = "picture-sha256"
# The mask comes last.
_KINDS = ("overlays", "confidences", "masks")

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
        wanted = {"overlays": overlays, "confidences": confidences, "masks": True}
        self._kinds = [kind for kind in _KINDS if wanted[kind]]

    def written(self, image: InputImage) -> Written:
        """Say what earlier calls have written of an image; called in several threads.

        What stands under its name and tells other bytes is removed, be it wanted or not: an overlay of another picture
        must not lie beside this one's mask. So is what is no whole PNG.

        Raises:
            InputError: something cannot be removed.
        """
        there = [path for kind in _KINDS if (path := self._path(kind, image.name)).is_file()]
        if not there:
            return "missing"
        try:
            digest = _digest(image.read())
        except (*UNREADABLE, MemoryError):
            # Whoever predicts it says why.
            return "missing"
        others = [path for path in there if _stored_digest(path) not in (digest, None)]
        for path in others:
            try:
                path.unlink()
            except OSError as error:
                raise InputError(
                    f"{path} is of another picture than {image.name!r} is now and cannot be replaced: "
                    f"{error.strerror or error}; delete it, or give another --output"
                ) from None
        if others:
            return "others"
        return "all" if all(self._path(kind, image.name) in there for kind in self._kinds) else "missing"

    def is_empty(self) -> bool:
        """Say whether there is no picture at all, of whatever image."""
        return not any(True for kind in _KINDS for _ in (self._output / kind).rglob("*.png"))

    def write(self, found: Prediction) -> None:
        """Write what is missing of an image's results; the mask comes last, and none of them is ever half a file.

        What is there stays (`written` has removed what is of another picture): a person may have corrected it.

        Raises:
            InputError: they cannot be written.
        """
        information = PngInfo()
        information.add_text(DIGEST, _digest(found.data))
        for kind in self._kinds:
            path = self._path(kind, found.image.name)
            if not path.is_file():
                self._save(self._picture(kind, found), path, information)

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

    def _save(self, picture: Image.Image, path: Path, information: PngInfo) -> None:
        # The name with affixes may be longer than a file's may be, and its beginning is another image's as well, which
        # another thread writes at this moment.
        short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
        partial = path.parent / f".{short}.{os.getpid()}.partial"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(partial, format="PNG", pnginfo=information)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(
                f"{path} cannot be written: {error.strerror or error}; make room or give another --output: what is "
                "written stays, and the same command goes on after it"
            ) from None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stored_digest(path: Path) -> str | None:
    """Return which picture a PNG was predicted from, read from its head; None: it does not say; "": it is no PNG."""
    try:
        # Not `Image.open`, which refuses an overlay that its legend makes larger than a picture may be.
        with PngImageFile(path) as stored:
            return stored.info.get(DIGEST)
    except UNREADABLE:
        return ""
