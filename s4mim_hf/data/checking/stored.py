"""Read a prepared folder to its last byte, and say where it is not what its records promise.

K is the number of classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s4mim_hf.data.checking.counts import SplitNumbers
from s4mim_hf.data.checking.pictures import StoredSample
from s4mim_hf.data.prepared import FORMAT_VERSION, SPLITS, ShardRecord, SplitStatistics, features_of
from s4mim_hf.data.prepared.loading import read_json
from s4mim_hf.data.prepared.shard_files import changed_content, shard_files
from s4mim_hf.data.sources.base import IGNORE_INDEX
from s4mim_hf.data.splits import split_hash
from s4mim_hf.errors import InputError, some

# Rows in memory at once, beside those that wait for a thread: a picture may have tens of megabytes.
_ROWS_AT_ONCE = 4
# Bytes of a column that are read at once; without it, all images of a row group are.
_BUFFER = 2**20


@dataclass(frozen=True)
class Record:
    """What splits.json and classes.json say.

    Attributes:
        name: what the data set is called.
        classes: class names by their ids.
        ids: the ids of each split.
        split_hash: their hash, as it is written.
        shards: the files of each split; None where the folder was written without hashes.
        statistics: of each split that is not empty; None where there are none.
        max_side: the longest side that a stored picture may have.
        problems: what is wrong with the records themselves.
    """

    name: str
    classes: tuple[str, ...]
    ids: Mapping[str, Sequence[str]]
    split_hash: str
    shards: Mapping[str, Sequence[ShardRecord]] | None
    statistics: Mapping[str, SplitStatistics] | None
    max_side: int | None
    problems: Sequence[str]


def read_record(folder: Path) -> Record:
    """Read both records of a prepared folder.

    Raises:
        InputError: one is missing, or so broken that there is nothing to compare the images with.
    """
    splits, classes = read_json(folder / "splits.json"), read_json(folder / "classes.json")
    try:
        version = splits["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"{folder} has format {version!r}, but {FORMAT_VERSION} is read here; prepare it again")
        ids = {split: [str(image_id) for image_id in splits["ids"][split]] for split in SPLITS}
        shards, statistics = splits.get("shards"), splits.get("statistics")
        return Record(
            name=str(splits["name"]),
            classes=tuple(str(name) for _, name in sorted(classes["id2label"].items(), key=lambda item: int(item[0]))),
            ids=ids,
            split_hash=str(splits["hash"]),
            shards=shards and {split: [ShardRecord.from_dict(each) for each in shards[split]] for split in SPLITS},
            statistics=statistics and {key: SplitStatistics.from_dict(each) for key, each in statistics.items()},
            max_side=None if splits.get("max_side") is None else int(splits["max_side"]),
            problems=_problems_of_records(folder, splits, classes, ids),
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: splits.json or classes.json lacks what was written ({error!r})") from None


def _problems_of_records(
    folder: Path, splits: Mapping[str, Any], classes: Mapping[str, Any], ids: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return what contradicts itself in the two records."""
    problems = []
    count = len(classes["id2label"])
    if {int(class_id) for class_id in classes["id2label"]} != set(range(count)):
        listed = some(map(str, classes["id2label"]), 8)
        problems.append(f"{folder / 'classes.json'} names the ids {listed}; expected 0 to {count - 1}")
    if len(classes["palette"]) != count:
        problems.append(f"{folder / 'classes.json'} has {len(classes['palette'])} colours for {count} classes")
    if classes["ignore_index"] != IGNORE_INDEX:
        problems.append(
            f"{folder / 'classes.json'}: ignore_index is {classes['ignore_index']!r}, but training ignores "
            f"{IGNORE_INDEX} only; prepare the data again"
        )
    if split_hash(ids) != splits["hash"]:
        problems.append(f"{folder / 'splits.json'}: its hash is not that of the ids in it; prepare the data again")
    for split in SPLITS:
        if splits["counts"][split] != len(ids[split]):
            listed = f"counts {splits['counts'][split]} {split} images and lists {len(ids[split])}"
            problems.append(f"{folder / 'splits.json'} {listed}; prepare the data again")
    return problems


