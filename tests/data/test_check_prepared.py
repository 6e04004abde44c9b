"""A prepared folder is checked to its last byte: nothing that was changed, cut, lost or swapped goes unseen."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_pictures import RawTree, encode, grey_png, ids_of, photo

from s4mim_hf.data.checking import CheckReport, check
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
from s4mim_hf.data.splits import split_hash
from s4mim_hf.errors import InputError

Row = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    tree = RawTree(folder / "raw").fill(6, "train/").fill(3, "val/")
    tree.add("train/bare")
    prepare(PrepareOptions("folder", folder / "out", str(tree.folder), labeled="4"), say=lambda note: None)
    return folder / "out"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def shard(folder: Path, split: str) -> Path:
    return next((folder / "data").glob(f"{split}-*"))


def rewrite(
    folder: Path, split: str, change: Callable[[list[Row]], list[Row]], schema: pa.Schema | None = None
) -> None:
    """Change the rows of a split, as somebody may who edits a data set; splits.json no longer has hashes."""
    table = pq.read_table(shard(folder, split))
    rows = change(table.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=schema or table.schema), shard(folder, split))
    edit(folder, "splits", lambda record: record.pop("shards", None))


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / f"{name}.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def found(folder: Path, *messages: str) -> CheckReport:
    """The problems are these, in this order, and each is one line."""
    report = check(folder)
    assert len(report.problems) == len(messages), report.problems
    for problem, message in zip(report.problems, messages, strict=True):
        assert message in problem
        assert "\n" not in problem
    return report


def test_a_sound_folder(folder: Path) -> None:
    report = found(folder)
    numbers = report.to_dict()
    record = json.loads((folder / "splits.json").read_text())
    assert (numbers["name"], numbers["form"], numbers["hash"]) == ("raw", "prepared", record["hash"])
    assert {split: each["images"] for split, each in numbers["splits"].items()} == record["counts"]
    assert numbers["splits"]["unlabeled"]["masks"] == 0
    for split in ("labeled", "validation"):
        written = record["statistics"][split]
        assert [entry[split]["pixels"] for entry in numbers["classes"]] == written["pixels"]
        assert [entry[split]["images"] for entry in numbers["classes"]] == written["images_with"]
        assert numbers["splits"][split]["ignored_pixels"] == written["ignored"]


def test_folders_of_before_there_were_hashes(folder: Path) -> None:
    def older(record: dict[str, Any]) -> None:
        for key in ("shards", "statistics", "max_side"):
            del record[key]

    edit(folder, "splits", older)
    found(folder)


def test_no_unlabelled_or_validation_images_are_a_warning(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(4)
    options = PrepareOptions("folder", tmp_path / "out", str(tree.folder), validation="none")
    prepare(options, say=lambda note: None)
    report = found(tmp_path / "out")
    assert report.warnings[:2] == (
        "there are no unlabelled images: training is supervised, whatever the method",
        "there are no validation images: no score is computed, and the last model is kept instead of the best",
    )


def test_a_byte_that_was_changed(folder: Path) -> None:
    file = shard(folder, "unlabeled")
    content = bytearray(file.read_bytes())
    content[content.index(b"good")] ^= 1
    file.write_bytes(content)
    report = check(folder)
    assert f"{file} has not the sha256 that splits.json says" in report.problems[0]


def test_a_shard_that_is_cut_short(folder: Path) -> None:
    file = shard(folder, "validation")
    file.write_bytes(file.read_bytes()[:-100])
    found(
        folder,
        "it was cut short",
        f"{file} cannot be read",
        "lists 3 validation images that are not in its files: val/good00, val/good01, val/good02",
    )


def test_shards_that_are_missing_or_too_many(folder: Path) -> None:
    file = shard(folder, "unlabeled")
    content = file.read_bytes()
    file.unlink()
    found(folder, f"{file} is missing", "lists 3 unlabeled images that are not in its files")
    file.write_bytes(content)
    (folder / "data" / "labeled-00007.parquet").write_bytes(content)
    report = check(folder)
    assert "labeled-00007.parquet is not one of the 1 labeled files" in report.problems[0]


def test_records_that_contradict_themselves(folder: Path) -> None:
    edit(folder, "splits", lambda record: record.update(hash="0" * 64))
    found(folder, "its hash is not that of the ids in it")
    edit(folder, "splits", lambda record: record.update(hash=split_hash(record["ids"])))
    edit(folder, "splits", lambda record: record["counts"].update(labeled=9))
    found(folder, "counts 9 labeled images and lists 4")
    edit(folder, "splits", lambda record: record["counts"].update(labeled=4))
    edit(folder, "splits", lambda record: record["statistics"]["labeled"].update(ignored=0))
    found(folder, "its statistics of the labeled images are not what was counted")


def test_classes_that_do_not_fit(folder: Path) -> None:
    edit(folder, "classes", lambda record: record.update(ignore_index=0))
    found(folder, "ignore_index is 0, but training ignores 255 only")
    edit(folder, "classes", lambda record: record.update(ignore_index=255, palette=[[0, 0, 0]]))
    found(folder, "has 1 colours for 3 classes")
    palette = [[0, 0, 0]] * 3
    edit(folder, "classes", lambda record: record.update(palette=palette, id2label={"0": "a", "1": "b", "3": "c"}))
    found(folder, "names the ids 0, 1, 3; expected 0 to 2")
    edit(folder, "classes", lambda record: record.update(palette=palette[:2], id2label={"0": "road", "1": "tree"}))
    edit(folder, "splits", lambda record: record.pop("statistics"))
    found(
        folder,
        "4 labelled masks hold ids other than 0 to 1 and 255 (ignored): ids 2 in train/good",
        "3 validation masks hold ids other than 0 to 1",
    )


def test_records_that_cannot_be_read(folder: Path) -> None:
    edit(folder, "splits", lambda record: record.update(format_version=9))
    with pytest.raises(InputError, match="has format 9, but 1 is read here"):
        check(folder)
    edit(folder, "splits", lambda record: record.update(format_version=1, ids={}))
    with pytest.raises(InputError, match="lacks what was written"):
        check(folder)
    (folder / "splits.json").write_text("{")
    with pytest.raises(InputError, match=re.escape("splits.json cannot be read")):
        check(folder)
    (folder / "splits.json").unlink()
    with pytest.raises(InputError, match=re.escape("splits.json")):
        check(folder)


def test_ids_that_are_not_those_listed(folder: Path) -> None:
    def renamed(rows: list[Row]) -> list[Row]:
        return [{**rows[0], "id": "train/other"}, *rows[1:]]

    name = pq.read_table(shard(folder, "labeled"), columns=["id"]).column("id")[0].as_py()
    rewrite(folder, "labeled", renamed)
    found(
        folder,
        f"lists 1 labeled images that are not in its files: {name}",
        "does not list 1 labeled images of its files: train/other",
    )


def test_a_validation_image_that_is_trained_on(folder: Path) -> None:
    row = pq.read_table(shard(folder, "validation")).to_pylist()[0]
    rewrite(folder, "labeled", lambda rows: [row, *rows[1:]])

    def listed(record: dict[str, Any]) -> None:
        record["ids"]["labeled"] = [row["id"], *record["ids"]["labeled"][1:]]
        record["hash"] = split_hash(record["ids"])
        del record["statistics"]

    edit(folder, "splits", listed)
    found(
        folder,
        "1 ids are in the splits more than once: val/good00",
        "1 validation pictures are labelled training pictures too: val/good00 = val/good00",
    )


def test_columns_that_should_not_be_there_or_are_not(folder: Path) -> None:
    schema = pq.read_schema(shard(folder, "labeled"))
    rewrite(folder, "unlabeled", lambda rows: [row | {"label": row["image"]} for row in rows], schema)
    found(folder, "has the columns id, image, label, but unlabeled images have id, image; prepare the data again")
    bare = pa.schema([schema.field("id"), schema.field("image")])
    rewrite(folder, "unlabeled", lambda rows: rows, bare)
    rewrite(folder, "validation", lambda rows: rows, bare)
    report = found(
        folder,
        "has the columns id, image, but validation images have id, image, label",
        "3 validation masks are missing from their rows",
    )
    assert report.seen.splits["validation"].masks == 0


def broken_rows() -> dict[str, tuple[str, bytes | None, str]]:
    return {
        "no picture": ("image", None, "1 labelled images are missing from their rows: train/good"),
        "empty picture": ("image", b"", "1 labelled images are missing from their rows: train/good"),
        "cut picture": ("image", encode(photo(1), "JPEG")[:500], "1 labelled images cannot be read: train/good"),
        "no mask": ("label", None, "1 labelled masks are missing from their rows: train/good"),
        "mask of another size": ("label", encode(ids_of(1, 30, 40)), "have another size than their image: train/good"),
        "deep mask": ("label", encode(ids_of(1).astype(np.uint16)), "cannot be read as class maps: train/good"),
        "coloured mask": ("label", encode(photo(1)), "cannot be read as class maps: train/good"),
        "lossy mask": ("label", encode(ids_of(1, values=(0,)), "JPEG"), "are JPEG files, which blur ids"),
        "shallow mask": ("label", grey_png(ids_of(1, values=(0,)), 2), "are grey PNGs of 2 or 4 bits, whose ids"),
        "other ids": ("label", encode(ids_of(1, values=(0, 9))), "hold ids other than 0 to 2 and 255 (ignored): ids 9"),
    }


@pytest.mark.parametrize("kind", broken_rows())
def test_rows_that_cannot_be_used(kind: str, folder: Path) -> None:
    column, content, message = broken_rows()[kind]
    rewrite(folder, "labeled", lambda rows: [rows[0] | {column: {"bytes": content, "path": None}}, *rows[1:]])
    edit(folder, "splits", lambda record: record.pop("statistics"))
    report = found(folder, message)
    assert "prepare the data again" in report.problems[0] or "correct the masks" in report.problems[0]


def test_pictures_larger_than_max_side(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(5)
    options = PrepareOptions("folder", tmp_path / "out", str(tree.folder), max_side=20, validation="1")
    prepare(options, say=lambda note: None)
    report = found(tmp_path / "out")
    assert report.seen.splits["labeled"].sizes(0, 1) == [(20, 15), (20, 15)]
    edit(tmp_path / "out", "splits", lambda record: record.update(max_side=16))
    found(tmp_path / "out", "4 labeled images have a side longer than 16", "1 validation images have a side longer")
