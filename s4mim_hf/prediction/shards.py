"""Predictions as a data set: parquet shards with masks and confidence maps, which `datasets.load_dataset` reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s4mim_hf.data.catalog import Color
from s4mim_hf.prediction.journal import NUMBER
from s4mim_hf.prediction.pictures import QUANTISATION, confidence_picture, encoded, mask_picture
from s4mim_hf.prediction.predictor import Prediction
from s4mim_hf.prediction.summary import Summary

SPLIT = "train"
# A reader of parquet holds one row group, and reads all of it for a single row of it.
_GROUP_BYTES = 4 * 2**20
_GROUP_ROWS = 1000
_FEATURES = datasets.Features(
    {
        "name": datasets.Value("string"),
        "height": datasets.Value("int32"),
        "width": datasets.Value("int32"),
        "mask": datasets.Image(),
        "confidence": datasets.Image(),
        "mean_confidence": datasets.Value("float64"),
    }
)


class PredictionShards:
    """data/train-00003-of-00064.parquet for each part: name, height, width, mask, confidence, mean_confidence.

    Args:
        output: the folder.
        parts: how many there are.
        palette: class colours of the masks.
    """

    # What is in a shard need not be in the journal as well.
    stay = False
    schema = pa.schema(
        [*_FEATURES.arrow_schema, pa.field(NUMBER, pa.int64()), pa.field("pixels", pa.list_(pa.int64()))]
    )

    def __init__(self, output: Path, parts: int, palette: Sequence[Color]) -> None:
        self._folder, self._parts, self._palette = output / "data", parts, palette

    def row(self, found: Prediction) -> Mapping[str, Any]:
        """Return the columns of a prediction that others do not have."""
        return {
            "name": found.image.name,
            "height": found.label.shape[0],
            "width": found.label.shape[1],
            "mask": {"bytes": encoded(mask_picture(found.label, self._palette)), "path": None},
            "confidence": {"bytes": encoded(confidence_picture(found.confidence)), "path": None},
        }

    def is_published(self, part: int, count: int) -> bool:
        """Say whether a part's shard is there, with so many rows; one that cannot be read is none."""
        try:
            return pq.read_metadata(self._path(part)).num_rows == count
        except (OSError, pa.ArrowException):
            return False

    def publish(self, part: int, rows: pa.Table) -> None:
        """Write a part's shard, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        path = self._path(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        schema = _FEATURES.arrow_schema
        try:
            # The pictures are compressed already, and each is its own.
            with partial.open("wb") as file:
                with pq.ParquetWriter(
                    file, schema, compression="none", use_dictionary=False, write_statistics=["name"]
                ) as writer:
                    for group in _groups(rows):
                        writer.write_table(group.select(schema.names).cast(schema))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _path(self, part: int) -> Path:
        return self._folder / f"{SPLIT}-{part:05d}-of-{self._parts:05d}.parquet"


def _groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield rows by their numbers, a few megabytes at once: the table is mapped, and copied only here."""
    order = np.asarray(pc.sort_indices(rows, sort_keys=[(NUMBER, "ascending")]))
    group: list[int] = []
    size = 0
    for index in order.tolist():
        row = sum(len(rows[column][index]["bytes"].as_buffer() or b"") for column in ("mask", "confidence"))
        if group and (size + row > _GROUP_BYTES or len(group) == _GROUP_ROWS):
            yield rows.take(group)
            group, size = [], 0
        group.append(index)
        size += row
    if group:
        yield rows.take(group)


def write_card(
    output: Path,
    summary: Summary,
    settings: Mapping[str, Any],
    id2label: Mapping[int, str],
    palette: Sequence[Color],
) -> None:
    """Write README.md: where the splits are, what the columns mean, and what was predicted.

    Args:
        output: the folder.
        summary: over all processes.
        settings: "model" and "protocol" in words.
        id2label: class names.
        palette: class colours.

    Raises:
        OSError: it cannot be written.
    """
    header = ["---", "task_categories:", "- image-segmentation", "tags:", "- semantic-segmentation", "- predictions"]
    header += ["configs:", "- config_name: default", "  data_files:", f"  - split: {SPLIT}"]
    header += [f"    path: data/{SPLIT}-*", "dataset_info:", "  features:"]
    for name, feature in _FEATURES.items():
        kind = "image" if isinstance(feature, datasets.Image) else feature.dtype
        header += [f"  - name: {name}", f"    dtype: {kind}"]
    header += ["---", ""]
    partial = output / ".README.md.partial"
    text = "\n".join(header) + _body(summary, settings, id2label, palette)
    partial.write_text(text, encoding="utf-8")
    partial.replace(output / "README.md")


def _body(summary: Summary, settings: Mapping[str, Any], id2label: Mapping[int, str], palette: Sequence[Color]) -> str:
    mean = summary.mean_confidence
    confidence = "" if mean is None else f" Mean confidence: {100 * mean:.2f}%."
    bad = f" Images that could not be predicted, and are not here: {summary.bad}." if summary.bad else ""
    lines = []
    for (index, color), share in zip(enumerate(palette), summary.shares() or [0.0] * len(palette), strict=True):
        name = id2label.get(index, str(index)).replace("|", "\\|")
        lines.append(f"| {index} | {name} | #{color[0]:02x}{color[1]:02x}{color[2]:02x} | {100 * share:.2f}% |")
    return f"""
# Predicted class maps

{summary.measured} images, predicted by `{settings["model"]}` ({settings["protocol"]}). These are no human
labels.{bad}{confidence}

| column | what |
|---|---|
| `name` | the image's name or id |
| `height`, `width` | of the upright image, and of both pictures |
| `mask` | a palette PNG: its values are class ids, its palette the classes' colours |
| `confidence` | the probability of each pixel's class: {QUANTISATION} |
| `mean_confidence` | the mean of that probability over the image, before it is rounded |

| id | class | colour | pixels |
|---|---|---|---|
{chr(10).join(lines)}
"""


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that `path` is never half a file.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
