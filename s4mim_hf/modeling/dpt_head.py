"""DPT: four layers of a vision transformer as maps of four sizes, fused from the coarsest to the finest.

After Ranftl et al., "Vision Transformers for Dense Prediction", arXiv 2103.13413, in the form that UniMatch V2 (arXiv
2410.10777) and Depth Anything have it on DINOv2: class and register tokens are not read out, and there is no BatchNorm.
Legend: B images, p the patch size, (h, w) patches of the padded image, C decoder channels, K classes. Map i of four has
4, 2, 1 and 1/2 positions per patch and side; the decoder's features have 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

# The decoder's positions per patch and side, and those of z, which must be a whole number of pixels.
_FINE, _COARSE = 8, 2


class DPTConvolution(nn.Conv2d):
    """Convolution; a class of its own for its initial weights, which are torch's, as published."""


class DPTTransposedConvolution(nn.ConvTranspose2d):
    """Transposed convolution; a class of its own for its initial weights, which are torch's, as published."""


class ResidualUnit(nn.Module):
    """ReLU and 3x3 convolution, twice, added to the input: (B, C, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = DPTConvolution(channels, channels, 3, padding=1)
        self.second = DPTConvolution(channels, channels, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Refine the features."""
        return features + self.second(F.relu(self.first(F.relu(features))))


class FusionBlock(nn.Module):
    """Adds a finer map to a coarser path, refines the sum and enlarges it.

    Args:
        channels: Channels C of both.
        first: Whether it is the coarsest block, which has no path to add to.
        align_corners: Whether it enlarges from corner to corner.
    """

    def __init__(self, channels: int, first: bool, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.skip = None if first else ResidualUnit(channels)
        self.refine = ResidualUnit(channels)
        self.project = DPTConvolution(channels, channels, 1)

    def forward(self, features: torch.Tensor, path: torch.Tensor | None, size: Sequence[int]) -> torch.Tensor:
        """Return (B, C, *size) of the map and the path, both (B, C, h, w)."""
        if self.skip is not None and path is not None:
            features = path + self.skip(features)
        features = self.refine(features)
        features = F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=self.align_corners)
        return self.project(features)


class DPTHead(nn.Module):
    """Decoder features at eight positions per patch and side, and the classifier on them.

    Args:
        in_channels: Channels of the encoder's four maps.
        patch_size: p, even.
        projected_channels: Channels to which each of them is projected; None: an eighth, a quarter, a half, all.
        channels: Channels C of the fusion and of the decoder's features.
        dropout: Probability of dropping a feature before the classifier.
        align_corners: Whether maps and logits are enlarged from corner to corner.
        num_labels: Number of classes K.

    Attributes:
        feature_stride: Pixels per position of `to_positions`: p / 2.

    Raises:
        ValueError: An odd patch size.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        patch_size: int,
        projected_channels: Sequence[int] | None,
        channels: int,
        dropout: float,
        align_corners: bool,
        num_labels: int,
    ) -> None:
        super().__init__()
        if patch_size % _COARSE:
            raise ValueError(
                f"the backbone has patches of {patch_size} pixels; the decode head 'dpt' needs an even number"
            )
        if projected_channels is None:
            projected_channels = [max(1, count // part) for count, part in zip(in_channels, (8, 4, 2, 1), strict=True)]
        self.patch_size = patch_size
        self.feature_stride = patch_size // _COARSE
        self.align_corners = align_corners
        pairs = list(zip(in_channels, projected_channels, strict=True))
        self.projections = nn.ModuleList([DPTConvolution(given, wanted, 1) for given, wanted in pairs])
        finest, finer, _, coarsest = projected_channels
        self.resizings = nn.ModuleList(
            [
                DPTTransposedConvolution(finest, finest, 4, stride=4),
                DPTTransposedConvolution(finer, finer, 2, stride=2),
                nn.Identity(),
                DPTConvolution(coarsest, coarsest, 3, stride=2, padding=1),
            ]
        )
        self.reductions = nn.ModuleList(
            [DPTConvolution(count, channels, 3, padding=1, bias=False) for count in projected_channels]
        )
        last = len(pairs) - 1
        self.fusions = nn.ModuleList([FusionBlock(channels, index == last, align_corners) for index in range(last + 1)])
        self.smooth = DPTConvolution(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def features(self, *maps: torch.Tensor) -> torch.Tensor:
        """Return the decoder's features (B, C, 8 h, 8 w) of four maps (B, C_i, h, w)."""
        layers = zip(maps, self.projections, self.resizings, self.reductions, strict=True)
        reduced = [reduce(resize(project(one))) for one, project, resize, reduce in layers]
        # Each block enlarges to the next finer map, the last one to twice the finest.
        sizes = [[2 * side for side in reduced[0].shape[-2:]], *(one.shape[-2:] for one in reduced[:-1])]
        path = None
        for features, fuse, size in reversed(list(zip(reduced, self.fusions, sizes, strict=True))):
            path = fuse(features, path, size)
        return F.relu(self.smooth(path))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Classify the decoder's features: (B, C, 8 h, 8 w) -> logits (B, K, 8 h, 8 w)."""
        return self.classifier(self.dropout(features))

    def to_pixels(self, logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Enlarge logits (B, K, 8 h, 8 w) to the patches' pixels, and cut to the image's (height, width)."""
        size = [side // _FINE * self.patch_size for side in logits.shape[-2:]]
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.align_corners)[..., :height, :width]

    def to_positions(self, features: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Average the decoder's features (B, C, 8 h, 8 w) over each half of a patch.

        Returns:
            (B, C, ceil(height / q), ceil(width / q)) with q = p / 2; position i stands for pixels i*q .. i*q + q - 1.
        """
        averaged = F.avg_pool2d(features, _FINE // _COARSE)
        rows, columns = (math.ceil(side / self.feature_stride) for side in (height, width))
        return averaged[..., :rows, :columns]
