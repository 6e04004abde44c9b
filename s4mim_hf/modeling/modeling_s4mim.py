"""The two S4MIM models: the segmenter that is shipped, and the segmenter with what masked image modelling trains.

Legend: B images, H x W pixels, K classes, C feature channels, r the stride of a feature. A feature of stride r has
ceil(H/r) x ceil(W/r) positions; position i stands for pixels i*r .. i*r + r - 1. Masks: 1 (True) = masked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from .backbone_weights import load_backbone_config, load_backbone_weights
from .backbones import build_backbone
from .configuration_s4mim import S4MIMConfig
from .decode_heads import build_decode_head
from .feature_noise import FeatureNoise
from .mim_decoders import build_mim_decoder
from .mim_head import ChannelLayerNorm, ClassWiseDecoder
from .normalization import ViewGroup, use_view_groups
from .pretrained_s4mim import S4MIMPreTrainedModel, SegmentationFeatures, SemiSupervisedOutput

_INITIALIZED = "_is_hf_initialized"


class S4MIMForSemanticSegmentation(S4MIMPreTrainedModel):
    """Encoder and decode head.

    Args:
        config: Its architecture; the fields of masked image modelling are not used here.

    Raises:
        ValueError: A field out of range, or a backbone that does not fit.
    """

    _auto_class = "AutoModelForSemanticSegmentation"
    _keys_to_ignore_on_load_unexpected = (r"^(segmenter\.)?(pixel_token$|projection\.|mim_decoder\.)",)

    def __init__(self, config: S4MIMConfig) -> None:
        super().__init__(config)
        config.validate_values()
        self.backbone = build_backbone(config)
        self.decode_head = build_decode_head(config, self.backbone)
        self.post_init()

    @classmethod
    def from_pretrained_backbone(
        cls, name_or_path: str | os.PathLike[str], **config_fields: Any
    ) -> S4MIMForSemanticSegmentation:
        """Build a segmenter on a pretrained encoder; the rest is freshly initialised.

        Args:
            name_or_path: A Hub name or a local folder of a backbone or of a classifier on it.
            config_fields: Fields of `S4MIMConfig`, but for `backbone_config`.

        Raises:
            ValueError: The encoder cannot be had, or its checkpoint lacks weights.
        """
        name = os.fspath(name_or_path)
        model = cls(S4MIMConfig(backbone_config=load_backbone_config(name), **config_fields))
        load_backbone_weights(model.backbone, name)
        return model

    @property
    def feature_stride(self) -> int:
        """Pixels per position of z, the features of `mim_features`."""
        decoder = self.config.mim_features == "decoder"
        return self.decode_head.feature_stride if decoder else self.backbone.output_stride

    def segment(
        self,
        pixel_values: torch.Tensor,
        view_groups: Sequence[ViewGroup] | None = None,
        feature_noise: FeatureNoise | None = None,
    ) -> SegmentationFeatures:
        """Segment (B, 3, H, W) normalised images of any size and keep the features on the way.

        Args:
            pixel_values: The images.
            view_groups: Which consecutive rows share BatchNorm statistics; None: all rows, as BatchNorm does.
            feature_noise: Rows that pass the decoder a second time, with perturbed features; the encoder runs once.

        Raises:
            ValueError: Another shape, or a single image while BatchNorm learns.
        """
        channels = self.backbone.in_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels or 0 in pixel_values.shape:
            raise ValueError(
                f"pixel_values has the shape {tuple(pixel_values.shape)}; it must be (images, {channels}, height, "
                "width), with no dimension empty"
            )
        height, width = pixel_values.shape[-2:]
        pixel_values = pixel_values.to(self.dtype)  # the image processor's are float32
        with use_view_groups(self.backbone, view_groups):
            maps: tuple[torch.Tensor, ...] = self.backbone(pixel_values)
        rows, encoder_features = maps[-1].shape[0], maps[-1]  # len() would fix it in an exported graph
        if feature_noise is not None:
            maps = feature_noise.perturb(maps)
            view_groups = feature_noise.decoder_groups(view_groups)
        with use_view_groups(self.decode_head, view_groups):
            features = self.decode_head.features(*maps)
            logits = self.decode_head.to_pixels(self.decode_head(features), height, width)
        perturbed = None if feature_noise is None else logits[rows:]
        features = self.decode_head.to_positions(features[:rows], height, width)
        return SegmentationFeatures(logits[:rows], features, encoder_features, perturbed)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SemanticSegmenterOutput | tuple[torch.Tensor, ...]:
        """Segment images.

        Args:
            pixel_values: (B, 3, H, W) float, normalised.
            labels: (B, H, W) int64, ids 0..K-1 or the ignore index.
            return_dict: False for a tuple (loss, logits), without the loss where no labels are given.

        Returns:
            loss: Mean cross-entropy of the known pixels, 0 where there are none; None without labels.
            logits: (B, K, H, W), at exactly the input's size.

        Raises:
            ValueError: A wrong shape.
            TypeError: Another argument, unless it asks for nothing (None or False).
        """
        _refuse_others(others)
        logits = self.segment(pixel_values).logits
        loss = None if labels is None else self._cross_entropy(logits, labels)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return (logits,) if loss is None else (loss, logits)
        return SemanticSegmenterOutput(loss=loss, logits=logits)

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        expected = (logits.shape[0], *logits.shape[-2:])
        if tuple(labels.shape) != expected:
            raise ValueError(f"labels has the shape {tuple(labels.shape)}; the images' is {expected}")
        ignore = self.config.semantic_loss_ignore_index
        # At least in float32: a sum over pixels is beyond what float16 can hold.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = F.cross_entropy(logits, labels.long(), ignore_index=ignore, reduction="sum")
        return total / (labels != ignore).sum().clamp(min=1)


class S4MIMForSemiSupervisedSegmentation(S4MIMPreTrainedModel):
    """The segmenter, and beside it the mask token, the projection of z and the reconstruction decoder.

    Only what the configuration asks for is built, after the segmenter: with the same seed the segmenter starts from
    the same weights, whatever stands beside it.

    Args:
        config: The architecture of both.
        segmenter: An existing segmenter to train instead of a new one; see `from_segmenter`.
    """

    _auto_class = "AutoModel"

    def __init__(self, config: S4MIMConfig, segmenter: S4MIMForSemanticSegmentation | None = None) -> None:
        super().__init__(config)
        config.validate_values()
        if segmenter is None:
            # Its own `post_init` has marked it, but not where `from_pretrained` builds: buffers are to be filled there.
            segmenter = S4MIMForSemanticSegmentation(config)
        else:
            for module in segmenter.modules():
                # transformers' mark: what has weights already must not be initialised again with the heads.
                setattr(module, _INITIALIZED, True)
        self.segmenter = segmenter
        self.pixel_token = (
            nn.Parameter(torch.zeros(segmenter.backbone.in_channels)) if config.mask_token == "learned" else None
        )
        source = config.decoder_channels if config.mim_features == "decoder" else segmenter.backbone.channels
        self.projection: nn.Module | None = None
        if config.mim_projection_channels is not None:
            self.projection = nn.Sequential(
                nn.Conv2d(source, config.mim_projection_channels, 1), ChannelLayerNorm(config.mim_projection_channels)
            )
        self.feature_channels: int = config.mim_projection_channels or source
        self.mim_decoder: ClassWiseDecoder | None = None
        if config.mim_decoder:
            self.mim_decoder = build_mim_decoder(config, self.feature_channels, self.feature_stride)
        self.post_init()

    @classmethod
    def from_segmenter(
        cls, segmenter: S4MIMForSemanticSegmentation, config: S4MIMConfig | None = None
    ) -> S4MIMForSemiSupervisedSegmentation:
        """Put the training heads of `config` beside an existing segmenter, whose weights stay as they are.

        Args:
            segmenter: Becomes part of the new model (it is not copied) and takes over its configuration.
            config: The architecture of both; None for the segmenter's own.

        Raises:
            ValueError: The configuration describes another segmenter.
        """
        config = segmenter.config if config is None else config
        with torch.device("meta"):
            described = {key: tensor.shape for key, tensor in S4MIMForSemanticSegmentation(config).state_dict().items()}
        found = {key: tensor.shape for key, tensor in segmenter.state_dict().items()}
        differing = sorted(key for key in {*described, *found} if described.get(key) != found.get(key))
        if differing:
            raise ValueError(
                f"the configuration describes another segmenter than the given one: they differ in {len(differing)} "
                f"weights, the first being {differing[0]!r}; build both from the same architecture fields"
            )
        segmenter.config = config
        return cls(config, segmenter=segmenter)

    @property
    def feature_stride(self) -> int:
        """Pixels per position of z."""
        return self.segmenter.feature_stride

    def forward(
        self,
        pixel_values: torch.Tensor,
        patch_mask: torch.Tensor | None = None,
        feature_mask: torch.Tensor | None = None,
        class_map: torch.Tensor | None = None,
        one_region: bool = False,
        view_groups: Sequence[ViewGroup] | None = None,
        feature_noise: FeatureNoise | None = None,
        **others: Any,
    ) -> SemiSupervisedOutput:
        """Run all views through the segmenter once, and the masked ones through the heads.

        Args:
            pixel_values: (B, 3, H, W) normalised images, all of them clean; the last B_m become masked here.
            patch_mask: (B_m, 1, H, W) bool, B_m <= B.
            feature_mask: M↓, (B_m, 1, h, w) bool; used where `masked_features` is "token".
            class_map: s↓, (B_m, h, w) int64, ids or 255.
            one_region: Whether classes are reconstructed together, which is basic masked image modelling.
            view_groups: Which consecutive rows share BatchNorm statistics; None: all rows, as BatchNorm does.
            feature_noise: Rows that are segmented a second time, from perturbed features.

        Raises:
            ValueError: Shapes that do not fit each other, or a mask for a model without mask token or decoder.
            TypeError: Another argument, unless it asks for nothing (None or False); a tuple by return_dict=False.
        """
        _refuse_others(others)
        if patch_mask is not None:
            pixel_values = self.mask_pixels(pixel_values, patch_mask)
        elif class_map is not None or feature_mask is not None:
            raise ValueError("class_map and feature_mask describe masked views; give the patch_mask as well")
        segmented = self.segmenter.segment(pixel_values, view_groups, feature_noise)
        features = None if patch_mask is None else self.mim_features(segmented, patch_mask.shape[0])
        reconstruction = reconstructed = None
        if features is not None and class_map is not None:
            reconstruction, reconstructed = self.reconstruct(features, class_map, feature_mask, one_region)
            reconstruction = reconstruction[..., : pixel_values.shape[-2], : pixel_values.shape[-1]]
        return SemiSupervisedOutput(
            logits=segmented.logits,
            features=features,
            reconstruction=reconstruction,
            reconstructed=reconstructed,
            perturbed_logits=segmented.perturbed_logits,
        )

    def mask_pixels(self, pixel_values: torch.Tensor, patch_mask: torch.Tensor) -> torch.Tensor:
        """Return the images (B, 3, H, W), the last B_m as x_M = x ⊙ (1 − M) + t ⊙ M for M (B_m, 1, H, W)."""
        if self.config.mask_token == "none":
            raise ValueError('a model built with mask_token="none" takes no patch_mask; choose "learned" or "zero"')
        masked, expected = patch_mask.shape[0], (1, *pixel_values.shape[-2:])
        if tuple(patch_mask.shape[1:]) != expected or not 1 <= masked <= pixel_values.shape[0]:
            raise ValueError(
                f"patch_mask has the shape {tuple(patch_mask.shape)}; for these images it must be (1 to "
                f"{pixel_values.shape[0]}, {', '.join(map(str, expected))})"
            )
        clean, images = pixel_values[:-masked], pixel_values[-masked:]
        token = images.new_zeros(()) if self.pixel_token is None else self.pixel_token.to(images.dtype)[:, None, None]
        return torch.cat([clean, torch.where(patch_mask.bool(), token, images)])

    def mim_features(self, segmented: SegmentationFeatures, masked: int) -> torch.Tensor:
        """Return z (B_m, C, h, w) of the last `masked` rows."""
        source = segmented.decoder_features if self.config.mim_features == "decoder" else segmented.encoder_features
        features = source[-masked:]
        return features if self.projection is None else self.projection(features)

    def reconstruct(
        self, features: torch.Tensor, class_map: torch.Tensor, feature_mask: torch.Tensor | None, one_region: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x̂ (B_m, 3, h * r, w * r) of z (B_m, C, h, w), and the positions that x̂ by class covers, (B_m, h, w).

        Raises:
            ValueError: No decoder, or shapes that do not fit.
        """
        if self.mim_decoder is None:
            raise ValueError("this model was built with mim_decoder=False and reconstructs nothing; give no class_map")
        regions = torch.zeros_like(class_map) if one_region else class_map
        return self.mim_decoder(features, regions, feature_mask), self.mim_decoder.covered(class_map)


def _refuse_others(arguments: dict[str, Any]) -> None:
    """Refuse what a caller would wait for in vain; callers for all models pass output_attentions=False and the like."""
    for name, value in arguments.items():
        # Where it is no argument, a dictionary is what there is.
        harmless = (None, True) if name == "return_dict" else (None, False)
        if not any(value is one for one in harmless):
            raise TypeError(f"the model takes no argument {name!r} (given: {type(value).__name__}); leave it out")


__all__ = [
    "S4MIMForSemanticSegmentation",
    "S4MIMForSemiSupervisedSegmentation",
    "S4MIMPreTrainedModel",
    "SegmentationFeatures",
    "SemiSupervisedOutput",
]
