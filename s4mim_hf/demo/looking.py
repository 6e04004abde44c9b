"""One photograph seen by one or two models, and what is kept of it: enough for every view, and bounded.

H, W: the photo's size; h, w: its size on the page, at most `DISPLAY_SIDE` on the longer side. The class maps at H x W
go into files at once; views are made of what has h x w pixels.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from s4mim_hf.data.shrinking import shrink_label, shrink_pixels
from s4mim_hf.demo.models import DemoModel, classes_agree
from s4mim_hf.demo.pictures import read_picture
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import InferenceConfig, predict_logits, whole_pictures, without_padding
from s4mim_hf.modeling.image_processing_s4mim import class_map

DISPLAY_SIDE = 1280
_WHOLE = InferenceConfig()


@dataclass(frozen=True)
class Segmentation:
    """What one model says of a photo.

    Attributes:
        ids: the classes, uint8 (h, w).
        confidence: the highest class's probability, uint8 (h, w), 255 for 1.
        shares: of each class 0 .. K-1 in the photo's H x W pixels; they sum to 1.
        file: the class map at H x W, a palette PNG.
    """

    ids: np.ndarray
    confidence: np.ndarray
    shares: tuple[float, ...]
    file: Path


@dataclass(frozen=True)
class Look:
    """A photo and what each model says of it.

    Attributes:
        name: the file's name.
        size: (H, W).
        image: uint8 (h, w, 3).
        found: one entry per model.
        differing: where the first two models differ, bool (h, w); None with one model, or other classes.
        difference: the share of the H x W pixels in which they do.
    """

    name: str
    size: tuple[int, int]
    image: np.ndarray
    found: tuple[Segmentation, ...]
    differing: np.ndarray | None = None
    difference: float | None = None


def look_at(path: Path, models: tuple[DemoModel, ...], folder: Path, *, max_side: int, name: str | None = None) -> Look:
    """Read a photo and segment it by every model.

    Args:
        path: the photo.
        models: one or two.
        folder: where the class maps go; it exists.
        max_side: a photo with a longer side is shrunk to this before a model sees it.
        name: the photo's name; None: the file's.

    Raises:
        InputError: the photo cannot be used; see `read_picture`.
    """
    name = path.name if name is None else name
    pixels = read_picture(path, name)
    size = pixels.shape[0], pixels.shape[1]
    image = shrink_pixels(pixels, DISPLAY_SIDE)
    seen = shrink_pixels(pixels, max_side)
    del pixels
    found, maps = [], []
    for number, model in enumerate(models):
        ids, confidence = segment(model, seen, size, image.shape[:2])
        file = folder / f"{_file_stem(name)}_classes{f'_{number + 1}' if len(models) > 1 else ''}.png"
        write_class_map(ids, model, file)
        shares = np.bincount(ids.reshape(-1), minlength=len(model.classes)) / ids.size
        small = shrink_label(ids, (image.shape[0], image.shape[1]))
        found.append(Segmentation(small, confidence, tuple(shares.tolist()), file))
        maps.append(ids)
    if len(models) < 2 or not classes_agree(models):
        return Look(name, size, image, tuple(found))
    differing = maps[0] != maps[1]
    small = shrink_label(differing, (image.shape[0], image.shape[1]))
    return Look(name, size, image, tuple(found), small, float(differing.mean()))


def _file_stem(name: str) -> str:
    """Return what a file may be called after a photo whose name anybody chose."""
    return re.sub(r"[^\w.-]+", "_", Path(name).stem)[:80] or "photo"


@torch.inference_mode()
def segment(
    model: DemoModel, image: np.ndarray, size: tuple[int, int], display: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Segment one picture.

    Args:
        model: a segmenter and its processor.
        image: what it is shown, uint8 (a, b, 3).
        size: (H, W) of the class map.
        display: (h, w) of the confidence.

    Returns:
        Class ids uint8 (H, W), and the confidence uint8 (h, w).

    Raises:
        InputError: the device has not memory enough.
    """
    try:
        inputs = whole_pictures(model.processor, [Image.fromarray(image)])
        logits = predict_logits(model.segmenter, inputs.to(model.device), _WHOLE)[0]
        logits = without_padding(logits, model.processor, (image.shape[0], image.shape[1]))
        ids = class_map(logits, size).to(torch.uint8).cpu().numpy()
        # The highest of the softmax, without the others.
        confidence = (logits.amax(dim=0) - logits.logsumexp(dim=0)).exp()
        shown = F.interpolate(confidence[None, None], tuple(display), mode="bilinear", align_corners=False)[0, 0]
    except (torch.OutOfMemoryError, MemoryError):
        height, width = image.shape[:2]
        raise InputError(
            f"there is not memory enough to segment {width} x {height} pixels; start the page with a smaller --max-side"
        ) from None
    return ids, (shown.clamp(0, 1) * 255).round().byte().cpu().numpy()


def write_class_map(ids: np.ndarray, model: DemoModel, path: Path) -> None:
    """Write ids (H, W) as a PNG whose palette has the model's colours."""
    picture = Image.fromarray(ids)
    picture.putpalette([channel for color in model.palette for channel in color])
    picture.save(path, format="PNG")


class Shelf:
    """The looks of the last visitors, by a token that each of them holds; older ones are dropped, files and all.

    Args:
        folder: where each look gets a folder of its own for its files.
        capacity: how many looks are kept; a look takes about 7 h w bytes (twelve megabytes) with two models.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self._folder, self._capacity = folder, capacity
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._lock = threading.Lock()

    def new_folder(self) -> tuple[str, Path]:
        """Return a new token, and an empty folder for what belongs to it."""
        token = secrets.token_urlsafe(16)
        folder = self._folder / token
        folder.mkdir(parents=True)
        return token, folder

    def put(self, token: str, look: Look) -> None:
        """Keep a look under a token of `new_folder`, and drop the one that was longest not asked for."""
        with self._lock:
            self._looks[token] = look
            dropped = [self._looks.popitem(last=False)[0]] if len(self._looks) > self._capacity else []
        for old in dropped:
            self._remove(old)

    def get(self, token: str | None) -> Look | None:
        """Return the look, or None where there is none, or no longer."""
        with self._lock:
            if token is None or token not in self._looks:
                return None
            self._looks.move_to_end(token)
            return self._looks[token]

    def drop(self, token: str | None) -> None:
        """Forget a look and delete its files, where there is one."""
        if token is None:
            return
        with self._lock:
            self._looks.pop(token, None)
        self._remove(token)

    def _remove(self, token: str) -> None:
        shutil.rmtree(self._folder / token, ignore_errors=True)
