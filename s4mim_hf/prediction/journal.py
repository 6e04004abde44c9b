"""Rows of one part, on the disk as soon as a batch is predicted: whoever is killed loses the batch at hand.

FOLDER/00003.0.arrows    rows of part 3, as far as its first call came; 00003.1.arrows those of the next call
FOLDER/00003.json        the part is finished: its summary

Rows are appended to a stream of Arrow record batches, of which one that is cut short is not read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from s4mim_hf.prediction.summary import Summary

NUMBER = "number"


class Journal:
    """The rows of one part.

    Args:
        folder: where journals lie.
        part: the part's number.
        schema: of the rows; it has an int64 column `number`, the image's in its part.

    Raises:
        OSError: (here and in all methods) the folder cannot be read or written.
    """

    def __init__(self, folder: Path, part: int, schema: pa.Schema) -> None:
        self._folder, self._part, self._schema = folder, part, schema
        self._file: BinaryIO | None = None
        self._writer: Any = None

    @property
    def _record(self) -> Path:
        return self._folder / f"{self._part:05d}.json"

    def _files(self) -> list[Path]:
        found = self._folder.glob(f"{self._part:05d}.*.arrows")
        return sorted(found, key=lambda path: int(path.name.split(".")[1]))

    def summary(self) -> Summary | None:
        """Return the summary of a finished part; None: it is not finished."""
        try:
            return Summary.from_dict(json.loads(self._record.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, and wait until the operating system has them."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Never to the end of another call's file, which may be cut short.
            number = max([int(path.name.split(".")[1]) for path in self._files()], default=-1) + 1
            self._file = (self._folder / f"{self._part:05d}.{number}.arrows").open("wb")
            self._writer = pa.ipc.new_stream(self._file, self._schema)
        self._writer.write_batch(pa.RecordBatch.from_pylist(list(rows), schema=self._schema))
        self._file.flush()

    def close(self) -> None:
        """Write no more rows for now."""
        if self._file is not None:
            # What cannot be written any more on a full disk is the end mark, which nobody needs.
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
            with suppress(OSError):
                self._file.close()
            self._file = self._writer = None

    def table(self) -> pa.Table:
        """Return all rows in the order of writing, mapped into memory: pictures stay on the disk until used."""
        batches = [batch for path in self._files() for batch in _batches(path)]
        return pa.Table.from_batches(batches, schema=self._schema)

    def finish(self, summary: Summary) -> None:
        """Write down that the part is finished."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._record.with_suffix(".partial")
        partial.write_text(json.dumps(vars(summary)), encoding="utf-8")
        os.replace(partial, self._record)

    def remove_rows(self) -> None:
        """Let go of the rows."""
        self.close()
        for path in self._files():
            path.unlink()


def _batches(path: Path) -> list[pa.RecordBatch]:
    found: list[pa.RecordBatch] = []
    if path.stat().st_size == 0:
        return found
    # A call that was killed: what is whole counts.
    with suppress(pa.ArrowInvalid, OSError, EOFError):
        reader = pa.ipc.open_stream(pa.memory_map(str(path)))
        while True:
            try:
                found.append(reader.read_next_batch())
            except StopIteration:
                break
    return found
