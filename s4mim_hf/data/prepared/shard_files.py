"""The parquet files of a prepared folder against what its splits.json says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from s4mim_hf.data.prepared.record import ShardRecord
from s4mim_hf.errors import InputError


def shard_files(folder: Path, split: str, records: Sequence[ShardRecord] | None) -> list[Path]:
    """Return the parquet files of a split, in order, once they are those that were written, by name and size.

    Args:
        folder: the prepared folder.
        split: "labeled", "unlabeled" or "validation".
        records: what splits.json says of them; None where it was written without, and the files are what is there.

    Raises:
        InputError: a file is missing, has another size, or is one too many.
    """
    present = sorted((folder / "data").glob(f"{split}-*.parquet"))
    if records is None:
        return present
    files = [folder / record.file for record in records]
    for file, record in zip(files, records, strict=True):
        if not file.is_file():
            raise InputError(f"{file} is missing, one of {len(files)} {split} files; prepare or fetch the data again")
        size = file.stat().st_size
        if size != record.bytes:
            how = "it was cut short" if size < record.bytes else "it was replaced"
            raise InputError(
                f"{file} has {size} bytes where splits.json says {record.bytes}: {how}; prepare or fetch the data again"
            )
    odd = sorted(set(present) - set(files))
    if odd:
        raise InputError(f"{odd[0]} is not one of the {len(files)} {split} files that splits.json names; remove it")
    return files


def read_ids(files: Iterable[Path]) -> list[str]:
    """Read the ids of parquet files, and nothing else of them.

    Raises:
        InputError: a file cannot be read.
    """
    found: list[str] = []
    for file in files:
        try:
            found += pq.read_table(file, columns=["id"]).column("id").to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{file} cannot be read: {reason}; prepare or fetch the data again") from None
    return found


def changed_content(folder: Path, records: Iterable[ShardRecord]) -> list[str]:
    """Read every file whole, and return the names of those whose content is not what was written.

    Args:
        folder: the prepared folder.
        records: what splits.json says of its files.

    Raises:
        OSError: a file cannot be read.
    """
    changed = []
    for record in records:
        with (folder / record.file).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
                changed.append(record.file)
    return changed
