"""Raw folders become three splits of original pictures and 8-bit class maps, or one sentence and no output."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from raw_trees import CLASSES, write_tree

from s4mim_hf.data.plan import Plan, PrepareOptions, make_plan
from s4mim_hf.data.prepare import Report, prepare_folder
from s4mim_hf.data.prepared import load_prepared
from s4mim_hf.data.prepared_writer import Row, write_shards
from s4mim_hf.data.raw_folder import RawItem
from s4mim_hf.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def prepare(source: Path, notes: list[str] | None = None, **options: Any) -> Report:
    notes = [] if notes is None else notes
    return prepare_folder(PrepareOptions(source, source.parent / "out", **options), say=notes.append)


def plan(source: Path, **options: Any) -> Plan:
    return make_plan(PrepareOptions(source, source.parent / "out", **options))


def ids(items: list[RawItem]) -> list[str]:
    return [item.id for item in items]


def refused(source: Path, message: str, **options: Any) -> None:
    """The error is one sentence that holds `message`, and nothing is left behind."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        prepare(source, **options)
    assert "\n" not in str(caught.value)
    assert sorted(source.parent.iterdir()) == before


def test_rows_hold_the_original_bytes_and_labels_keep_their_ids(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=8, bare=2, validation=3)
    report = prepare(source, labeled="1/4")
    assert {split: numbers.images for split, numbers in report.splits.items()} == {
        "labeled": 2, "unlabeled": 8, "validation": 3,
    }  # fmt: skip
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"labeled", "unlabeled", "validation"}
    for split in ("labeled", "unlabeled", "validation"):
        for row in loaded[split].cast_column("image", datasets.Image(decode=False)):
            assert row["image"]["bytes"] == (source / "images" / f"{row['id']}.jpg").read_bytes()
            if split == "unlabeled":
                assert row["label"] is None
            else:
                assert row["label"].mode == "L"
                expected = np.asarray(Image.open(source / "masks" / f"{row['id']}.png"))
                np.testing.assert_array_equal(np.asarray(row["label"]), expected)
    unlabeled = list((tmp_path / "out" / "data").glob("unlabeled-*"))
    assert pq.read_schema(unlabeled[0]).names == ["id", "image"]
    assert not list(tmp_path.glob(".*partial*"))


def test_the_record_of_the_splits(tmp_path: Path) -> None:
    report = prepare(write_tree(tmp_path / "raw"), labeled="3", seed=5, name="mine")
    record = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert (record["name"], record["seed"], record["labeled"], record["source"]) == ("mine", 5, "3", "folder")
    assert record["counts"] == {"labeled": 3, "unlabeled": 5, "validation": 2}
    assert {split: len(listed) for split, listed in record["ids"].items()} == record["counts"]
    assert record["hash"] == report.split_hash
    assert str(tmp_path) not in (tmp_path / "out" / "splits.json").read_text()


def test_a_drawn_validation_is_the_same_for_every_draw_of_labels(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=20, bare=4)
    plans = [plan(source, labeled=text, seed=seed) for text in ("2", "1/2") for seed in (0, 1)]
    assert len({tuple(ids(each.validation)) for each in plans}) == 1
    for each in plans:
        everything = ids(each.labeled) + ids(each.unlabeled) + ids(each.validation)
        assert len(everything) == len(set(everything)) == 24
        assert all(item.mask is not None for item in each.validation)
    assert set(ids(plans[0].labeled)) < set(ids(plans[2].labeled))
    assert any("validation is 4 of the 20" in note for note in plans[0].notes)


def test_kinds_of_validation(tmp_path: Path) -> None:
    flat = write_tree(tmp_path / "flat")
    assert plan(flat, validation="none").validation == []
    assert len(plan(flat, validation="3").validation) == 3
    other = write_tree(tmp_path / "other", masked=2)
    assert ids(plan(flat, validation=str(other)).validation) == ["validation/i00", "validation/i01"]
    split = write_tree(tmp_path / "split", validation=3)
    assert ids(plan(split).validation) == ["val/v00", "val/v01", "val/v02"]
    without = plan(split, validation="none")
    assert without.validation == []
    assert any("3 images of images/val are left out" in note for note in without.notes)


