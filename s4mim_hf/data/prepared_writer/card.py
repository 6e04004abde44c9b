"""The data card: a header by which the Hub and `datasets` find the splits, and tables that a person reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import datasets

from s4mim_hf.data.prepared.record import SPLITS, ShardRecord, SplitStatistics, features_of
from s4mim_hf.data.prepared_writer.rows import Description

_SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
)  # fmt: skip


def data_card(
    description: Description,
    statistics: Mapping[str, SplitStatistics],
    shards: Mapping[str, Sequence[ShardRecord]],
    digest: str,
) -> str:
    """Return the README.md of a prepared folder.

    Args:
        description: names, classes and how the splits were made.
        statistics: of each split that is not empty.
        shards: the files of each split.
        digest: the hash of the splits.
    """
    header = ["---", f"pretty_name: {json.dumps(description.title, ensure_ascii=False)}"]
    header += ["task_categories:", "- image-segmentation", "tags:", "- semantic-segmentation"]
    images = sum(numbers.images for numbers in statistics.values())
    header += ["size_categories:", f"- {next((name for most, name in _SIZES if images < most), 'n>10M')}"]
    header += ["configs:", "- config_name: default", "  data_files:"]
    for split in SPLITS:
        if split in statistics:
            header += [f"  - split: {split}", f"    path: data/{split}-*"]
    # Named here because the unlabelled files have no label column: it is read as null there.
    header += ["dataset_info:", "  features:"]
    for name, feature in features_of("labeled", decode=True).items():
        dtype = "image" if isinstance(feature, datasets.Image) else "string"
        header += [f"  - name: {name}", f"    dtype: {dtype}"]
    header += ["  splits:"]
    for split in SPLITS:
        if split in statistics:
            size = sum(shard.bytes for shard in shards[split])
            header += [f"  - name: {split}", f"    num_bytes: {size}", f"    num_examples: {statistics[split].images}"]
    return "\n".join([*header, "---", "", _body(description, statistics, digest)])


def _body(description: Description, statistics: Mapping[str, SplitStatistics], digest: str) -> str:
    stored = "the original file"
    if description.max_side is not None:
        stored += f", or where its longer side has more than {description.max_side} pixels, a copy shrunk to that"
    # Empty where nothing is known: no licence is claimed for somebody else's pictures.
    note = f"\n{description.note}\n" if description.note else ""
    return f"""# {description.title}

Prepared for semi-supervised semantic segmentation with `{description.made_by}`.
{note}
| split | images | smallest | largest | labelled pixels | ignored |
|---|---|---|---|---|---|
{_split_table(statistics)}

- `image`: {stored}.
- `label`: an 8-bit class map of the upright picture's size, {description.ignore_index} = ignored;
  unlabelled images have none.
- Evaluation: {description.protocol_as_stored}.
- Split hash: `{digest}` (ids, how they were chosen, and a sha256 of each file: `splits.json`).

{_class_table(description, statistics)}
"""


def _split_table(statistics: Mapping[str, SplitStatistics]) -> str:
    lines = []
    for split in SPLITS:
        numbers = statistics.get(split)
        if numbers is None:
            lines.append(f"| {split} | 0 | | | | |")
            continue
        smallest, largest = (f"{width}x{height}" for width, height in (numbers.smallest, numbers.largest))
        counted = sum(numbers.pixels)
        ignored = _share(numbers.ignored, counted + numbers.ignored) if split != "unlabeled" else ""
        lines.append(
            f"| {split} | {numbers.images} | {smallest} | {largest} | {counted if split != 'unlabeled' else ''} "
            f"| {ignored} |"
        )
    return "\n".join(lines)


def _class_table(description: Description, statistics: Mapping[str, SplitStatistics]) -> str:
    """Return what each class has of the labelled pixels that count, and how many images hold it."""
    splits = [split for split in SPLITS if split in statistics and split != "unlabeled"]
    heads = "".join(f" {split}: pixels | {split}: images |" for split in splits)
    lines = [f"| id | class |{heads}", "|---|---|" + "---|---|" * len(splits)]
    for class_id, name in enumerate(description.classes):
        cells = ""
        for split in splits:
            numbers = statistics[split]
            cells += f" {_share(numbers.pixels[class_id], sum(numbers.pixels))} | {numbers.images_with[class_id]} |"
        escaped = name.replace("|", "\\|")
        lines.append(f"| {class_id} | {escaped} |{cells}")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "-"
