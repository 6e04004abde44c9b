"""From rows to a prepared folder: read ahead, write shard after shard, then what stands beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from s4mim_hf.data.prepared.record import FORMAT_VERSION, SPLITS, ShardRecord, SplitStatistics
from s4mim_hf.data.prepared_writer.card import data_card
from s4mim_hf.data.prepared_writer.partial import FinishedShard, PartialFolder, partial_folder
from s4mim_hf.data.prepared_writer.reading import Reader, rows_in_order
from s4mim_hf.data.prepared_writer.rows import Description, Row, Written
from s4mim_hf.data.prepared_writer.shards import ShardWriter, row_bytes
from s4mim_hf.data.splits import split_hash

SHARD_BYTES = 500 * 2**20


def write_prepared(
    output: Path,
    description: Description,
    ids: Mapping[str, Sequence[str]],
    read: Reader,
    *,
    fingerprint: str,
    say: Callable[[str], None],
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """Write a whole prepared folder, or nothing that could be taken for one.

    Memory: the ids, a bounded number of rows, and one row group. A call that is killed or finds the disk full leaves
    `.NAME.partial` beside the output; the next one with the same arguments goes on after its last finished shard.

    Args:
        output: the folder, which must not exist or be empty.
        description: names, classes and how the splits were made.
        ids: the ids of each of the three splits; an empty split is not written.
        read: returns the row of a split with a number; called in several threads. It raises `SampleError` for a
            picture or label that cannot be used.
        fingerprint: of the raw data: another one means that finished shards of an interrupted call are of no use.
        say: called with each thing that a person should know, one sentence at a time.
        shard_bytes: the most that one file may hold of pictures and labels, unless a single row is larger.

    Raises:
        BadSamples: some pictures or labels cannot be used; all of them have been looked at, and nothing is left.
        InputError: the output is not empty, cannot be written, or is being written by another process.
    """
    digest = split_hash({split: ids[split] for split in SPLITS})
    whole = _fingerprint(fingerprint, description, ids, shard_bytes)
    with partial_folder(output, whole, say) as partial:
        done, total = partial.rows(), sum(len(ids[split]) for split in SPLITS)
        with (
            tqdm(total=total, initial=done, desc="writing", unit="img", disable=None) as progress,
            # Closed at once where writing fails: the threads would read on meanwhile.
            closing(rows_in_order(read, ids, _missing(partial, ids), progress.update)) as rows,
        ):
            _write_shards(partial, rows, len(description.classes), shard_bytes)
        assert partial.rows() == total
        statistics = _statistics(partial, len(description.classes))
        _write_beside(partial, description, ids, digest, statistics)
    return Written(digest, statistics)


def _fingerprint(raw: str, description: Description, ids: Mapping[str, Sequence[str]], shard_bytes: int) -> str:
    """Return sha256 over all that the shards and what stands beside them depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, raw, asdict(description), shard_bytes]).encode())
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        for image_id in ids[split]:
            digest.update(f"{image_id}\n".encode())
    return digest.hexdigest()


def _missing(partial: PartialFolder, ids: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, int]]:
    """Yield the rows that no finished shard has."""
    for split, done in {split: partial.rows(split) for split in SPLITS}.items():
        yield from ((split, index) for index in range(done, len(ids[split])))


def _write_shards(partial: PartialFolder, rows: Iterator[tuple[str, Row]], classes: int, shard_bytes: int) -> None:
    """Write rows as files of at most about `shard_bytes`."""
    writer: ShardWriter | None = None
    try:
        for split, row in rows:
            if writer is not None and (writer.split != split or writer.size + row_bytes(row) > shard_bytes):
                _finish(partial, writer)
                writer = None
            if writer is None:
                writer = ShardWriter(partial.path, partial.shard_file(split), split, classes)
            writer.add(row)
        if writer is not None:
            _finish(partial, writer)
            writer = None
    finally:
        if writer is not None:
            writer.abandon()


def _finish(partial: PartialFolder, writer: ShardWriter) -> None:
    partial.finish(FinishedShard(writer.split, writer.close(), writer.statistics))


def _statistics(partial: PartialFolder, classes: int) -> dict[str, SplitStatistics]:
    """Return the statistics of each split that has rows."""
    found: dict[str, SplitStatistics] = {}
    for shard in partial.finished:
        found.setdefault(shard.split, SplitStatistics.empty(classes)).merge(shard.statistics)
    return found


def _write_beside(
    partial: PartialFolder,
    description: Description,
    ids: Mapping[str, Sequence[str]],
    digest: str,
    statistics: Mapping[str, SplitStatistics],
) -> None:
    """Number the shards, and write classes.json, splits.json and the card."""
    shards = partial.number_shards()
    classes = {
        "id2label": {str(class_id): name for class_id, name in enumerate(description.classes)},
        "ignore_index": description.ignore_index,
        "palette": [list(color) for color in description.palette],
    }
    _write_json(partial.path / "classes.json", classes)
    _write_json(partial.path / "splits.json", _record(description, ids, digest, statistics, shards))
    card = data_card(description, statistics, shards, digest)
    (partial.path / "README.md").write_text(card, encoding="utf-8")


def _record(
    description: Description,
    ids: Mapping[str, Sequence[str]],
    digest: str,
    statistics: Mapping[str, SplitStatistics],
    shards: Mapping[str, Sequence[ShardRecord]],
) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": description.name,
        **description.origin,
        "protocol": description.protocol_as_stored,
        "max_side": description.max_side,
        "counts": {split: len(ids[split]) for split in SPLITS},
        "hash": digest,
        "statistics": {split: numbers.to_dict() for split, numbers in statistics.items()},
        "shards": {split: [record.to_dict() for record in records] for split, records in shards.items()},
        "ids": {split: list(ids[split]) for split in SPLITS},
    }


def _write_json(path: Path, content: Any) -> None:
    # Written as it is encoded: the ids of hundreds of thousands of images are one text otherwise.
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
