"""Images from parquet shards, a few rows at a time, and of the other columns nothing.

R: the rows of a shard. A part of a shard is a range of its rows, so that whole row groups outside it are not read.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s4mim_hf.data.streaming.files import open_shard
from s4mim_hf.data.streaming.samples import Part, Sample
from s4mim_hf.data.streaming.shards import Shard
from s4mim_hf.errors import InputError, nearest, some

DEFAULT_COLUMN = "image"
# Rows decoded at once: few, for an image may have megabytes.
_ROWS = 8
# Bytes of a column chunk read at once; without it a whole row group's images would be in memory. A page always is, and
# its writer says how large that is: Arrow's default is 1024 rows.
_BUFFER = 2**20


def count_rows(shard: Shard, column: str | None) -> int:
    """Return R from the shard's footer, once it is sure that it has the column of images.

    Raises:
        InputError: the shard cannot be read, is cut short, has no rows, or no such column.
    """
    with _opened(shard) as file:
        _leaf(file, shard, column)
        return _rows(file, shard)


def rows_of(rows: int, part: Part) -> int:
    """Return how many of R `rows` a part has."""
    first, last = _range(rows, part)
    return last - first


def read_rows(shard: Shard, column: str | None, part: Part, skip: int) -> Generator[Sample, None, int]:
    """Yield the images of a part after its first `skip`; return R.

    Raises:
        InputError: as for `count_rows`, or a row group cannot be read.
    """
    with _opened(shard) as file:
        leaf, total = _leaf(file, shard, column), _rows(file, shard)
        first, last = _range(total, part)
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            low, high = max(first + skip - start, 0), min(last - start, rows)
            if low < high:
                for row, data in enumerate(_group(file, group, leaf, low, high), start=start + low):
                    yield Sample(f"row {row} of {shard.url}", data, f"{row:06d}")
                # Arrow keeps what it frees, and with pages of many megabytes that adds up.
                pa.default_memory_pool().release_unused()
            start += rows
    return total


def _rows(file: pq.ParquetFile, shard: Shard) -> int:
    rows = int(file.metadata.num_rows)
    if rows == 0:
        raise InputError(f"{shard.url} has no rows; write it again, or leave it out of data.unlabeled.shards")
    return rows


def _range(rows: int, part: Part) -> tuple[int, int]:
    """Return the first row of a part and the one after its last; the parts of R rows differ by at most one row."""
    return part.number * rows // part.of, (part.number + 1) * rows // part.of


def _group(file: pq.ParquetFile, group: int, leaf: str, low: int, high: int) -> Iterator[bytes | None]:
    """Yield the bytes in rows low .. high - 1 of a row group."""
    start = 0
    # Without threads of its own: the loader's workers are the parallelism, and forked from this process.
    for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[leaf], use_threads=False):
        if start + len(batch) > low:
            wanted = batch.slice(max(low - start, 0), high - max(low, start)).column(0)
            yield from (pc.struct_field(wanted, "bytes") if pa.types.is_struct(wanted.type) else wanted).to_pylist()
        start += len(batch)
        if start >= high:
            return


def _leaf(file: pq.ParquetFile, shard: Shard, column: str | None) -> str:
    """Return the parquet name of the column that holds the images' bytes."""
    schema = file.schema_arrow
    name = DEFAULT_COLUMN if column is None else column
    if name not in schema.names:
        raise InputError(
            f"{shard.url} has no column {name!r} (its columns: {some(schema.names, 8)}){nearest(name, schema.names)}; "
            "name the column of the images with data.unlabeled.image_column"
        )
    kind = schema.field(name).type
    if _is_bytes(kind):
        return name
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type):
        return f"{name}.bytes"
    raise InputError(
        f"column {name!r} of {shard.url} holds {str(kind)[:60]}, and no images; expected bytes, or bytes with a path "
        "as datasets.Image stores them: name another with data.unlabeled.image_column"
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


@contextmanager
def _opened(shard: Shard) -> Iterator[Any]:
    with open_shard(shard) as source:
        try:
            with pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{shard.url} cannot be read as parquet ({reason}); it may be cut short: write or download it again"
            ) from None
