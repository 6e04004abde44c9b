"""Does an exported graph predict what its model predicts? Class by class, on pictures.

Legend: B images, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from s4mim_hf.data.synthetic import render_scene
from s4mim_hf.errors import InputError

# Scenes for a graph of any size: a batch, one picture, sides of no common divisor.
_CROPS = ((2, 128, 96), (1, 75, 101))
# The share of the logits' deviation by which the two best classes of a pixel may differ to count as a tie: sums in
# another order differ by far less.
_TIE = 1e-3
_INSTEAD = "it was not written; try the other format, .onnx or .pt2, or another release of torch"


@dataclass(frozen=True)
class Verification:
    """What came of it.

    Attributes:
        pixels: how many were compared.
        differing: how many have another class; in all of them the model's two best classes are tied.
        largest_difference: between logits, relative to their standard deviation.
    """

    pixels: int
    differing: int
    largest_difference: float

    def __str__(self) -> str:
        maps = "equal class maps" if not self.differing else f"{self.differing} pixels differ, at ties of two classes"
        return f"{maps} on {self.pixels} pixels; logits differ by at most {self.largest_difference:.1e} deviations"


def verification_images(
    processor: Any, size: tuple[int, int] | None, images: Sequence[np.ndarray] | None, *, single: bool = False
) -> list[torch.Tensor]:
    """Return batches of prepared pictures (B, 3, H, W).

    Args:
        processor: prepares them.
        size: (H, W) that all of them get; None: their own.
        images: uint8 (H, W, 3); None: rendered scenes.
        single: whether a batch must be of one picture.
    """
    resized: dict[str, Any] = {}
    if size is not None:
        resized = {"do_resize": True, "size": {"height": size[0], "width": size[1]}, "do_pad": False}
    if images is not None:
        return [processor(images=[image], return_tensors="pt", **resized)["pixel_values"] for image in images]
    random = np.random.default_rng(0)
    scenes = [[render_scene(random)[0][:height, :width] for _ in range(count)] for count, height, width in _CROPS]
    batches = [processor(images=batch, return_tensors="pt", **resized)["pixel_values"] for batch in scenes]
    return [one for batch in batches for one in batch.split(1)] if single else batches


@torch.no_grad()
def verify(
    network: nn.Module, graph: Callable[[torch.Tensor], torch.Tensor], batches: Sequence[torch.Tensor]
) -> Verification:
    """Compare a graph with the network that it was made of.

    Args:
        network: pixel_values -> logits (B, K, H, W).
        graph: likewise.
        batches: pixel_values (B, 3, H, W).

    Raises:
        InputError: a class map differs by more than ties, or the graph refuses a batch.
    """
    pixels = differing = 0
    largest = 0.0
    for batch in batches:
        expected = network(batch)
        try:
            found = graph(batch)
        except Exception as error:
            # Of no common kind: each runtime has its own.
            raise InputError(
                f"the graph refuses a batch of {tuple(batch.shape)} that the model takes; {_INSTEAD}"
            ) from error
        if expected.shape != found.shape:
            raise InputError(
                f"the graph gives logits of {tuple(found.shape)}, the model of {tuple(expected.shape)}; {_INSTEAD}"
            )
        scale = float(expected.std(correction=0)) or 1.0
        other = expected.argmax(1) != found.argmax(1)
        if bool(other.any()):
            best = expected.topk(2, dim=1).values
            wrong = int((other & (best[:, 0] - best[:, 1] > _TIE * scale)).sum())
            if wrong:
                raise InputError(
                    f"the graph gives other classes than the model at {wrong} of {other.numel()} pixels; {_INSTEAD}"
                )
        pixels, differing = pixels + other.numel(), differing + int(other.sum())
        largest = max(largest, float((expected - found).abs().max()) / scale)
    return Verification(pixels, differing, largest)
