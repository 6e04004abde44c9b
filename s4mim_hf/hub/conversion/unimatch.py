"""UniMatch, github.com/LiheYoung/UniMatch: DeepLabV3+ on a ResNet with a deep stem, or on Xception-65 (COCO)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from s4mim_hf.hub.conversion.deeplab import convert_deeplab
from s4mim_hf.modeling import S4MIMConfig


def convert(state: Mapping[str, torch.Tensor]) -> tuple[S4MIMConfig, dict[str, torch.Tensor]]:
    """Return the architecture and our segmenter's weights; every weight of theirs is used.

    Output stride 16 and the dilations 6, 12, 18 are what all of its published configurations have.

    Args:
        state: tensors by UniMatch's names.

    Raises:
        InputError: a weight is missing, more than the network has, or of a shape that does not fit.
    """
    return convert_deeplab(state, output_stride=16, rates=(6, 12, 18))
