"""Which decode head a configuration asks for, and DeepLabV3+: atrous spatial pyramid pooling, a skip from stride 4.

After Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", arXiv
1802.02611.
Legend: B images, (h4, w4) positions at stride 4, (h, w) positions at the output stride.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .backbones import LOW_LEVEL_STRIDE, Backbone
from .configuration_s4mim import S4MIMConfig
from .dpt_head import DPTHead
from .normalization import check_statistics


class ConvolutionUnit(nn.Sequential):
    """Convolution, BatchNorm, ReLU; a 3x3 may be split into a depthwise and a pointwise one.

    Maps (B, in_channels, h, w) to (B, out_channels, h, w).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, separable: bool = False
    ) -> None:
        padding = kernel_size // 2 * dilation
        convolutions: list[nn.Module] = []
        if separable and kernel_size > 1:
            convolutions.append(
                nn.Conv2d(
                    in_channels,
                    in_channels,
                    kernel_size,
                    padding=padding,
                    dilation=dilation,
                    groups=in_channels,
                    bias=False,
                )
            )
            convolutions.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
        else:
            convolutions.append(
                nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
            )
        super().__init__(*convolutions, nn.BatchNorm2d(out_channels), nn.ReLU())


class ImagePooling(nn.Module):
    """The whole image's mean features, at every position: (B, C, h, w) -> (B, channels, h, w)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.project = ConvolutionUnit(in_channels, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Pool, project, and spread over all positions.

        Raises:
            ValueError: A single image while training, which has no batch statistics here.
        """
        pooled = features.mean(dim=(2, 3), keepdim=True)
        normalization = self.project[-2]
        if normalization.training and not isinstance(normalization, nn.SyncBatchNorm):
            check_statistics(pooled)
        return self.project(pooled).expand(-1, -1, *features.shape[-2:])


class AtrousPyramid(nn.Module):
    """Several views of the same features, near to far: (B, C, h, w) -> (B, channels, h, w)."""

    def __init__(self, in_channels: int, channels: int, rates: list[int], separable: bool, dropout: float) -> None:
        super().__init__()
        branches: list[nn.Module] = [ConvolutionUnit(in_channels, channels)]
        branches += [ConvolutionUnit(in_channels, channels, 3, rate, separable) for rate in rates]
        branches.append(ImagePooling(in_channels, channels))
        self.branches = nn.ModuleList(branches)
        self.project = ConvolutionUnit(len(branches) * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Run every branch and mix them."""
        return self.dropout(self.project(torch.cat([branch(features) for branch in self.branches], dim=1)))


class DeepLabV3PlusHead(nn.Module):
    """Decoder features at stride 4, and the classifier on them.

    Args:
        in_channels: Channels of the encoder's last features.
        low_level_in_channels: Channels of its stride-4 features.
        output_stride: Stride of the last features.
        channels: Channels of the pyramid's branches and of the decoder's features.
        low_level_channels: Channels to which the stride-4 features are reduced.
        rates: Dilations of the pyramid's 3x3 branches; None: 6, 12, 18, doubled at output stride 8.
        dropout: Probability of dropping a feature, in the pyramid and before the classifier.
        separable: Whether 3x3 convolutions are depthwise-separable.
        num_labels: Number of classes K.
        align_corners: How the pyramid's features are enlarged, see `upsample`.
        low_level_first: Whether the stride-4 features come before the pyramid's where both are joined.
    """

    feature_stride = LOW_LEVEL_STRIDE

    def __init__(
        self,
        in_channels: int,
        low_level_in_channels: int,
        *,
        output_stride: int,
        channels: int,
        low_level_channels: int,
        rates: list[int] | tuple[int, ...] | None,
        dropout: float,
        separable: bool,
        num_labels: int,
        align_corners: bool = False,
        low_level_first: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners, self.low_level_first = align_corners, low_level_first
        if rates is None:
            rates = [6, 12, 18] if output_stride >= 16 else [12, 24, 36]
        self.scale = output_stride // LOW_LEVEL_STRIDE
        self.pyramid = AtrousPyramid(in_channels, channels, list(rates), separable, dropout)
        self.reduce_low_level = ConvolutionUnit(low_level_in_channels, low_level_channels)
        self.fuse = nn.Sequential(
            ConvolutionUnit(channels + low_level_channels, channels, 3, separable=separable),
            ConvolutionUnit(channels, channels, 3, separable=separable),
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def features(self, low_level: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return the decoder's features (B, channels, h4, w4) of low_level (B, C_low, h4, w4) and last (B, C, h, w)."""
        height, width = low_level.shape[-2:]
        deep = upsample(self.pyramid(last), self.scale, height, width, self.align_corners)
        parts = [deep, self.reduce_low_level(low_level)]
        return self.fuse(torch.cat(parts[::-1] if self.low_level_first else parts, dim=1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Classify the decoder's features: (B, channels, h4, w4) -> logits (B, K, h4, w4)."""
        return self.classifier(self.dropout(features))

    def to_pixels(self, logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Enlarge logits (B, K, h4, w4) to the image's (height, width)."""
        return upsample(logits, LOW_LEVEL_STRIDE, height, width, self.align_corners)

    def to_positions(self, features: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Return the decoder's features at `feature_stride`, which they have already."""
        return features


def upsample(features: torch.Tensor, scale: int, height: int, width: int, align_corners: bool = False) -> torch.Tensor:
    """Enlarge (B, C, h, w) bilinearly to (height, width).

    By a whole factor, `scale`, and cut rather than squeezed: position i then still stands for the pixels from
    i * scale on. With `align_corners` the outermost positions lie on the outermost pixels instead, as in the published
    networks that interpolate so: they are stretched to whatever size is asked.
    """
    if align_corners:
        return F.interpolate(features, size=(height, width), mode="bilinear", align_corners=True)
    if scale > 1:
        size = (features.shape[-2] * scale, features.shape[-1] * scale)
        features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    return features[..., :height, :width]


def build_decode_head(config: S4MIMConfig, backbone: Backbone) -> DeepLabV3PlusHead | DPTHead:
    """Build the head of `config.decode_head` on an encoder that it fits."""
    if config.decode_head == "dpt":
        assert backbone.patch_size is not None
        return DPTHead(
            backbone.map_channels,
            patch_size=backbone.patch_size,
            projected_channels=config.dpt_channels,
            channels=config.decoder_channels,
            dropout=config.decoder_dropout,
            align_corners=config.dpt_align_corners,
            num_labels=config.num_labels,
        )
    return DeepLabV3PlusHead(
        backbone.channels,
        backbone.low_level_channels,
        output_stride=backbone.output_stride,
        channels=config.decoder_channels,
        low_level_channels=config.low_level_channels,
        rates=config.aspp_rates,
        dropout=config.decoder_dropout,
        separable=config.separable_convolutions,
        num_labels=config.num_labels,
        align_corners=config.align_corners,
        low_level_first=config.low_level_first,
    )
