"""UniMatch, github.com/LiheYoung/UniMatch: DeepLabV3+ on a ResNet with a deep stem, or on Xception-65 (COCO)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from s4mim_hf.hub.conversion.deeplab import convert_deeplab
from s4mim_hf.modeling import S4MIMConfig


def convert(state: Mapping[str, torch.Tensor]) -> tuple[S4MIMConfig, dict[str, torch.Tensor]]:
    """Return the architecture and our segmenter's weights; every weight of theirs is used.

    No weight tells output stride, dilations and multi-grid. Assumed are 16, 6, 12, 18 and none: what its configuration
    of Pascal VOC has in both versions that we know (commits 7292bac and 818609d), and that of Cityscapes in the later
    one. In the earlier one Cityscapes has 8, 12, 24, 36 and 2, 2, 4; see `Peer.cityscapes_otherwise`.

    Args:
        state: tensors by UniMatch's names.

    Raises:
        InputError: a weight is missing, more than the network has, or of a shape that does not fit.
    """
    return convert_deeplab(state, output_stride=16, rates=(6, 12, 18))
