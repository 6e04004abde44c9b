"""From class scores to a class map and how sure the model is of it.

Legend: K classes, (h, w) the scores' size, (H, W) the picture's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores that are held at once where they are enlarged to a photo's size (256 MiB).
_SCORES_AT_ONCE = 2**26


def classes_and_confidence(scores: Tensor, size: tuple[int, int], *, probabilities: bool) -> tuple[Tensor, Tensor]:
    """Return each pixel's class, int64 (H, W), and the probability that the model gives it, float32 (H, W) in 0 .. 1.

    Scores are enlarged bilinearly, a few classes at a time, so that a large picture takes little memory. The classes
    are those of the image processor's `post_process_semantic_segmentation`.

    Args:
        scores: (K, h, w), of `predict_logits`.
        size: (H, W).
        probabilities: whether the scores are probabilities already; else the softmax over the classes is taken, after
            they are enlarged.
    """
    at_once = max(1, _SCORES_AT_ONCE // (size[0] * size[1]))
    best_of_all: tuple[Tensor, Tensor, Tensor] | None = None
    for start in range(0, len(scores), at_once):
        part = scores[start : start + at_once].float()
        if part.shape[-2:] != size:
            part = F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0]
        best, ids = part.max(dim=0)
        spread = part.logsumexp(dim=0) if not probabilities else best
        if best_of_all is None:
            best_of_all = best, ids, spread
            continue
        highest, winner, total = best_of_all
        better = best > highest
        best_of_all = (
            torch.where(better, best, highest),
            torch.where(better, ids + start, winner),
            torch.logaddexp(total, spread),
        )
    assert best_of_all is not None, "a model has a class at least"
    highest, winner, total = best_of_all
    confidence = highest if probabilities else (highest - total).exp()
    return winner, confidence.clamp(0, 1)
