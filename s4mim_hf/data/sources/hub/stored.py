"""What the rows of a data set have stored of their pictures, undecoded, and what the rows are called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa

from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.splits import without_suffix

_ID_COLUMNS = ("id", "image_id", "file_name", "filename", "image_path", "path", "name", "key", "__key__")
_ID_TYPES = ("string", "large_string", "int32", "int64", "uint32", "uint64")
_ROWS_AT_ONCE = 256


def as_stored(row: pa.Table) -> tuple[bytes | None, str | None]:
    """Return the bytes of a picture, or its path, as a table of one row and one column has them."""
    value = row.column(0)[0].as_py()
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return value, None


def read_path(subject: str, path: str, folder: Path | None) -> bytes:
    """Read a picture of which a row has the path only, on this machine or inside an archive.

    Args:
        subject: "images" or "masks".
        path: absolute, relative to `folder`, or an address.
        folder: the data set's, where it has one.

    Raises:
        SampleError: it cannot be read.
    """
    try:
        if "://" in path:
            with fsspec.open(path, "rb") as file:
                data: bytes = file.read()
            return data
        # An absolute path stays as it is.
        return (Path(path) if folder is None else folder / path).read_bytes()
    except (OSError, ValueError, KeyError) as error:
        raise SampleError(f"{subject} cannot be read", f"{path}: {error}") from None


class RowIds:
    """Gives the rows of a split ids that stay the same: a column's values, the names of the files, or numbers."""

    def __init__(self, split: str, table: datasets.Dataset, image: str, folder: Path | None) -> None:
        self._split = split
        self._table = table
        self._image = image
        self._folder = folder

    def read(self) -> list[str]:
        """Return one id for each row: the split's name, and what is unique in it."""
        for values in self._candidates():
            ids = [self._id_of(value) for value in values]
            if all(ids) and len(set(ids)) == len(ids):
                return [str(each) for each in ids]
        return [f"{self._split}/{row:06d}" for row in range(len(self._table))]

    def _candidates(self) -> Iterator[list[Any]]:
        for name in _ID_COLUMNS:
            if getattr(self._table.features.get(name), "dtype", None) in _ID_TYPES:
                yield [value for chunk in chunks_of(self._table, name) for value in chunk.to_pylist()]
        chunks = chunks_of(self._table, self._image)
        yield [value for chunk in chunks for value in _child(chunk, "path", len(chunk))]

    def _id_of(self, value: Any) -> str | None:
        if value is None:
            return None
        path = str(value).replace("\\", "/")
        if Path(path).is_absolute() or "://" in path:
            inside = self._folder is not None and Path(path).is_relative_to(self._folder.resolve())
            path = (
                Path(path).relative_to(self._folder.resolve()).as_posix()
                if inside and self._folder
                else Path(path).name
            )
        plain = without_suffix(path).strip("/ ")
        if not plain or ".." in plain.split("/"):
            return None
        return plain if plain.startswith(f"{self._split}/") else f"{self._split}/{plain}"


def chunks_of(table: datasets.Dataset, column: str) -> Iterator[pa.Array]:
    """Yield a column in pieces, as it is stored."""
    for batch in table.select_columns([column]).with_format("arrow").iter(_ROWS_AT_ONCE):
        yield from batch.column(0).chunks


def _child(chunk: pa.Array, name: str, length: int) -> list[Any]:
    """Return a field of records, without touching their other fields; null where they have no such field."""
    if not pa.types.is_struct(chunk.type) or chunk.type.get_field_index(name) < 0:
        return [None] * length
    return list(chunk.field(name).to_pylist())
