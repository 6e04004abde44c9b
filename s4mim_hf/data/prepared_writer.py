"""Write a prepared folder: parquet shards in the Hub's layout, a data card, classes.json and splits.json, or nothing.

README.md                              data card, whose header names the splits
classes.json                           {"id2label", "ignore_index", "palette"}
splits.json                            ids of each split, their hash, and how they were made
data/SPLIT-00000-of-00001.parquet      columns id, image, label; the unlabelled split has no label
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.prepared import FORMAT_VERSION, SPLITS, features_of
from s4mim_hf.data.splits import split_hash
from s4mim_hf.errors import InputError

SHARD_BYTES = 500 * 2**20
ROW_GROUP_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Row:
    """One image as it is stored.

    Attributes:
        id: the image's id.
        image: the bytes of the original picture file.
        file_name: the picture file's name, for its suffix.
        label: the bytes of the 8-bit PNG class map; None in the unlabelled split.
    """

    id: str
    image: bytes
    file_name: str
    label: bytes | None = None


@dataclass(frozen=True)
class Description:
    """What is written beside the rows.

    Attributes:
        name: what the data set is called.
        title: its name in prose, for the card.
        classes: class names in the order of their ids.
        palette: a colour for each.
        ignore_index: the id of ignored pixels in the written labels.
        protocol: how the data is evaluated.
        note: licence and citation, for the card.
        origin: how the splits were made: source form, seed, amounts asked for, where validation is from.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    ignore_index: int
    protocol: str
    note: str
    origin: Mapping[str, Any]


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Give a temporary folder beside `output`, which becomes `output` when the block ends well and vanishes otherwise.

    Raises:
        InputError: `output` exists and is not an empty folder, or cannot be written to.
    """
    check_output(output)
    output = output.resolve()
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        yield partial
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(output: Path) -> None:
    """Refuse an output that would overwrite something.

    Raises:
        InputError: `output` is a file or a folder with something in it.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a new folder")
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"--output {output} is not empty; give a new folder, or remove it first")


def write_prepared(
    output: Path, description: Description, ids: Mapping[str, Sequence[str]], rows: Mapping[str, Iterable[Row]]
) -> str:
    """Write a whole prepared folder, or nothing.

    Args:
        output: the folder, which must not exist or be empty.
        description: names, classes and how the splits were made.
        ids: the ids of each of the three splits; an empty split is not written.
        rows: the rows of each split in the order of its ids. They are read once, one at a time.

    Returns:
        The hash of the splits.

    Raises:
        InputError: the output cannot be written.
    """
    digest = split_hash({split: ids[split] for split in SPLITS})
    with (
        new_folder(output) as folder,
        tqdm(total=sum(map(len, ids.values())), desc="writing", unit="img", disable=None) as progress,
    ):
        (folder / "data").mkdir()
        for split in SPLITS:
            if ids[split]:
                write_shards(folder / "data", split, rows[split], progress=progress)
        classes = {
            "id2label": {str(class_id): name for class_id, name in enumerate(description.classes)},
            "ignore_index": description.ignore_index,
            "palette": [list(color) for color in description.palette],
        }
        _write_json(folder / "classes.json", classes)
        _write_json(folder / "splits.json", _splits_record(description, ids, digest))
        (folder / "README.md").write_text(data_card(description, ids, digest), encoding="utf-8")
    return digest


def _splits_record(description: Description, ids: Mapping[str, Sequence[str]], digest: str) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": description.name,
        **description.origin,
        "protocol": description.protocol,
        "counts": {split: len(ids[split]) for split in SPLITS},
        "hash": digest,
        "ids": {split: list(ids[split]) for split in SPLITS},
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_shards(
    folder: Path, split: str, rows: Iterable[Row], shard_bytes: int = SHARD_BYTES, progress: tqdm | None = None
) -> list[Path]:
    """Write one split as parquet files of at most about `shard_bytes`, holding one row group in memory.

    Returns:
        The files, named by the Hub's pattern SPLIT-00000-of-00002.parquet.
    """
    schema = features_of(split, decode=True).arrow_schema
    parts: list[Path] = []
    writer: pq.ParquetWriter | None = None
    written = 0
    for group in _groups(rows, min(ROW_GROUP_BYTES, shard_bytes)):
        size = sum(_row_bytes(row) for row in group)
        if writer is not None and written + size > shard_bytes:
            writer.close()
            writer = None
        if writer is None:
            parts.append(folder / f"{split}-{len(parts):05d}.partial")
            # The pictures are compressed already.
            writer, written = pq.ParquetWriter(parts[-1], schema, compression="none"), 0
        writer.write_table(pa.Table.from_pylist([_as_dict(row) for row in group], schema=schema))
        written += size
        if progress is not None:
            progress.update(len(group))
    if writer is not None:
        writer.close()
    names = [folder / f"{split}-{index:05d}-of-{len(parts):05d}.parquet" for index in range(len(parts))]
    for part, name in zip(parts, names, strict=True):
        part.rename(name)
    return names


def _groups(rows: Iterable[Row], limit: int) -> Iterator[list[Row]]:
    """Yield runs of rows of at most about `limit` bytes, at least one row each."""
    group: list[Row] = []
    size = 0
    for row in rows:
        if group and size + _row_bytes(row) > limit:
            yield group
            group, size = [], 0
        group.append(row)
        size += _row_bytes(row)
    if group:
        yield group


def _row_bytes(row: Row) -> int:
    return len(row.image) + len(row.label or b"")


def _as_dict(row: Row) -> dict[str, Any]:
    columns: dict[str, Any] = {"id": row.id, "image": {"bytes": row.image, "path": row.file_name}}
    if row.label is not None:
        columns["label"] = {"bytes": row.label, "path": None}
    return columns


def data_card(description: Description, ids: Mapping[str, Sequence[str]], digest: str) -> str:
    """Return the README.md of a prepared folder, by whose header `datasets.load_dataset` finds the splits."""
    header = ["---", f"pretty_name: {json.dumps(description.title)}", "task_categories:", "- image-segmentation"]
    header += ["configs:", "- config_name: default", "  data_files:"]
    for split in SPLITS:
        if ids[split]:
            header += [f"  - split: {split}", f"    path: data/{split}-*"]
    # Named here because the unlabelled files have no label column: it is read as null there.
    header += ["dataset_info:", "  features:"]
    for name, feature in features_of("labeled", decode=True).items():
        dtype = "image" if isinstance(feature, datasets.Image) else "string"
        header += [f"  - name: {name}", f"    dtype: {dtype}"]
    header += ["---", ""]
    counts = "\n".join(f"| {split} | {len(ids[split])} |" for split in SPLITS)
    body = f"""# {description.title}

Prepared for semi-supervised semantic segmentation with `scripts/prepare_data.py`.
{description.note}

| split | images |
|---|---|
{counts}

- `image`: the original file.
- `label`: an 8-bit class map of the upright picture's size, {description.ignore_index} = ignored;
  unlabelled images have none.
- Classes: {", ".join(f"{class_id} {name}" for class_id, name in enumerate(description.classes))}.
- Evaluation: {description.protocol}.
- Split hash: `{digest}` (ids and how they were chosen: `splits.json`).
"""
    return "\n".join(header) + body
