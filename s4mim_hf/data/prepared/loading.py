"""Load a prepared folder, a prepared data set of the Hub, or the embedded data, and hold it against its record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.prepared.download import HUB_PREFIX, download_prepared
from s4mim_hf.data.prepared.record import (
    FORMAT_VERSION,
    SPLITS,
    SYNTHETIC,
    SYNTHETIC_PROTOCOL,
    ShardRecord,
    SplitStatistics,
    features_of,
)
from s4mim_hf.data.prepared.shard_files import read_ids, shard_files
from s4mim_hf.data.splits import split_hash
from s4mim_hf.errors import InputError, nearest, some

_MADE_BY = "scripts/prepare_data.py has written"


@dataclass(frozen=True)
class PreparedData:
    """A data set ready to train and evaluate on.

    Rows of `labeled` and `validation` are `{"id": str, "image": {"bytes"}, "label": {"bytes"}}`; those of `unlabeled`
    have no label. `decode_image` and `decode_label` turn the bytes into arrays.

    Attributes:
        name: what the data set is called, such as "camvid".
        path: what it was loaded by: the prepared folder, "hf://datasets/USER/NAME", or for the embedded data
            "synthetic:SEED" or "synthetic:SEED:all".
        labeled: the labelled images.
        unlabeled: the images without labels, or None where there are none, or where they were not asked for.
        validation: the labelled images kept aside, or None where there are none.
        id2label: name of each class, for the ids 0 .. K-1.
        palette: colour of each class, (R, G, B) in 0 .. 255.
        ignore_index: the id of pixels that no loss and no score counts.
        split_hash: sha256 over the ids of each split (`s4mim_hf.data.splits.split_hash`).
        protocol: how the data is evaluated, in words.
        max_side: the longest side that a picture was allowed to keep when it was stored; None: pictures are as they
            were.
        statistics: each split that is not empty in numbers; None where none were written.
        shards: the parquet files of each split, in order; none for the embedded data.
    """

    name: str
    path: str
    labeled: datasets.Dataset
    unlabeled: datasets.Dataset | None
    validation: datasets.Dataset | None
    id2label: dict[int, str]
    palette: tuple[Color, ...]
    ignore_index: int
    split_hash: str
    protocol: str
    max_side: int | None = None
    statistics: Mapping[str, SplitStatistics] | None = None
    shards: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    @property
    def content_hash(self) -> str | None:
        """A sha256 in hex over the ids, the classes, and each split in numbers; None where these were not written.

        The same wherever the data lies and whatever version wrote it; another where masks were corrected so that a
        class has other pixels in all, or pictures were stored in another size. Two masks that have changed places, or
        a picture of the same size in place of another, are not seen.
        """
        if self.statistics is None:
            return None
        statistics = {split: found.to_dict() for split, found in sorted(self.statistics.items())}
        known = [self.split_hash, sorted(self.id2label.items()), self.ignore_index, self.max_side, statistics]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def load_prepared(path: str | Path, *, unlabeled: bool = True) -> PreparedData:
    """Load prepared data. Its files and their ids are compared with splits.json; images are not decoded.

    `datasets` keeps a copy of what is loaded in its cache, as large as the files.

    Args:
        path: a prepared folder; "hf://datasets/USER/NAME" or "hf://datasets/USER/NAME@REVISION", which is downloaded;
            or the embedded data as "synthetic" or "synthetic:SEED" ("synthetic:SEED:all": with the labels of all its
            training scenes, and no unlabelled ones).
        unlabeled: whether to load the unlabelled images. Where not, their files are not opened, and not downloaded;
            `shards` names those of a folder all the same.

    Raises:
        InputError: the folder is missing, is no prepared folder, or does not hold what its splits.json says; the data
            set cannot be downloaded.
    """
    text = str(path)
    if text == SYNTHETIC or text.startswith(f"{SYNTHETIC}:"):
        return _load_synthetic(text, unlabeled)
    if text.startswith(HUB_PREFIX):
        folder = download_prepared(text, unlabeled=unlabeled)
    else:
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}{nearest(text, [SYNTHETIC])}; give one that {_MADE_BY}")
    wanted = [split for split in SPLITS if unlabeled or split != "unlabeled"]
    return _load_folder(text, folder, wanted)


def _load_folder(path: str, folder: Path, wanted: Sequence[str]) -> PreparedData:
    record = read_json(folder / "splits.json")
    classes = read_json(folder / "classes.json")
    try:
        version = record["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"{folder} has format {version!r}, but {FORMAT_VERSION} is read here; prepare it again")
        listed = {split: [str(image_id) for image_id in record["ids"][split]] for split in SPLITS}
        present = wanted if path.startswith(HUB_PREFIX) else SPLITS
        files = {split: shard_files(folder, split, _shard_records(record, split)) for split in present}
        for split in wanted:
            _check_ids(folder, split, files[split], listed[split], record["counts"][split])
        if split_hash(listed) != record["hash"]:
            raise InputError(f"{folder}: the hash of splits.json is not that of the ids in it; prepare the data again")
        id2label = {int(class_id): str(name) for class_id, name in classes["id2label"].items()}
        palette = tuple((int(red), int(green), int(blue)) for red, green, blue in classes["palette"])
        ignore_index, name, protocol = int(classes["ignore_index"]), str(record["name"]), str(record["protocol"])
        # Folders that were written before these existed have none of them.
        max_side = None if record.get("max_side") is None else int(record["max_side"])
        statistics = _statistics(record.get("statistics"))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: splits.json or classes.json lacks what was written ({error!r})") from None
    splits = {split: _read_parquet(files[split] if split in wanted else [], split) for split in SPLITS}
    if splits["labeled"] is None:
        raise InputError(f"{folder} has no labelled images; prepare it again with some")
    return PreparedData(
        name, path, splits["labeled"], splits["unlabeled"], splits["validation"],
        id2label, palette, ignore_index, record["hash"], protocol, max_side, statistics, files,
    )  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the two records of a prepared folder.

    Raises:
        InputError: it is missing, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} has no {path.name}: it is no folder that {_MADE_BY}; prepare it first"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; prepare the data again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no table of keys and values; prepare the data again")
    return content


def _shard_records(record: Mapping[str, Any], split: str) -> list[ShardRecord] | None:
    """Return what splits.json says of a split's files; None where it was written without."""
    return [ShardRecord.from_dict(shard) for shard in record["shards"][split]] if "shards" in record else None


