"""What a look shows: pictures and a legend, made anew for every choice without asking a model.

Pictures are uint8 (h, w, 3) RGB; class maps uint8 (h, w).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np

from s4mim_hf.data.catalog import Color
from s4mim_hf.demo.looking import Look, Segmentation
from s4mim_hf.demo.models import DemoModel
from s4mim_hf.visualization import overlay

_HIDDEN = -1
_DIFFERENCE: Color = (255, 0, 144)
_DIMMED = 0.45


@dataclass(frozen=True)
class LegendEntry:
    """One class of a picture: its id, name, colour, and its share by each model that the legend is of."""

    class_id: int
    name: str
    color: Color
    shares: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.name}  {' / '.join(percent(share) for share in self.shares)}"


def percent(share: float) -> str:
    """Write a share in percent, with one digit, and without claiming 0 or 100 for what is not; it is one word."""
    if 0 < share < 0.0005:
        return "<0.1\u00a0%"
    if 0.9995 <= share < 1:
        return ">99.9\u00a0%"
    return f"{100 * share:.1f}\u00a0%"


def legend_entries(model: DemoModel, found: Sequence[Segmentation]) -> list[LegendEntry]:
    """List the classes that occur in any of `found`, the largest first.

    Args:
        model: whose names and colours are shown.
        found: of this model, and of others that mean the same by an id.
    """
    shares = {
        index: tuple(one.shares[index] for one in found)
        for index in range(len(model.classes))
        if any(one.shares[index] > 0 for one in found)
    }
    order = sorted(shares, key=lambda index: (-max(shares[index]), index))
    return [LegendEntry(index, model.classes[index], model.palette[index], shares[index]) for index in order]


def overlay_of(
    image: np.ndarray, ids: np.ndarray, palette: Sequence[Color], chosen: Collection[int], opacity: float
) -> np.ndarray:
    """Lay the colours of the chosen classes over the image; where another class is, it shows as it is.

    Args:
        image: uint8 (h, w, 3).
        ids: uint8 (h, w).
        palette: colour of each class.
        chosen: class ids.
        opacity: of the colours, 0 to 1.
    """
    shown = np.full(256, _HIDDEN, dtype=np.int16)
    for class_id in chosen:
        shown[class_id] = class_id
    return overlay(image, shown[ids], palette, opacity, ignore_index=_HIDDEN)


def confidence_picture(confidence: np.ndarray) -> np.ndarray:
    """Paint a confidence, uint8 (h, w) with 255 for 1, in the colours of `confidence_colors`."""
    return confidence_colors()[confidence]


@cache
def confidence_colors() -> np.ndarray:
    """Return the colours of confidence 0 to 1 in 256 steps, uint8 (256, 3), from dark blue to yellow."""
    colors = matplotlib.colormaps["cividis"](np.arange(256))[:, :3]
    return (colors * 255).round().astype(np.uint8)


def confidence_in_words(found: Segmentation) -> str:
    """Say how sure a model is."""
    values = found.confidence.astype(np.float64) / 255
    mean, unsure = float(values.mean()), float((values < 0.5).mean())
    return f"On average {percent(mean)}; below 50\u00a0% on {percent(unsure)} of the pixels."


def disagreement_picture(look: Look) -> np.ndarray | None:
    """Return the photo, grey and dim, with pixels painted where the models differ; None where they are not compared."""
    if look.differing is None:
        return None
    grey = look.image.astype(np.float32).mean(axis=2, keepdims=True).repeat(3, axis=2)
    dim = (_DIMMED * grey + (1 - _DIMMED) * 255 * 0.35).round().astype(np.uint8)
    return np.where(look.differing[..., None], np.asarray(_DIFFERENCE, dtype=np.uint8), dim)
