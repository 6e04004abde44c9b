"""Sources become three splits of original pictures and 8-bit class maps, or one sentence and no output."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from raw_trees import CLASSES, write_pair, write_tree

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan import make_plan
from s4mim_hf.data.prepare import Report, fingerprint_of
from s4mim_hf.data.prepare import prepare as prepare_source
from s4mim_hf.data.prepared import decode_image, decode_label, load_prepared
from s4mim_hf.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def prepare(source: Path, notes: list[str] | None = None, **options: Any) -> Report:
    given = PrepareOptions("folder", source.parent / "out", str(source), **options)
    return prepare_source(given, say=([] if notes is None else notes).append)


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


def test_statistics_are_those_of_the_files(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=6)
    write_pair(source, "small", 77, size=(5, 4))
    report = prepare(source, validation="2")
    for split in ("labeled", "validation"):
        numbers, rows = report.splits[split], getattr(load_prepared(tmp_path / "out"), split)
        maps = [np.asarray(Image.open(source / "masks" / f"{image_id}.png")) for image_id in rows["id"]]
        counts = [[int((ids == class_id).sum()) for ids in maps] for class_id in (0, 1, 2, 255)]
        assert [*numbers.pixels, numbers.ignored] == [sum(each) for each in counts]
        assert numbers.images_with == [sum(count > 0 for count in each) for each in counts[:3]]
        sizes = sorted((ids.shape[::-1] for ids in maps), key=lambda size: size[0] * size[1])
        assert (tuple(numbers.smallest), tuple(numbers.largest)) == (sizes[0], sizes[-1])


def test_the_record_of_the_splits(tmp_path: Path) -> None:
    report = prepare(write_tree(tmp_path / "raw"), labeled="3", seed=5, name="mine", draw="balanced", group_by="i.*")
    record = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert (record["name"], record["seed"], record["labeled"], record["source"]) == ("mine", 5, "3", "folder")
    assert (record["draw"], record["group_by"], record["max_side"]) == ("balanced", "i.*", None)
    assert record["counts"] == {"labeled": 3, "unlabeled": 5, "validation": 2}
    assert {split: len(listed) for split, listed in record["ids"].items()} == record["counts"]
    assert record["hash"] == report.split_hash
    assert str(tmp_path) not in (tmp_path / "out" / "splits.json").read_text()


def bytes_of(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("labeled", ["all", "2"])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (bytes_of(Image.new("L", (8, 12)), "PNG"), "1 masks have another size than their image: i03 (8x12 for"),
        (bytes_of(Image.new("RGB", (12, 8)), "PNG"), "1 masks hold colours"),
        (bytes_of(Image.new("L", (12, 8)), "JPEG"), "1 masks are JPEG files"),
        (bytes_of(Image.new("L", (12, 8), 3), "PNG"), "1 masks hold ids other than 0 to 2, the 3 classes, and 255"),
        (bytes_of(Image.fromarray(np.full((8, 12), 300, np.uint16)), "PNG"), "255 (ignored): i03 (300)"),
        (bytes_of(Image.effect_noise((12, 8), 50), "PNG")[:80], "1 masks cannot be read as pictures: i03"),
        (b"junk", "1 masks cannot be read as pictures: i03 (no picture format"),
    ],
)
def test_bad_masks(mask: bytes, message: str, labeled: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=6)
    (source / "masks" / "i03.png").write_bytes(mask)
    refused(source, message, labeled=labeled)


def test_a_bad_mask_of_an_image_that_is_not_labelled_is_found(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=6)
    (source / "masks" / "i03.png").write_bytes(b"junk")
    (tmp_path / "l.txt").write_text("i01\n")
    refused(source, "1 masks cannot be read", labeled_ids=str(tmp_path / "l.txt"), validation="none")


@pytest.mark.parametrize("keep", [0, 4, 300])
def test_bad_images(keep: int, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", bare=2)
    for name in ("i03.jpg", "i11.jpg"):
        path = source / "images" / name
        path.write_bytes(path.read_bytes()[:keep])
    refused(source, "2 images cannot be read: i")


def test_every_kind_of_problem_is_said_at_once(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    (source / "images" / "i03.jpg").write_bytes(b"junk")
    (source / "masks" / "i04.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"1 images cannot be read: i03 .*; 1 masks cannot be read") as caught:
        prepare(source)
    assert "correct or remove these, then run again" in str(caught.value)


def test_doubtful_orientation_is_said(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("i02", "i04"):
        Image.open(source / "images" / f"{name}.jpg").save(source / "images" / f"{name}.jpg", exif=exif)
    notes: list[str] = []
    prepare(source, notes)
    assert any("2 images are turned by their EXIF orientation" in note and "(i02, i04)" in note for note in notes)


def test_labels_lie_as_viewers_show_the_picture(tmp_path: Path) -> None:
    """Trap: the picture is turned by whoever decodes it, the mask is not."""
    source = write_tree(tmp_path / "raw", masked=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(source / "images" / "i01.jpg").save(source / "images" / "i01.jpg", exif=exif)
    stored = np.asarray(Image.open(source / "masks" / "i01.png"))
    prepare(source, validation="none")
    for row in load_prepared(tmp_path / "out").labeled:
        label = decode_label(row["label"]["bytes"])
        assert decode_image(row["image"]["bytes"]).shape[:2] == label.shape
        if row["id"] == "i01":
            np.testing.assert_array_equal(label, np.rot90(stored, -1))


def test_classes_that_nobody_names(tmp_path: Path) -> None:
    refused(write_tree(tmp_path / "raw", classes=False), "the masks hold the ids 0, 1, 2 (255 is ignored)")


def test_a_class_without_labelled_pixels_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    prepare(write_tree(tmp_path / "raw", classes=False), notes, classes=[*CLASSES, "cow"])
    assert "1 classes have no pixel in the labelled images: cow" in notes


def test_pictures_are_shrunk_with_their_masks(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=3, bare=1)
    write_pair(source, "large", 50, size=(40, 20))
    report = prepare(source, validation="none", max_side=16)
    data = load_prepared(tmp_path / "out")
    assert data.max_side == 16
    assert report.splits["labeled"].largest == (16, 8)
    rows = {row["id"]: row for row in data.labeled}
    assert decode_image(rows["large"]["image"]["bytes"]).shape == (8, 16, 3)
    label = decode_label(rows["large"]["label"]["bytes"])
    assert label.shape == (8, 16)
    assert sum(report.splits["labeled"].pixels) + report.splits["labeled"].ignored == 3 * 8 * 12 + 8 * 16
    assert rows["i00"]["image"]["bytes"] == (source / "images" / "i00.jpg").read_bytes()


def test_a_validation_folder_is_read_from_its_own_place(tmp_path: Path) -> None:
    source, other = write_tree(tmp_path / "raw", masked=4), tmp_path / "other"
    write_pair(other, "i00", 99)
    prepare(source, validation=str(other))
    row = load_prepared(tmp_path / "out").validation[0]
    assert row["id"] == "validation/i00"
    assert row["image"]["bytes"] == (other / "images" / "i00.jpg").read_bytes()


def test_output_is_never_overwritten(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    prepare(source)
    before = (tmp_path / "out" / "splits.json").read_bytes()
    refused(source, "is not empty", seed=1)
    assert (tmp_path / "out" / "splits.json").read_bytes() == before


def test_an_interrupted_call_goes_on_for_the_same_files_and_options_only(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=6)

    def fingerprint(**options: Any) -> str:
        given = {"output": tmp_path / "out", "source": str(source), "labeled": "2", **options}
        asked = PrepareOptions("folder", **given)
        return fingerprint_of(asked, make_plan(asked))

    first = fingerprint()
    assert first == fingerprint() == fingerprint(output=tmp_path / "other", push_to_hub="me/it", private=False)
    changed = [fingerprint(**options) for options in ({"seed": 1}, {"max_side": 5}, {"classes": CLASSES})]
    path = source / "masks" / "i05.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    changed.append(fingerprint())
    classes = json.loads((source / "classes.json").read_text())
    (source / "classes.json").write_text(json.dumps({**classes, "ignore_index": 250}))
    assert len({first, *changed, fingerprint()}) == 6