def _statistics(content: Mapping[str, Any] | None) -> dict[str, SplitStatistics] | None:
    if content is None:
        return None
    return {str(split): SplitStatistics.from_dict(numbers) for split, numbers in content.items()}


def _check_ids(folder: Path, split: str, files: Iterable[Path], listed: list[str], count: int) -> None:
    """Compare the ids in a split's files with those of splits.json.

    Raises:
        InputError: a file cannot be read, or the counts or ids differ.
    """
    found = read_ids(files)
    if not len(found) == len(listed) == count:
        raise InputError(
            f"{folder}: the {split} split has {len(found)} images, but splits.json lists {len(listed)} and counts "
            f"{count}; prepare the data again"
        )
    if found != listed and sorted(found) != sorted(listed):
        odd = sorted(set(found) ^ set(listed))
        raise InputError(f"{folder}: the {split} split and splits.json differ in ids ({some(odd)}); prepare it again")


def _read_parquet(files: Sequence[Path], split: str) -> datasets.Dataset | None:
    """Open a split by `datasets`, which copies it into its cache once, in a form that is mapped into memory.

    Raises:
        InputError: a file holds something else than it says, or there is no room for the copy.
    """
    if not files:
        return None
    name, paths = datasets.NamedSplit(split), [str(file) for file in files]
    try:
        return datasets.Dataset.from_parquet(paths, split=name, features=features_of(split))
    except (OSError, DatasetGenerationError) as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())
        streaming = ", or stream them with data.unlabeled.streaming=true" if split == "unlabeled" else ""
        raise InputError(
            f"the {split} images of {files[0].parent} cannot be copied to the cache {datasets.config.HF_DATASETS_CACHE}"
            f": {reason}; make room there or name another folder by HF_DATASETS_CACHE{streaming}"
        ) from None


def _load_synthetic(path: str, unlabeled: bool) -> PreparedData:
    """Render the embedded data for "synthetic", "synthetic:SEED" or "synthetic:SEED:all" in memory."""
    # Imported here: the synthetic data needs nothing else of this file's users, and real data needs none of it.
    from s4mim_hf.data.synthetic import CLASSES, PALETTE, synthetic_splits

    _, colon, rest = path.partition(":")
    seed, labels, all_labels = rest.partition(":")
    if (colon and not seed.isdecimal()) or (labels and all_labels != "all"):
        raise InputError(
            f"{path!r}: the embedded data is called {SYNTHETIC!r}, '{SYNTHETIC}:SEED' or '{SYNTHETIC}:SEED:all', SEED "
            "a number"
        )
    rows = synthetic_splits(int(seed or 0), all_labels=bool(labels))
    made = {split: _from_rows(rows[split], split) if rows[split] else None for split in SPLITS}
    assert made["labeled"] is not None
    return PreparedData(
        name=SYNTHETIC,
        path=path,
        labeled=made["labeled"],
        unlabeled=made["unlabeled"] if unlabeled else None,
        validation=made["validation"],
        id2label=dict(enumerate(CLASSES)),
        palette=tuple(PALETTE),
        ignore_index=255,
        split_hash=split_hash({split: [row["id"] for row in rows[split]] for split in SPLITS}),
        protocol=SYNTHETIC_PROTOCOL,
    )


def _from_rows(rows: Sequence[Mapping[str, Any]], split: str) -> datasets.Dataset:
    """Build a data set in memory of rows {"id", "image": bytes, "label": bytes}; unlabelled rows lose their label."""
    features = features_of(split)
    columns: dict[str, list[Any]] = {"id": [row["id"] for row in rows]}
    for name in features:
        if name != "id":
            columns[name] = [{"bytes": row[name], "path": None} for row in rows]
    return datasets.Dataset.from_dict(columns, features=features, split=datasets.NamedSplit(split))