class StoredSamples:
    """The rows of a prepared folder, read once.

    Args:
        folder: the prepared folder.
        record: what it should hold.

    Attributes:
        problems: what was found to be wrong with the files so far.
    """

    def __init__(self, folder: Path, record: Record) -> None:
        self._folder, self._record = folder, record
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[StoredSample]:
        """Yield all rows that can be read; what cannot is noted in `problems`."""
        found: dict[str, list[str]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            for file in self._files(split):
                for sample in self._rows(split, file):
                    found[split].append(sample.id)
                    yield sample
            self._compare(split, found[split])
        self._find_doubled(found)

    def _files(self, split: str) -> list[Path]:
        """Return the files of a split that are there, once they are compared with splits.json."""
        records = None if self._record.shards is None else self._record.shards[split]
        try:
            files = shard_files(self._folder, split, records)
        except InputError as error:
            self.problems.append(str(error))
            files = sorted((self._folder / "data").glob(f"{split}-*.parquet"))
            # Of a file of another size it is known already that its content is not what was written.
            sizes = {file: file.stat().st_size for file in files}
            records = [record for record in records or () if sizes.get(self._folder / record.file) == record.bytes]
        for file in changed_content(self._folder, records or ()):
            self.problems.append(
                f"{self._folder / file} has not the sha256 that splits.json says: its content was changed; prepare or "
                "fetch the data again"
            )
        return files

    def _rows(self, split: str, file: Path) -> Iterator[StoredSample]:
        """Yield the rows of a file up to the first that cannot be read."""
        expected = set(features_of(split))
        try:
            with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER) as table:
                columns = set(table.schema_arrow.names)
                if columns != expected:
                    self.problems.append(
                        f"{file} has the columns {', '.join(sorted(columns))}, but {split} images have "
                        f"{', '.join(sorted(expected))}; prepare the data again"
                    )
                if {"id", "image"} <= columns:
                    yield from _rows_of(table, split, sorted(columns & expected))
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            self.problems.append(f"{file} cannot be read: {reason}; prepare or fetch the data again")

    def _compare(self, split: str, found: Sequence[str]) -> None:
        """Compare the ids of the rows that were found with those that are listed."""
        listed = self._record.ids[split]
        odd = Counter(found)
        odd.subtract(listed)
        missing = [image_id for image_id, count in odd.items() if count < 0]
        extra = [image_id for image_id, count in odd.items() if count > 0]
        for names, what in ((missing, "lists {} that are not in its files"), (extra, "does not list {} of its files")):
            if names:
                said = what.format(f"{len(names)} {split} images")
                self.problems.append(f"{self._folder / 'splits.json'} {said}: {some(names)}; prepare the data again")

    def _find_doubled(self, found: Mapping[str, Sequence[str]]) -> None:
        """Find ids that are in two splits, or twice in one."""
        counts: Counter[str] = Counter()
        for split in SPLITS:
            counts.update(found[split])
        doubled = [image_id for image_id, count in counts.items() if count > 1]
        if doubled:
            self.problems.append(
                f"{len(doubled)} ids are in the splits more than once: {some(doubled)}; prepare the data again"
            )


def _rows_of(table: pq.ParquetFile, split: str, columns: Sequence[str]) -> Iterator[StoredSample]:
    # One row group after another: an iterator over all of them holds several.
    for group in range(table.num_row_groups):
        for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False):
            for row in batch.to_pylist():
                yield StoredSample(split, str(row["id"]), _bytes_of(row["image"]), _bytes_of(row.get("label")))


def _bytes_of(cell: Any) -> bytes | None:
    """Return the bytes in a cell of a picture column."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) and content else None


def compare_with_record(record: Record, numbers: Mapping[str, SplitNumbers], where: Path) -> list[str]:
    """Return where the images are not what splits.json tells about them."""
    problems = []
    for split, counted in numbers.items():
        told = None if record.statistics is None else record.statistics.get(split)
        # What is lost or cannot be decoded is missing from the numbers, and is told anyway.
        whole = counted.images == len(record.ids[split]) and not counted.failures
        if told is not None and whole and told != counted.statistics(len(record.classes)):
            problems.append(
                f"{where / 'splits.json'}: its statistics of the {split} images are not what was counted; prepare the "
                "data again"
            )
        larger = 0 if record.max_side is None else int((counted.long_sides > record.max_side).sum())
        if larger:
            problems.append(
                f"{larger} {split} images have a side longer than {record.max_side}, the --max-side that splits.json "
                "says; prepare the data again"
            )
    return problems
