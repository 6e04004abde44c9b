"""The writer: in order, bounded, resumable, one process at a time, whole or not at all."""

from __future__ import annotations

import io
import json
import random
import re
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from prepared_folders import CLASSES, SMALL, Reads, describe, digests, ids_of, make_row, write, write_folder

from s4mim_hf.data.prepared import load_prepared
from s4mim_hf.data.prepared_writer import BadSamples, Row
from s4mim_hf.data.prepared_writer.reading import AHEAD, THREADS
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_load_dataset_gives_the_splits_with_pictures(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", shard_bytes=SMALL)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"labeled": 3, "unlabeled": 7, "validation": 2}
    for split, rows in loaded.items():
        assert rows.features == datasets.Features(
            {"id": datasets.Value("string"), "image": datasets.Image(), "label": datasets.Image()}
        )
        for index, row in enumerate(rows):
            expected = make_row(split, index)
            assert row["id"] == expected.id
            np.testing.assert_array_equal(np.asarray(row["image"]), pixels_of(expected.image))
            if split == "unlabeled":
                assert row["label"] is None
            else:
                np.testing.assert_array_equal(np.asarray(row["label"]), pixels_of(expected.label))
        stored = rows.cast_column("image", datasets.Image(decode=False))
        assert [row["image"]["bytes"] for row in stored] == [make_row(split, i).image for i in range(len(rows))]
    unlabeled = next((folder / "data").glob("unlabeled-*"))
    assert pq.read_schema(unlabeled).names == ["id", "image"]


def pixels_of(data: bytes | None) -> np.ndarray:
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)))


def test_shards_and_row_groups_are_bounded_and_in_order(tmp_path: Path) -> None:
    rng = random.Random(0)

    def late(split: str, index: int) -> Row:
        time.sleep(rng.random() / 50 if index < 30 else 0)
        size = 1_500_000 if index < 7 else 10
        return Row(f"{split}/{index:05d}", bytes(size), "a.png", None, 4, 4)

    write(tmp_path / "out", late, counts={"labeled": 0, "unlabeled": 2009, "validation": 0}, shard_bytes=7_000_000)
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [file.name for file in files] == [f"unlabeled-{number:05d}-of-00002.parquet" for number in range(2)]
    found = [value for file in files for value in pq.read_table(file, columns=["id"]).column("id").to_pylist()]
    assert found == ids_of(unlabeled=2009)["unlabeled"]
    groups = [pq.ParquetFile(file).metadata for file in files]
    sizes = [[meta.row_group(i).num_rows for i in range(meta.num_row_groups)] for meta in groups]
    # Two large ones fill a row group; of small ones a thousand do.
    assert sizes == [[2, 2], [2, 1000, 1000, 3]]


def test_no_more_is_read_ahead_than_is_bounded(tmp_path: Path) -> None:
    started: list[int] = []
    enough = threading.Event()
    seen_by_the_first: list[int] = []

    def read(split: str, index: int) -> Row:
        if split == "unlabeled":
            started.append(index)
            if index == 0:
                # The others go on as far as they may.
                while not enough.wait(0.2) and len(started) != (seen_by_the_first or [0])[-1]:
                    seen_by_the_first.append(len(started))
        return make_row(split, index)

    write(tmp_path / "out", read, counts={"labeled": 0, "unlabeled": 200, "validation": 0})
    assert len(started) == 200
    assert seen_by_the_first[-1] <= AHEAD + THREADS + 1


