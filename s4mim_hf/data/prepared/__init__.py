"""Read what `scripts/prepare_data.py` wrote: three splits of undecoded images with their classes and hash."""

from __future__ import annotations

from s4mim_hf.data.prepared.download import HUB_PREFIX
from s4mim_hf.data.prepared.loading import PreparedData, load_prepared
from s4mim_hf.data.prepared.pixels import decode_image, decode_label
from s4mim_hf.data.prepared.record import (
    FORMAT_VERSION,
    SPLITS,
    SYNTHETIC,
    SYNTHETIC_PROTOCOL,
    ShardRecord,
    SplitStatistics,
    features_of,
)

__all__ = [
    "FORMAT_VERSION",
    "HUB_PREFIX",
    "SPLITS",
    "SYNTHETIC",
    "SYNTHETIC_PROTOCOL",
    "PreparedData",
    "ShardRecord",
    "SplitStatistics",
    "decode_image",
    "decode_label",
    "features_of",
    "load_prepared",
]
