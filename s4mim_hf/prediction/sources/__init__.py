"""Find out what is to be predicted: files, folders, patterns, prepared data, any data set, or shards of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from s4mim_hf.data.splits import IMAGE_SUFFIXES
from s4mim_hf.data.streaming.files import is_remote
from s4mim_hf.errors import InputError
from s4mim_hf.prediction.sources.base import ImageSource, InputImage, ListedImages, SourcePart
from s4mim_hf.prediction.sources.data_sets import (
    holds_tables,
    is_on_hub,
    is_prepared,
    open_hub,
    open_prepared,
    open_table,
)
from s4mim_hf.prediction.sources.files import holds_images, is_pattern, open_files
from s4mim_hf.prediction.sources.pools import PooledImages, is_shard

__all__ = ["ImageSource", "InputImage", "ListedImages", "SourcePart", "open_images"]


class _Kind(Enum):
    """What a source is; the values are for messages."""

    FILES = "picture files"
    SHARDS = "shards of images"
    PREPARED = "prepared data"
    TABLE = "a data set"
    HUB = "a data set of the Hub"


def open_images(
    sources: Sequence[str], output: Path, *, split: str | None = None, image_column: str | None = None
) -> ImageSource:
    """Find what names and patterns mean.

    Args:
        sources: image files, folders and patterns in any number; shards in any number (`pool-*.tar`, `x.parquet`, also
            by URL); or one prepared folder, one folder that `datasets` reads, or one data set of the Hub.
        output: the folder of results, which is no input.
        split: of a data set; None: the unlabelled images of prepared data, or the only split.
        image_column: of a data set or of shards; None: the one that holds pictures.

    Raises:
        InputError: a source is missing or holds no image, sources are of several kinds, or an option does not go with
            them.
    """
    kinds = [_kind_of(source) for source in sources]
    if len(set(kinds)) > 1:
        others = next(index for index, kind in enumerate(kinds) if kind != kinds[0])
        raise InputError(
            f"{sources[0]} is {kinds[0].value} and {sources[others]} is {kinds[others].value}; predict them one "
            "after the other"
        )
    kind = kinds[0]
    if kind in (_Kind.FILES, _Kind.SHARDS) and split is not None:
        raise InputError(f"--split {split!r} is given, but {sources[0]} is {kind.value}, which have no splits; omit it")
    if kind == _Kind.FILES:
        if image_column is not None:
            raise InputError(
                f"--image-column is given, but {sources[0]} is {kind.value}, which have no columns; omit it"
            )
        return open_files(sources, output)
    if kind == _Kind.SHARDS:
        return PooledImages(sources, image_column)
    if len(sources) > 1:
        raise InputError(f"{sources[0]} and {sources[1]} are data sets; predict them one after the other")
    opened = {_Kind.PREPARED: open_prepared, _Kind.TABLE: open_table, _Kind.HUB: open_hub}[kind]
    return opened(sources[0], split, image_column)


def _kind_of(source: str) -> _Kind:
    path = Path(source).expanduser()
    if is_prepared(source):
        return _Kind.PREPARED
    if path.is_dir():
        return _Kind.TABLE if not holds_images(path) and holds_tables(path) else _Kind.FILES
    if is_shard(source):
        return _Kind.SHARDS
    if path.exists():
        return _Kind.FILES
    if is_remote(source):
        if source.startswith("hf://datasets/"):
            return _Kind.HUB
        raise InputError(
            f"{source} is no address that is read here; give hf://datasets/USER/NAME, or the address of a .parquet or "
            ".tar file"
        )
    if not is_pattern(source) and path.suffix.lower() not in IMAGE_SUFFIXES and is_on_hub(source):
        return _Kind.HUB
    return _Kind.FILES
