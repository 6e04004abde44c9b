"""A pool of unlabelled images in shards: found, checked before anything is computed, and described."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from s4mim_hf.data.config import DataConfig, UnlabeledConfig
from s4mim_hf.data.prepared import SYNTHETIC
from s4mim_hf.data.streaming.files import is_remote
from s4mim_hf.data.streaming.shards import NoShardsError, Shard, fingerprint, list_shards
from s4mim_hf.data.streaming.tar import check_end
from s4mim_hf.data.streaming.units import Unit
from s4mim_hf.errors import InputError


@dataclass(frozen=True)
class ShardPool:
    """What is streamed.

    Attributes:
        shards: in the order of their listing.
        settings: how they are read.
        counts: images of the shards of which that is known.
    """

    shards: tuple[Shard, ...]
    settings: UnlabeledConfig
    counts: Mapping[Shard, int]

    @property
    def fingerprint(self) -> str:
        """A sha256 in hex over the shards' names and sizes, the same wherever they lie."""
        return fingerprint(self.shards)

    def __str__(self) -> str:
        size = sum(shard.size for shard in self.shards) / 1e9
        unit, size = ("GB", size) if size >= 1 else ("MB", size * 1e3)
        return f"{len(self.shards)} shard{'' if len(self.shards) == 1 else 's'} ({size:.1f} {unit})"


def open_pool(config: DataConfig) -> ShardPool:
    """Find the shards that `config.unlabeled` streams, and check what can be checked without reading them all.

    Of every local shard: that it is whole, as its end tells, and a parquet one that it has the column of images. Of the
    first shard: that it holds an image.

    Raises:
        InputError: there are no shards, or one of them cannot be used.
    """
    settings = config.unlabeled
    shards = list_shards(settings.patterns) if settings.patterns else _own_shards(config.path)
    local = [shard for shard in shards if not is_remote(shard.url)]
    with ThreadPoolExecutor(max_workers=8) as threads:
        counts = list(threads.map(lambda shard: _checked(shard, settings.image_column), local))
    next(Unit(shards[0]).samples(settings.image_column))
    known = {shard: count for shard, count in zip(local, counts, strict=True) if count is not None}
    return ShardPool(shards, settings, known)


def _own_shards(path: str) -> tuple[Shard, ...]:
    """Return the unlabelled shards of a prepared folder, local or on the Hub."""
    if path.partition(":")[0] == SYNTHETIC:
        raise InputError(
            f"data.path is {path!r}, the embedded data, which has no shards; name some with data.unlabeled.shards, or "
            "set data.unlabeled.streaming=false"
        )
    folder = path.rstrip("/") if is_remote(path) else glob.escape(path)
    try:
        return list_shards([f"{folder}/data/unlabeled-*.parquet"], braces=False)
    except NoShardsError:
        raise InputError(
            f"{path} has no unlabelled images to stream; name shards with data.unlabeled.shards, or prepare it again "
            "with images that have no label"
        ) from None


def _checked(shard: Shard, image_column: str | None) -> int | None:
    """Check a local shard; return how many images it has, None where only reading it through tells."""
    if shard.form == "tar":
        check_end(shard)
    return Unit(shard).images_in_shard(image_column)