def test_id_lists(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    (tmp_path / "l.txt").write_text("i01\nimages/i02.jpg masks/i02.png\n")
    (tmp_path / "u.txt").write_text("i03.jpg\n")
    lists = {"labeled_ids": tmp_path / "l.txt", "unlabeled_ids": tmp_path / "u.txt"}
    both = plan(source, validation="none", labeled="2", **lists)
    assert (ids(both.labeled), ids(both.unlabeled)) == (["i01", "i02"], ["i03"])
    assert any("7 training images are in neither list" in note for note in both.notes)
    one = plan(source, labeled_ids=tmp_path / "l.txt")
    assert ids(one.labeled) == ["i01", "i02"]
    assert (len(one.unlabeled), len(one.validation)) == (6, 2)
    refused(source, "--labeled 5 is 5 images, but", labeled="5", **lists)
    (tmp_path / "u.txt").write_text("i02\n")
    refused(source, "1 images are in both", **lists)
    refused(source, "only 8 of 10 are free", labeled_ids=tmp_path / "l.txt", validation="9")
    refused(source, "--unlabeled-ids needs --labeled-ids", unlabeled_ids=tmp_path / "u.txt")
    (source / "masks" / "i01.png").unlink()
    refused(source, "1 of 2 images of the list", labeled_ids=tmp_path / "l.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labeled": "11"}, "--labeled 11: 11 images are asked for, but only 8"),
        ({"labeled": "9/8"}, "at most 1"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"validation": "10"}, "only 9 of 10 are free"),
        ({"validation": "99"}, "--validation 99 takes 99 images with masks, but only 9 of 10 are free"),
        ({"validation": "nowhere"}, "no folder that exists"),
        ({"validation": "1.5"}, "no fraction such as 0.2"),
        ({"classes": ["road", "tree"]}, "(2) are not those of"),
        ({"classes": ["road", "road", "sky"]}, "names road more than once"),
        ({"kind": "camvid"}, "the catalog's classes of camvid (11) are not those of"),
        ({"kind": "camvit"}, "did you mean 'camvid'?"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    refused(write_tree(tmp_path / "raw"), message, **options)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    refused(tmp_path / "none", "is missing; a source has images/ and masks/")
    source = write_tree(tmp_path / "raw", validation=2)
    refused(source, "has images/val already", validation="0.2")
    Image.new("L", (12, 8)).save(source / "masks" / "train" / "zz.png")
    refused(source, "1 masks have no image: train/zz")
    (source / "masks" / "train" / "zz.png").unlink()
    (source / "masks" / "val" / "v01.png").unlink()
    refused(source, "1 of 2 images of images/val have no mask: val/v01")
    twice = write_tree(tmp_path / "twice")
    Image.new("RGB", (12, 8)).save(twice / "images" / "i01.png")
    refused(twice, "are both 'i01'")
    refused(write_tree(tmp_path / "bare", masked=0, bare=3), "none of the 3 training images")
    empty = tmp_path / "empty"
    (empty / "images").mkdir(parents=True)
    (empty / "masks").mkdir()
    refused(empty, "there are no images in")


def bytes_of(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (bytes_of(Image.new("L", (8, 12)), "PNG"), "1 masks have another size than their image: i03 (8x12 for"),
        (bytes_of(Image.new("RGB", (12, 8)), "PNG"), "1 masks hold colours"),
        (bytes_of(Image.new("L", (12, 8)), "JPEG"), "1 masks are JPEG files"),
        (bytes_of(Image.new("L", (12, 8), 3), "PNG"), "ids 3 in i03"),
        (bytes_of(Image.fromarray(np.full((8, 12), 300, np.uint16)), "PNG"), "ids 300 in i03"),
        (bytes_of(Image.effect_noise((12, 8), 50), "PNG")[:80], "1 masks cannot be read as pictures: i03"),
        (b"junk", "1 masks cannot be read as pictures: i03 (no picture format"),
    ],
)
def test_bad_masks(mask: bytes, message: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    (source / "masks" / "i03.png").write_bytes(mask)
    refused(source, message)


@pytest.mark.parametrize("keep", [0, 4, 300])
def test_bad_images(keep: int, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", bare=2)
    for name in ("i03.jpg", "i11.jpg"):
        path = source / "images" / name
        path.write_bytes(path.read_bytes()[:keep])
    refused(source, "2 images cannot be read: i03")


def test_doubtful_orientation_is_said(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(source / "images" / "i02.jpg").save(source / "images" / "i02.jpg", exif=exif)
    notes: list[str] = []
    prepare(source, notes)
    assert any("1 images are turned by their EXIF orientation" in note and "i02" in note for note in notes)


def test_another_ignore_id_becomes_255(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", classes=False)
    (source / "classes.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}, "ignore_index": 2}))
    report = prepare(source)
    assert report.splits["labeled"].ids == {0, 1}
    for row in load_prepared(tmp_path / "out").labeled:
        raw = np.asarray(Image.open(source / "masks" / f"{row['id']}.png"))
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(row["label"]["bytes"]))), np.where(raw == 2, 255, raw)
        )


def test_classes_that_nobody_names(tmp_path: Path) -> None:
    refused(write_tree(tmp_path / "raw", classes=False), "the masks hold the ids 0, 1, 2 (255 is ignored)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ("3", "neither a list of names nor"),
        ('{"id2label": {"1": "a", "2": "b"}}', "must have the ids 0 to 1"),
        ('["a", ""]', "class names are texts"),
        ("[]", "names 0 classes"),
        ('{"id2label": {"0": "a", "1": "b"}, "ignore_index": 0}', "ignore_index is 0"),
    ],
)
def test_bad_class_files(content: str, message: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", classes=False)
    (source / "classes.json").write_text(content)
    refused(source, message)


def test_a_class_without_labelled_pixels_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    prepare(write_tree(tmp_path / "raw", classes=False), notes, classes=[*CLASSES, "cow"])
    assert "1 classes have no pixel in the labelled images: cow" in notes


def test_output_is_never_overwritten(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    prepare(source)
    before = (tmp_path / "out" / "splits.json").read_bytes()
    refused(source, "is not empty", seed=1)
    assert (tmp_path / "out" / "splits.json").read_bytes() == before


def test_shards_are_numbered_and_whole(tmp_path: Path) -> None:
    rows = [Row(str(index), bytes(400), "a.png", bytes(100)) for index in range(10)]
    files = write_shards(tmp_path, "labeled", rows, shard_bytes=1600)
    assert [file.name for file in files] == [f"labeled-{index:05d}-of-00004.parquet" for index in range(4)]
    found = [value for file in files for value in pq.read_table(file).column("id").to_pylist()]
    assert found == [row.id for row in rows]
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.real
@pytest.mark.parametrize(("name", "labeled"), [("camvid", 46), ("msrc21", 44)])
def test_real_data_splits(name: str, labeled: int, shared_dir: Path, tmp_path: Path) -> None:
    made = make_plan(PrepareOptions(shared_dir / "data" / name, tmp_path / "out", kind=name, labeled="1/8"))
    expected = {"camvid": (labeled, 321, 101), "msrc21": (labeled, 311, 118)}[name]
    assert tuple(len(items) for items in made.splits().values()) == expected
