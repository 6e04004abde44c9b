"""Predict class maps for files on disk or a data set, resumably: masks as palette PNGs, and overlays.

Shapes: H, W are an image's size after its EXIF orientation is applied; that is the size of its mask.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import nn
from tqdm import tqdm

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.prepared import HUB_PREFIX, SYNTHETIC, decode_image, load_prepared
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.batching import read_ahead, same_size_batches
from s4mim_hf.evaluation.inference import InferenceConfig, predict_logits
from s4mim_hf.modeling.image_processing_s4mim import class_map

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
# A broken PNG can make Pillow raise SyntaxError; a gigantic one, DecompressionBombError.
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class PredictionInput:
    """One image to predict: the name of its results, without suffix, and how to read its undecoded bytes."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class _Decoded:
    item: PredictionInput
    image: np.ndarray | None
    error: str = ""


def find_inputs(sources: Sequence[str], output: Path) -> list[PredictionInput]:
    """List the images of files, folders (with their subfolders) or one prepared data folder's unlabelled split.

    A result is named by its image's path relative to the folder, or to what several sources have in common; images that
    differ in suffix only keep it, so that no two share a name. What lies in `output` is no input.

    Raises:
        InputError: a source is missing or holds no image.
    """
    if len(sources) == 1 and _is_prepared(sources[0]):
        return _unlabeled_rows(sources[0])
    files: dict[Path, None] = {}
    bases = []
    for source in sources:
        path = Path(source).expanduser().resolve()
        found = _images_below(path, output.resolve()) if path.is_dir() else [path]
        if not path.exists():
            raise InputError(
                f"there is no image or folder {source}; give image files, folders or a prepared data folder"
            )
        if not found:
            kinds = " ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"{source} holds no image; expected files that end in one of {kinds}")
        files.update(dict.fromkeys(found))
        bases.append(path if path.is_dir() else path.parent)
    base = Path(os.path.commonpath(bases))
    names = _distinct_names([file.relative_to(base).as_posix() for file in files])
    return [PredictionInput(name, file.read_bytes) for name, file in zip(names, files, strict=True)]


def _is_prepared(source: str) -> bool:
    named = source == SYNTHETIC or source.startswith((f"{SYNTHETIC}:", HUB_PREFIX))
    return named or (Path(source) / "splits.json").is_file()


def _unlabeled_rows(source: str) -> list[PredictionInput]:
    rows = load_prepared(source).unlabeled
    if rows is None or len(rows) == 0:
        raise InputError(f"{source} has no unlabelled images to predict; give image files or folders")
    # The column alone: the pictures are read when their turn comes.
    ids = [str(PurePosixPath("/", str(name)).relative_to("/")) for name in rows["id"]]
    names = ids if len(set(ids)) == len(ids) else [f"{number:06d}_{name}" for number, name in enumerate(ids)]
    return [PredictionInput(name, _row_reader(rows, number)) for number, name in enumerate(names)]


def _row_reader(rows: Any, number: int) -> Callable[[], bytes]:
    return lambda: rows[number]["image"]["bytes"]


