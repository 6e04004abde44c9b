"""From undecoded images to class maps, in batches of one size; what cannot be predicted is told, and not raised.

H, W: an image's size after its EXIF orientation is applied; that is the size of its class map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import nn

from s4mim_hf.data.prepared import decode_image
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.streaming.stream import UNREADABLE
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.batching import read_ahead, same_size_batches
from s4mim_hf.evaluation.inference import InferenceConfig, predict_logits, whole_pictures, without_padding
from s4mim_hf.prediction.scores import classes_and_confidence
from s4mim_hf.prediction.sources import InputImage


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        image: which one.
        data: the bytes of its file.
        pixels: uint8 (H, W, 3).
        label: class ids, uint8 (H, W).
        confidence: the probability of each pixel's class, float32 (H, W), 0 .. 1.
    """

    image: InputImage
    data: bytes
    pixels: np.ndarray
    label: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Bad:
    """An image that cannot be predicted.

    Attributes:
        image: which one.
        reason: why, in a few words.
    """

    image: InputImage
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """An image that is not to be predicted."""

    image: InputImage


@dataclass(frozen=True)
class _Decoded:
    image: InputImage
    data: bytes
    pixels: np.ndarray


class Predictor:
    """Predicts images.

    Args:
        model: a segmenter whose `.logits` are (B, K, h, w), on its device, K <= 256.
        processor: turns images into `pixel_values`.
        inference: the protocol, "whole" or "sliding_window".
        batch_size: images of one size in a batch.
        leaves_out: says of an image's bytes whether it is not to be predicted; None: all are.

    Raises:
        InputError: the batch size is below 1, or there are more classes than an 8-bit map holds.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        inference: InferenceConfig,
        *,
        classes: int,
        batch_size: int = 1,
        leaves_out: Callable[[bytes], bool] | None = None,
    ) -> None:
        if classes > 256:
            raise InputError(f"the model has {classes} classes, but a palette PNG holds at most 256")
        if batch_size < 1:
            raise InputError(f"the batch size is {batch_size}; it must be at least 1")
        self.model, self.processor, self.inference = model.eval(), processor, inference
        self.classes, self.batch_size, self._leaves_out = classes, batch_size, leaves_out
        self._device = next(model.parameters()).device
        _align(model)

    def predict(self, images: Iterable[InputImage]) -> Iterator[Prediction | Bad | LeftOut]:
        """Yield what comes of each image: in order, but for batches of one size.

        Decoded images are held for a few batches, so memory does not grow with their number.
        """
        read = read_ahead(self._decode, images, ahead=2 * self.batch_size)
        for batch in same_size_batches(read, _size_of, self.batch_size):
            decoded = [entry for entry in batch if isinstance(entry, _Decoded)]
            yield from (entry for entry in batch if not isinstance(entry, _Decoded))
            if decoded:
                yield from self._predict(decoded)

    def _decode(self, image: InputImage) -> _Decoded | Bad | LeftOut:
        try:
            data = image.read()
            if self._leaves_out is not None and self._leaves_out(data):
                return LeftOut(image)
            return _Decoded(image, data, decode_image(data))
        except UnidentifiedImageError:
            # Pillow's own words name an object in memory.
            return Bad(image, "this is no image that Pillow can read")
        except SampleError as error:
            return Bad(image, error.detail or error.kind)
        except (*UNREADABLE, MemoryError) as error:
            return Bad(image, _in_words(error))

    def _predict(self, batch: list[_Decoded]) -> Iterator[Prediction | Bad]:
        try:
            found = self._run(batch)
        # A picture too small for the network or too large for the memory; anything else is a bug and is raised.
        except (ValueError, MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if type(error) is RuntimeError and not _is_about_memory(error):
                raise
            if len(batch) > 1:
                for entry in batch:
                    yield from self._predict([entry])
                return
            width, height = batch[0].pixels.shape[1], batch[0].pixels.shape[0]
            yield Bad(batch[0].image, f"the model cannot take its {width}x{height} pixels: {_in_words(error)}")
            return
        for entry, (label, confidence) in zip(batch, found, strict=True):
            yield Prediction(entry.image, entry.data, entry.pixels, label, confidence)

    @torch.inference_mode()
    def _run(self, batch: list[_Decoded]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return class maps and confidences of images of one size, which is theirs too."""
        inputs = whole_pictures(self.processor, [Image.fromarray(entry.pixels) for entry in batch])
        scores = predict_logits(self.model, inputs.to(self._device), self.inference)
        # Of another size than the image where the processor shrank, resized or padded it.
        size = batch[0].pixels.shape[0], batch[0].pixels.shape[1]
        scores = without_padding(scores, self.processor, size)
        found = (classes_and_confidence(one, size, probabilities=self.inference.gives_probabilities) for one in scores)
        return [(label.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy()) for label, confidence in found]


def _align(model: nn.Module) -> None:
    """Copy a model's weights to where torch would have put them.

    Loaded from a file they lie at any address, another one in each process, and on CPUs the last bit of a matrix
    product depends on it: an interrupted call would go on with other bits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _size_of(entry: _Decoded | Bad | LeftOut) -> tuple[int, ...]:
    return entry.pixels.shape if isinstance(entry, _Decoded) else ()


def _is_about_memory(error: RuntimeError) -> bool:
    return any(words in str(error) for words in ("allocate memory", "out of memory"))


def _in_words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
