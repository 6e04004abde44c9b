"""CorrMatch, github.com/BBBBchan/CorrMatch: UniMatch's network, and a correlation head that only training reads."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from s4mim_hf.hub.conversion.deeplab import convert_deeplab
from s4mim_hf.modeling import S4MIMConfig

# The projection and the correlation maps: its evaluation calls the network without them (`use_corr=False`).
LEFT_OUT = ("corr.", "proj.")


def convert(state: Mapping[str, torch.Tensor]) -> tuple[S4MIMConfig, dict[str, torch.Tensor]]:
    """Return the architecture and our segmenter's weights; all but `LEFT_OUT` are used.

    No weight tells output stride, dilations and multi-grid. Assumed are 8, 12, 24, 36 and none: what its configuration
    of Pascal VOC has in all versions that we know, and that of Cityscapes since commit ca5c877. Before (b7aa84e),
    Cityscapes has the multi-grid 2, 2, 4; see `Peer.cityscapes_otherwise`.

    Args:
        state: tensors by CorrMatch's names.

    Raises:
        InputError: a weight is missing, more than the network has, or of a shape that does not fit.
    """
    return convert_deeplab(state, output_stride=8, rates=(12, 24, 36), left_out=LEFT_OUT)
