"""A model of which is known what is right, pictures for it, and calls as scripts/predict.py makes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from s4mim_hf import S4MIMImageProcessor
from s4mim_hf.evaluation.inference import InferenceConfig
from s4mim_hf.prediction.predictor import Bad, LeftOut, Prediction, Predictor
from s4mim_hf.prediction.sources import ImageSource, ListedImages
from s4mim_hf.prediction.summary import Summary
from s4mim_hf.prediction.tasks import ModelFacts, Process, Task

PALETTE = ((9, 9, 9), (200, 0, 0), (0, 200, 0))
NAMES = {0: "red", 1: "green", 2: "blue"}
FACTS = ModelFacts("a/model", "weights", "whole image at original size", NAMES, PALETTE, None)


class Brightest(nn.Module):
    """Predicts each pixel's strongest colour channel: its logits are three times the channels, 0 .. 3."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.calls, self.fails_at = 0, fails_at

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.calls += 1
        return SimpleNamespace(logits=pixel_values * self.scale)


def plain_processor(**options: Any) -> S4MIMImageProcessor:
    return S4MIMImageProcessor(image_mean=[0, 0, 0], image_std=[1, 1, 1], **options)


def predictor(model: nn.Module | None = None, processor: Any = None, **options: Any) -> Predictor:
    inference = options.pop("inference", InferenceConfig())
    return Predictor(model or Brightest(), processor or plain_processor(), inference, classes=3, **options)


def picture(path: Path, size: tuple[int, int] = (8, 6), channel: int = 1, **options: Any) -> Path:
    """Write a picture of `size` (W, H) that is of one channel, darker red in its upper half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[..., channel] = 255
    pixels[: size[1] // 2, :, 0] = pixels[: size[1] // 2, :, 0] // 2 + 1
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise_folder(folder: Path, count: int) -> Path:
    """Write noise of two sizes as 00.png, 01.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(noise(number, 12 + number % 2)).save(folder / f"{number:02d}.png")
    return folder


def probabilities(pixels: np.ndarray) -> np.ndarray:
    """Return what `Brightest` gives each class, by numpy alone: float64 (H, W, 3)."""
    scores = np.exp(3 * (pixels / 255))
    return scores / scores.sum(axis=-1, keepdims=True)


def listed(pictures: Iterable[tuple[str, bytes]]) -> ListedImages:
    rows = list(pictures)
    return ListedImages([name for name, _ in rows], lambda number: rows[number][1], is_data_set=True)


def outcomes(source: ImageSource, by: Predictor) -> tuple[dict[str, Prediction], dict[str, str], list[str]]:
    """Return predictions, reasons of bad images, and the names of those left out."""
    good, bad, out = {}, {}, []
    for part in source.parts():
        for found in by.predict(part.images()):
            if isinstance(found, Prediction):
                good[found.image.name] = found
            elif isinstance(found, Bad):
                bad[found.image.name] = found.reason
            else:
                assert isinstance(found, LeftOut)
                out.append(found.image.name)
    return good, bad, out


def call(task: Task, by: Predictor, world_size: int = 1, finish: bool = True) -> Summary:
    """Do what a call does, the processes one after the other."""
    total = Summary()
    for rank in range(world_size):
        total.merge(task.predict(by, Process(rank, world_size)))
    if finish:
        task.finish(total, print)
    return total
