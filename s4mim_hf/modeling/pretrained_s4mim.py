"""What both models share: what a pass of the segmenter gives, initial weights, folders that carry their own code.

Legend: B images, H x W pixels, K classes, C feature channels, r the output stride.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_s4mim import CODE_OF_AUTO_CLASSES, S4MIMConfig
from .dpt_head import DPTConvolution, DPTTransposedConvolution
from .mim_head import ClassGatedConvolution, PointwiseLayer


class SegmentationFeatures(NamedTuple):
    """What one pass of the segmenter gives.

    Attributes:
        logits: (B, K, H, W).
        decoder_features: Those that are classified, (B, decoder_channels, ceil(H/q), ceil(W/q)) with q the head's
            `feature_stride`: 4 of DeepLabV3+, where they stand just before dropout and classifier; half a patch of DPT,
            whose finer ones are averaged.
        encoder_features: The encoder's last, (B, C, ceil(H/r), ceil(W/r)) with r the output stride.
        perturbed_logits: Of the rows whose features were perturbed as well, (B_f, K, H, W); None without feature noise.
    """

    logits: torch.Tensor
    decoder_features: torch.Tensor
    encoder_features: torch.Tensor
    perturbed_logits: torch.Tensor | None = None


@dataclass
class SemiSupervisedOutput(ModelOutput):
    """What one training pass gives; B_m is the number of masked views, the last rows of the batch.

    Attributes:
        logits: Of all rows, (B, K, H, W).
        features: z of the masked views, (B_m, C, h, w); None without a patch mask.
        reconstruction: x̂ of the masked views, (B_m, 3, H, W); None without a class map.
        reconstructed: Positions of z that are reconstructed class by class, (B_m, h, w) bool; elsewhere x̂ is 0 (but not
            in one region, which covers everything). None without a class map.
        perturbed_logits: Of the rows whose features were perturbed as well, (B_f, K, H, W); None without feature noise.
    """

    logits: torch.Tensor | None = None
    features: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    reconstructed: torch.Tensor | None = None
    perturbed_logits: torch.Tensor | None = None


class S4MIMPreTrainedModel(PreTrainedModel):
    """Initial weights, and saved folders that load with nothing of this project installed."""

    config_class = S4MIMConfig
    config: S4MIMConfig
    # A checkpoint of either model loads into the other one: the segmenter's weights, under this prefix or without it.
    base_model_prefix = "segmenter"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # transformers' Trainer divides the loss of accumulated batches itself: ours is a mean over the batch at hand.
    accepts_loss_kwargs = False
    # device_map: each of them stays on one device; between them features travel as a model's inputs do.
    _no_split_modules = ("Backbone", "DeepLabV3PlusHead", "DPTHead")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # nn.init, not in-place writes: transformers guards it, so that loaded weights are never initialised over.
        super()._init_weights(module)
        if isinstance(module, DPTConvolution | DPTTransposedConvolution):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, ClassGatedConvolution | PointwiseLayer):
            # The features' scale is kept; the deviation of 0.02 that is usual for linear layers would shrink z away.
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        for name, deviation in (("pixel_token", 0.0), ("feature_token", self.config.initializer_range)):
            if isinstance(token := getattr(module, name, None), nn.Parameter):
                nn.init.normal_(token, std=deviation)

    @classmethod
    def from_pretrained(cls, *args: Any, use_safetensors: bool | None = None, **kwargs: Any) -> Any:
        """Load as transformers does, but from safetensors only: pickled weights can run code.

        Raises:
            ValueError: use_safetensors=False.
            OSError: There is no such model, or it has no weights as safetensors.
        """
        if use_safetensors is False:
            raise ValueError("weights are read from safetensors only; leave use_safetensors out")
        return super().from_pretrained(*args, use_safetensors=True, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save weights, configuration and code as transformers does, with all Auto classes in the configuration.

        Raises:
            ValueError: safe_serialization=False.
        """
        if kwargs.pop("safe_serialization", True) is False:
            raise ValueError("weights are written as safetensors only; leave safe_serialization out")
        own = f"modeling_s4mim.{type(self).__name__}"
        self.config.auto_map = {**CODE_OF_AUTO_CLASSES, "AutoModel": own}
        super().save_pretrained(save_directory, **kwargs)