def _images_below(folder: Path, output: Path) -> list[Path]:
    """Return the images below a folder, sorted; hidden files, and what an earlier run wrote there, are none."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_relative_to(output)
        and path.is_file()
    )


def _distinct_names(paths: Sequence[str]) -> list[str]:
    """Drop suffixes where that leaves every name its own."""
    stems = [str(PurePosixPath(path).with_suffix("")) for path in paths]
    counts = Counter(stems)
    names = [path if counts[stem] > 1 else stem for path, stem in zip(paths, stems, strict=True)]
    return names if len(set(names)) == len(names) else list(paths)


class FolderPredictor:
    """Writes masks/NAME.png and overlays/NAME.png; what is there already is not predicted again.

    Args:
        model: a segmenter whose `.logits` are (B, K, h, w), on its device, K <= 256.
        processor: turns images into `pixel_values`.
        inference: the protocol, "whole" or "sliding_window".
        output: the folder to write.
        palette: class colours of the masks.
        draw: makes an overlay (H', W', 3) of an image (H, W, 3) and its class map (H, W), all uint8; None: none.
        batch_size: images of one size in a batch.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        inference: InferenceConfig,
        output: Path,
        *,
        palette: Sequence[Color],
        draw: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        batch_size: int = 1,
    ) -> None:
        if len(palette) > 256:
            raise InputError(f"the model has {len(palette)} classes, but a palette PNG holds at most 256")
        if batch_size < 1:
            raise InputError(f"the batch size is {batch_size}; it must be at least 1")
        self.model, self.processor, self.inference = model.eval(), processor, inference
        self.output, self.palette, self.draw, self.batch_size = output, palette, draw, batch_size
        self._device = next(model.parameters()).device

    def is_done(self, item: PredictionInput) -> bool:
        """Say whether everything that is wanted of an image has been written before."""
        return self._path("masks", item).is_file() and (self.draw is None or self._path("overlays", item).is_file())

    def predict(self, items: Sequence[PredictionInput], progress: bool = False) -> dict[str, str]:
        """Predict every image that is not done; return what went wrong, by the names of unreadable images."""
        failures: dict[str, str] = {}
        read = read_ahead(_decode, items, ahead=2 * self.batch_size)
        with tqdm(total=len(items), desc="predict", unit="image", disable=not progress) as bar:
            batches = same_size_batches(read, _size_of, self.batch_size)
            for batch in batches:
                failures.update({entry.item.name: entry.error for entry in batch if entry.image is None})
                images = {entry.item: entry.image for entry in batch if entry.image is not None}
                if images:
                    for (item, image), label in zip(images.items(), self._labels([*images.values()]), strict=True):
                        self._write(item, image, label)
                bar.update(len(batch))
        return failures

    @torch.inference_mode()
    def _labels(self, images: list[np.ndarray]) -> np.ndarray:
        """Return uint8 (B, H, W) class maps of images (H, W, 3) of one size."""
        inputs = self.processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        logits = predict_logits(self.model, inputs["pixel_values"].to(self._device), self.inference)
        # Of another size than the image where the processor shrank or resized it.
        size = images[0].shape[0], images[0].shape[1]
        return torch.stack([class_map(one, size) for one in logits]).to(torch.uint8).cpu().numpy()

    def _write(self, item: PredictionInput, image: np.ndarray, label: np.ndarray) -> None:
        # The mask comes last: where it is, the image is done.
        if self.draw is not None:
            _save(Image.fromarray(self.draw(image, label)), self._path("overlays", item))
        mask = Image.fromarray(label)
        mask.putpalette([channel for color in self.palette for channel in color])
        _save(mask, self._path("masks", item))

    def _path(self, kind: str, item: PredictionInput) -> Path:
        return self.output / kind / f"{item.name}.png"


def _decode(item: PredictionInput) -> _Decoded:
    try:
        return _Decoded(item, decode_image(item.read()))
    except UnidentifiedImageError:
        # Pillow's own words name an object in memory.
        return _Decoded(item, None, "this is no image that Pillow can read")
    except _UNREADABLE as error:
        return _Decoded(item, None, " ".join(str(error).split()) or type(error).__name__)


def _size_of(entry: _Decoded) -> tuple[int, ...]:
    return () if entry.image is None else entry.image.shape


def _save(picture: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        picture.save(partial, format="PNG")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}; make room, or give another --output") from None


def claim_output(output: Path, settings: dict[str, Any]) -> None:
    """Write down in output/prediction.json what the masks come from, or check that it is the same as before.

    Raises:
        InputError: the folder cannot be written, or holds the masks of another model or protocol.
    """
    record = output / "prediction.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
        if record.is_file():
            before = json.loads(record.read_text(encoding="utf-8"))
            changed = [key for key in settings if before.get(key) != settings[key]]
            if changed:
                key = changed[0]
                raise InputError(
                    f"{output} holds predictions with {key} {before.get(key)!r}, not {settings[key]!r}; "
                    "give another --output, or delete that folder"
                )
            return
        partial = record.with_suffix(".partial")
        partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, record)
    except (OSError, json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"{output} cannot be used for output: {error}; give another --output") from None