def test_the_record_has_statistics_and_hashes(tmp_path: Path) -> None:
    written = write(tmp_path / "out", shard_bytes=SMALL, description=describe(max_side=64))
    record = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert (record["format_version"], record["max_side"], record["hash"]) == (1, 64, written.split_hash)
    assert record["ids"] == ids_of()
    stored = digests(tmp_path / "out")
    for split, shards in record["shards"].items():
        for shard in shards:
            file = tmp_path / "out" / shard["file"]
            assert stored[shard["file"]] == shard["sha256"]
            assert (file.stat().st_size, pq.read_metadata(file).num_rows) == (shard["bytes"], shard["rows"])
        assert sum(shard["rows"] for shard in shards) == record["counts"][split]
    assert len(record["shards"]["unlabeled"]) > 1
    labels = [pixels_of(make_row("labeled", index).label) for index in range(3)]
    numbers = written.splits["labeled"]
    assert numbers.pixels == [sum(int((label == value).sum()) for label in labels) for value in range(len(CLASSES))]
    assert numbers.images_with == [3, 3, 0]
    assert numbers.ignored == sum(int((label == 255).sum()) for label in labels)
    assert (numbers.smallest, numbers.largest, numbers.ids) == ((20, 16), (20, 18), {0, 1})
    assert written.splits["unlabeled"].pixels == [0, 0, 0]
    assert load_prepared(tmp_path / "out").statistics == written.splits


def test_the_card_names_splits_classes_and_what_they_have(tmp_path: Path) -> None:
    names = ("sky", "a|b", 'say "x"')
    description = describe(classes=names, title='Scenes: "mine"', note="Free for all.", max_side=64)
    write(tmp_path / "out", description=description, counts={"unlabeled": 0})
    card = (tmp_path / "out" / "README.md").read_text()
    _, header, body = card.split("---\n", 2)
    content = yaml.safe_load(header)
    assert (content["pretty_name"], content["task_categories"]) == ('Scenes: "mine"', ["image-segmentation"])
    assert [each["split"] for each in content["configs"][0]["data_files"]] == ["labeled", "validation"]
    assert {each["name"]: each["num_examples"] for each in content["dataset_info"]["splits"]} == {
        "labeled": 3, "validation": 2,
    }  # fmt: skip
    assert "license" not in content
    share = make_row("validation", 0).pixels, make_row("validation", 1).pixels
    road = sum(each[1] for each in share if each) / sum(sum(each[:3]) for each in share if each)
    assert re.search(rf"\| 1 \| a\\\|b \| [\d.]+% \| 3 \| {100 * road:.2f}% \| 2 \|", body)
    for words in (
        "| unlabeled | 0 |",
        "Free for all.",
        "more than 64 pixels",
        "whole image; pictures above 64 pixels a side were shrunk",
        '| 2 | say "x" |',
    ):
        assert words in body


def test_bad_samples_are_all_found_and_nothing_is_left(tmp_path: Path) -> None:
    fails: dict[tuple[str, int], BaseException] = {
        ("labeled", 1): SampleError("masks hold colours", "RGB"),
        ("unlabeled", 6): OSError(5, "Input/output error"),
        ("validation", 0): SampleError("masks hold colours"),
    }
    reads = Reads(fails)
    with pytest.raises(BadSamples) as caught:
        write(tmp_path / "out", reads, shard_bytes=SMALL)
    assert str(caught.value) == (
        "2 masks hold colours: labeled/00001 (RGB), validation/00000; 1 images cannot be read: unlabeled/00006 "
        "(Input/output error); correct or remove these, then run again"
    )
    assert {kind: problem.count for kind, problem in caught.value.problems.items()} == {
        "masks hold colours": 2, "images cannot be read": 1,
    }  # fmt: skip
    assert len(reads.seen) == 12
    assert list(tmp_path.iterdir()) == []


def test_of_many_bad_samples_few_are_named(tmp_path: Path) -> None:
    fails: dict[tuple[str, int], BaseException] = {("unlabeled", index): SampleError("images x") for index in range(50)}
    with pytest.raises(
        BadSamples, match=r"50 images x: unlabeled/00000, .*/00001, .*/00002 and 47 more; correct"
    ) as caught:
        write(tmp_path / "out", Reads(fails), counts={"unlabeled": 50})
    assert len(caught.value.problems["images x"].names) == 20


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="file is a file; give a new folder"):
        write(tmp_path / "file")
    with pytest.raises(InputError, match="full is not empty; give a new folder"):
        write(tmp_path / "full")
    with pytest.raises(InputError, match=r"cannot write .*: (Not a directory|File exists)"):
        write(tmp_path / "file" / "below")
    write(tmp_path / "empty")
    assert load_prepared(tmp_path / "empty").name == "mine"
