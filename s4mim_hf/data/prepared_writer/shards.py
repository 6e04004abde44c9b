"""One parquet file, written row group by row group and hashed on the way."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s4mim_hf.data.prepared.record import ShardRecord, SplitStatistics, features_of
from s4mim_hf.data.prepared_writer.rows import Row

# A reader of parquet holds one row group for each stream that it reads, and reads all of it for a single row of it.
ROW_GROUP_BYTES = 4 * 2**20
ROW_GROUP_ROWS = 1000


class ShardWriter:
    """Writes one shard.

    Args:
        folder: the folder in the making.
        file: where the shard goes, below it.
        split: which split it is of.
        classes: K.

    Attributes:
        split: as given.
        size: bytes of the pictures and labels so far.
        statistics: of the rows so far.
    """

    def __init__(self, folder: Path, file: str, split: str, classes: int) -> None:
        self.file, self.split, self.size = file, split, 0
        self.statistics = SplitStatistics.empty(classes)
        self._schema = features_of(split, decode=True).arrow_schema
        self._sink = _HashingFile(folder / file)
        # The pictures are compressed already, each is its own, and bounds on their bytes help nobody.
        self._writer = pq.ParquetWriter(
            self._sink, self._schema, compression="none", use_dictionary=False, write_statistics=["id"]
        )
        self._group: list[dict[str, Any]] = []
        self._group_bytes = 0

    def add(self, row: Row) -> None:
        """Append a row; whole row groups go to the disk."""
        size = row_bytes(row)
        if self._group and (self._group_bytes + size > ROW_GROUP_BYTES or len(self._group) == ROW_GROUP_ROWS):
            self._flush()
        self._group.append(_as_dict(row))
        self._group_bytes += size
        self.size += size
        self.statistics.add((row.width, row.height), row.pixels)

    def close(self) -> ShardRecord:
        """Write what is left, wait until it is on the disk, and return what was written."""
        self._flush()
        self._writer.close()
        self._sink.sync_and_close()
        return ShardRecord(self.file, self.statistics.images, self._sink.size, self._sink.sha256.hexdigest())

    def abandon(self) -> None:
        """Close the file without the rest, and remove it: it is of no use, and its room may be needed."""
        self._sink.abandon()
        with suppress(Exception):
            self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._group, schema=self._schema))
        self._group, self._group_bytes = [], 0


def row_bytes(row: Row) -> int:
    """Return how much room a row takes, within a few bytes."""
    return len(row.image) + len(row.label or b"") + len(row.id)


def _as_dict(row: Row) -> dict[str, Any]:
    columns: dict[str, Any] = {"id": row.id, "image": {"bytes": row.image, "path": row.file_name}}
    if row.label is not None:
        columns["label"] = {"bytes": row.label, "path": None}
    return columns


class _HashingFile(io.RawIOBase):
    """A new file that is written from its start to its end, and hashed on the way.

    Unbuffered, so that a full disk is reported by the write that finds it full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = io.FileIO(path, "w")
        self.size = 0
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        count = len(left)
        if self._file is not None:
            self.sha256.update(left)
            while left:
                left = left[self._file.write(left) :]
        self.size += count
        return count

    def sync_and_close(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None

    def abandon(self) -> None:
        """Remove the file; what is written from now on goes nowhere."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)
