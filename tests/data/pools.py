"""Small pools of shards whose "images" are short texts, and what reads them."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s4mim_hf.data.config import DataConfig, UnlabeledConfig
from s4mim_hf.data.streaming import ImageStream, ShardPool, open_pool


def write_parquet(
    path: Path,
    images: Sequence[bytes | None],
    *,
    column: str = "image",
    plain: bool = False,
    row_group: int = 1000,
    compressed: bool = True,
) -> Path:
    """Write images as `datasets.Image` stores them, or as plain bytes, between columns that nobody reads."""
    values: pa.Array = pa.array(images, pa.binary())
    if not plain:
        paths = pa.array([f"{number}.jpg" for number in range(len(images))])
        values = pa.StructArray.from_arrays([values, paths], ["bytes", "path"])
    ids = [f"{path.stem}/{number}" for number in range(len(images))]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": ids, column: values, "caption": ids})
    # Photos do not compress, and repeated bytes here would.
    how: dict[str, Any] = {} if compressed else {"compression": "none", "use_dictionary": False}
    pq.write_table(table, path, row_group_size=row_group, **how)
    return path


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write files in their order; .tar.gz where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    content = buffer.getvalue()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix in (".gz", ".tgz") else content)
    return path


def names(shard: int, count: int) -> list[bytes]:
    """Return the "images" of a shard: b"3:0", b"3:1", ..."""
    return [f"{shard}:{number}".encode() for number in range(count)]


def tar_of(path: Path, images: Sequence[bytes]) -> Path:
    """Write a webdataset tar: each image between a text and a label map of the same key."""
    members = []
    for number, image in enumerate(images):
        key = f"set/{number:04d}"
        members += [(f"{key}.cls", b"1"), (f"{key}.jpg", image), (f"{key}.seg.png", b"label"), (f"{key}.json", b"{}")]
    return write_tar(path, members)


def write_pool(folder: Path, counts: Sequence[int], form: str = "parquet") -> Path:
    """Write one shard for each number of images: "parquet", "tar", "tar.gz", or "mixed" in turn."""
    for shard, count in enumerate(counts):
        kind = ("parquet", "tar", "tar.gz")[shard % 3] if form == "mixed" else form
        path = folder / f"shard-{shard:03d}.{kind}"
        if kind == "parquet":
            write_parquet(path, names(shard, count), row_group=4)
        else:
            tar_of(path, names(shard, count))
    return folder


def pool_of(folder: Path | str, **settings: Any) -> ShardPool:
    """Open all shards of a folder, or those of a pattern, four lanes and windows of four unless told otherwise."""
    shards = f"{folder}/*" if isinstance(folder, Path) else folder
    chosen = {"shards": shards, "lanes": 4, "shuffle_buffer": 16} | settings
    return open_pool(DataConfig(unlabeled=UnlabeledConfig(streaming=True, **chosen)))


def read(stream: ImageStream, numbers: Iterable[int], size: int = 3) -> list[list[str]]:
    """Return the texts of micro-batches; one that starts with "broken" cannot be decoded."""
    return [stream.images(number, size, lambda data, place: decode(data)) for number in numbers]


def decode(data: bytes) -> str:
    """Return an "image's" text."""
    if data.startswith(b"broken"):
        raise ValueError("it is broken")
    return data.decode()


def texts_of(pattern: str, first: int, last: int) -> list[list[str]]:
    """Return the texts of the micro-batches first .. last - 1 of a pool, for a process of its own."""
    return read(ImageStream(pool_of(pattern), seed=7), range(first, last))


def own_shards_of(path: str) -> list[str]:
    """Return the addresses of the shards of prepared data."""
    return [shard.url for shard in open_pool(DataConfig(path=path, unlabeled=UnlabeledConfig(streaming=True))).shards]
