"""Pictures of random pixels, and their normalised values by plain numpy."""

from __future__ import annotations

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def normalised(array: np.ndarray) -> np.ndarray:
    return (np.moveaxis(array.astype(np.float64), -1, 0) / 255 - MEAN) / STD
