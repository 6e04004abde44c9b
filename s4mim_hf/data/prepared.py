"""Read what `scripts/prepare_data.py` wrote: three splits of undecoded images with their classes and hash.

Shapes: H, W are an image's height and width after its EXIF orientation is applied.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.splits import split_hash
from s4mim_hf.errors import InputError, nearest, some

SPLITS = ("labeled", "unlabeled", "validation")
FORMAT_VERSION = 1
SYNTHETIC = "synthetic"
SYNTHETIC_PROTOCOL = "whole image at original size, mean IoU over all classes, outlines (255) ignored"
_MADE_BY = "scripts/prepare_data.py has written"


@dataclass(frozen=True)
class PreparedData:
    """A data set ready to train and evaluate on.

    Rows of `labeled` and `validation` are `{"id": str, "image": {"bytes"}, "label": {"bytes"}}`; those of `unlabeled`
    have no label. `decode_image` and `decode_label` turn the bytes into arrays.

    Attributes:
        name: what the data set is called, such as "camvid".
        path: the prepared folder, or "synthetic:SEED" or "synthetic:SEED:all" for the embedded data.
        labeled: the labelled images.
        unlabeled: the images without labels, or None where there are none.
        validation: the labelled images kept aside, or None where there are none.
        id2label: name of each class, for the ids 0 .. K-1.
        palette: colour of each class, (R, G, B) in 0 .. 255.
        ignore_index: the id of pixels that no loss and no score counts.
        split_hash: sha256 over the ids of each split (`s4mim_hf.data.splits.split_hash`).
        protocol: how the data is evaluated, in words.
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


def decode_image(data: bytes) -> np.ndarray:
    """Decode a picture to uint8 (H, W, 3) RGB in 0 .. 255, turned as its EXIF orientation says.

    Grey and palette pictures become RGB, transparency is dropped, and 16-bit grey is scaled to 8 bits.

    Raises:
        OSError: the bytes are no whole picture that Pillow can read.
    """
    with Image.open(io.BytesIO(data)) as image:
        turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns 16-bit grey into white.
        grey = np.asarray(turned).astype(np.int64)
        deep = turned.mode.startswith("I;16") or grey.max(initial=0) > 255
        turned = Image.fromarray((grey >> 8 if deep else grey).clip(0, 255).astype(np.uint8))
    return np.array(turned.convert("RGB"))


def decode_label(data: bytes) -> np.ndarray:
    """Decode a class map to uint8 (H, W): ids 0 .. K-1, and the ignore id.

    Palette pictures give their ids, not their colours. EXIF orientation is not applied: prepared labels have none.

    Raises:
        OSError: the bytes are no whole picture that Pillow can read.
        ValueError: the picture has no single integer channel.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"a prepared label is an 8-bit class map, but this one has mode {image.mode!r}")
        return np.array(image)


def features_of(split: str, decode: bool = False) -> datasets.Features:
    """Return the columns of a split; the unlabelled one has no label.

    Args:
        split: "labeled", "unlabeled" or "validation".
        decode: whether rows give pictures or their undecoded bytes.
    """
    columns = {"id": datasets.Value("string"), "image": datasets.Image(decode=decode)}
    if split != "unlabeled":
        columns["label"] = datasets.Image(decode=decode)
    return datasets.Features(columns)


def load_prepared(path: str | Path) -> PreparedData:
    """Load a prepared folder, or the embedded data where `path` is "synthetic" or "synthetic:SEED".

    "synthetic:SEED:all" is the embedded data with the labels of all its training scenes, and no unlabelled ones.
    The files' ids are compared with splits.json; images are not decoded.

    Raises:
        InputError: the folder is missing, is no prepared folder, or does not hold what its splits.json says.
    """
    if str(path) == SYNTHETIC or str(path).startswith(f"{SYNTHETIC}:"):
        return _load_synthetic(str(path))
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}{nearest(str(path), [SYNTHETIC])}; give one that {_MADE_BY}")
    record = _read_json(folder / "splits.json")
    classes = _read_json(folder / "classes.json")
    try:
        version = record["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"{folder} has format {version!r}, but {FORMAT_VERSION} is read here; prepare it again")
        listed = {split: [str(image_id) for image_id in record["ids"][split]] for split in SPLITS}
        files = {split: _checked_files(folder, split, listed[split], record["counts"][split]) for split in SPLITS}
        if split_hash(listed) != record["hash"]:
            raise InputError(f"{folder}: the hash of splits.json is not that of the ids in it; prepare the data again")
        id2label = {int(class_id): str(name) for class_id, name in classes["id2label"].items()}
        palette = tuple((int(red), int(green), int(blue)) for red, green, blue in classes["palette"])
        ignore_index, name, protocol = int(classes["ignore_index"]), str(record["name"]), str(record["protocol"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: splits.json or classes.json lacks what was written ({error!r})") from None
    splits = {split: _read_parquet(files[split], split) for split in SPLITS}
    if splits["labeled"] is None:
        raise InputError(f"{folder} has no labelled images; prepare it again with some")
    return PreparedData(
        name, str(folder), splits["labeled"], splits["unlabeled"], splits["validation"],
        id2label, palette, ignore_index, record["hash"], protocol,
    )  # fmt: skip


def _read_json(path: Path) -> dict[str, Any]:
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


def _checked_files(folder: Path, split: str, listed: list[str], count: int) -> list[str]:
    """Return the parquet files of a split, in order, once their ids are those of splits.json.

    Raises:
        InputError: a file cannot be read, or the counts or ids differ.
    """
    files = sorted(str(path) for path in (folder / "data").glob(f"{split}-*.parquet"))
    found: list[str] = []
    for file in files:
        try:
            found += pq.read_table(file, columns=["id"]).column("id").to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            raise InputError(f"{file} cannot be read: {error}; prepare the data again") from None
    if not len(found) == len(listed) == count:
        raise InputError(
            f"{folder}: the {split} split has {len(found)} images, but splits.json lists {len(listed)} and counts "
            f"{count}; prepare the data again"
        )
    if sorted(found) != sorted(listed):
        odd = sorted(set(found) ^ set(listed))
        raise InputError(f"{folder}: the {split} split and splits.json differ in ids ({some(odd)}); prepare it again")
    return files


def _read_parquet(files: list[str], split: str) -> datasets.Dataset | None:
    if not files:
        return None
    name = datasets.NamedSplit(split)
    return datasets.Dataset.from_parquet(files, split=name, features=features_of(split))


def _load_synthetic(path: str) -> PreparedData:
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
        unlabeled=made["unlabeled"],
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
