"""One hash for which image is in which split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping


def split_hash(splits: Mapping[str, Iterable[str]]) -> str:
    """Return sha256 (hex) over the sorted ids of each split; the order of ids and of splits does not matter."""
    canonical = {name: sorted(ids) for name, ids in splits.items()}
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()
