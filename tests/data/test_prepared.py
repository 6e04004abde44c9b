"""Prepared folders load undecoded and are compared with their record; pictures decode to what a person sees."""

from __future__ import annotations

import io
import json
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps
from prepared_folders import ids_of, make_row, png, write_folder
from raw_trees import CLASSES, write_tree

from s4mim_hf.data.catalog import default_palette
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
from s4mim_hf.data.prepared import ShardRecord, decode_image, decode_label, load_prepared
from s4mim_hf.data.prepared.shard_files import changed_content
from s4mim_hf.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    raw = str(write_tree(folder / "raw", bare=3, validation=2))
    options = PrepareOptions("folder", folder / "out", raw, labeled="4", name="mine")
    prepare(options, say=lambda note: None)
    return folder / "out"


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(made, tmp_path / "copy"))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_what_is_loaded(copy: Path) -> None:
    data = load_prepared(copy)
    assert data.unlabeled is not None
    assert data.validation is not None
    assert (data.name, data.ignore_index, data.id2label) == ("mine", 255, dict(enumerate(CLASSES)))
    assert (len(data.labeled), len(data.unlabeled), len(data.validation)) == (4, 9, 2)
    assert data.palette == default_palette(3)
    assert data.split_hash == json.loads((copy / "splits.json").read_text())["hash"]
    assert set(data.unlabeled[0]) == {"id", "image"}
    row = data.labeled[0]
    assert decode_image(row["image"]["bytes"]).shape == (8, 12, 3)
    assert decode_label(row["label"]["bytes"]).shape == (8, 12)


def edit_record(folder: Path, **changes: object) -> None:
    path = folder / "splits.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path | str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_prepared(folder)


def test_folders_that_are_not_prepared(copy: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "there is no folder")
    refused("synthetik", "did you mean 'synthetic'?")
    refused(tmp_path, "has no splits.json")
    (copy / "splits.json").write_text("{")
    refused(copy, "cannot be read")


def test_records_that_do_not_fit(copy: Path) -> None:
    record = json.loads((copy / "splits.json").read_text())
    edit_record(copy, counts=record["counts"] | {"labeled": 3})
    refused(copy, "the labeled split has 4 images, but splits.json lists 4 and counts 3")
    fewer = record["ids"] | {"labeled": record["ids"]["labeled"][:-1]}
    edit_record(copy, counts=record["counts"], ids=fewer)
    refused(copy, "the labeled split has 4 images, but splits.json lists 3")
    other = record["ids"] | {"labeled": [*record["ids"]["labeled"][:-1], "zz"]}
    edit_record(copy, ids=other)
    refused(copy, "differ in ids")
    edit_record(copy, ids=record["ids"], hash="0" * 64)
    refused(copy, "the hash of splits.json")
    edit_record(copy, hash=record["hash"], format_version=9)
    refused(copy, "has format 9")
    edit_record(copy, format_version=1, ids={})
    refused(copy, "lacks what was written")


def test_files_that_do_not_fit(copy: Path) -> None:
    file = next((copy / "data").glob("validation-*"))
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    refused(copy, f"{file} has 100 bytes where splits.json says {len(whole)}: it was cut short")
    file.write_bytes(whole + b"more")
    refused(copy, f"{file} has {len(whole) + 4} bytes where splits.json says {len(whole)}: it was replaced")
    file.write_bytes(bytes(len(whole)))
    refused(copy, f"{file} cannot be read")
    file.unlink()
    refused(copy, f"{file} is missing, one of 1 validation files")
    file.write_bytes(whole)
    shutil.copy(file, file.with_name("validation-00001-of-00001.parquet"))
    refused(copy, "validation-00001-of-00001.parquet is not one of the 1 validation files")


def test_a_file_of_the_same_size_with_other_images(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", shard_bytes=3000)
    first, second = sorted((folder / "data").glob("unlabeled-*"))[:2]
    rows = pq.read_table(first)
    before = first.read_bytes()
    other = rows.set_column(0, "id", pa.array(["x" * len(name) for name in rows.column("id").to_pylist()]))
    pq.write_table(other, first, compression="none", use_dictionary=False, write_statistics=["id"])
    edit_shards(folder, first, bytes=first.stat().st_size)
    refused(folder, "the unlabeled split")
    first.write_bytes(before)
    edit_shards(folder, first, bytes=len(before))
    load_prepared(folder)
    # What no id tells, the hashes do.
    records = [ShardRecord.from_dict(shard) for shard in record_of(folder)["shards"]["unlabeled"]]
    assert changed_content(folder, records) == []
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    assert changed_content(folder, records) == [f"data/{second.name}"]


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "splits.json").read_text())


def edit_shards(folder: Path, file: Path, **changes: object) -> None:
    shards = record_of(folder)["shards"]
    for listed in shards.values():
        for shard in listed:
            if shard["file"].endswith(file.name):
                shard.update(changes)
    edit_record(folder, shards=shards)


def test_folders_that_were_written_before_there_were_hashes(copy: Path) -> None:
    path = copy / "splits.json"
    old = {key: value for key, value in record_of(copy).items() if key not in ("shards", "statistics", "max_side")}
    path.write_text(json.dumps(old))
    data = load_prepared(copy)
    assert (data.max_side, data.statistics, len(data.labeled)) == (None, None, 4)
    assert [file.name for file in data.shards["labeled"]] == ["labeled-00000-of-00001.parquet"]
    file = next((copy / "data").glob("validation-*"))
    file.write_bytes(file.read_bytes()[:100])
    refused(copy, f"{file} cannot be read")
    file.unlink()
    refused(copy, "the validation split has 0 images, but splits.json lists 2")


def test_what_a_folder_of_several_files_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = write_folder(tmp_path / "out", shard_bytes=3000)
    data = load_prepared(folder)
    assert data.unlabeled is not None
    assert data.unlabeled["id"][:] == ids_of()["unlabeled"]
    assert [row["image"]["bytes"] for row in data.unlabeled] == [
        make_row("unlabeled", index).image for index in range(7)
    ]
    assert list(data.shards["unlabeled"]) == sorted((folder / "data").glob("unlabeled-*"))
    assert data.statistics is not None
    assert data.statistics["validation"].images == 2
    # Another folder at the same place is not taken for the one that was there.
    shutil.rmtree(folder)
    write_folder(tmp_path / "out", seed=5, shard_bytes=3000)
    assert load_prepared(folder).labeled[1]["image"]["bytes"] == make_row("labeled", 1, seed=5).image


def test_a_cache_without_room_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = write_folder(tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        refused(folder, f"the labeled images of {folder / 'data'} cannot be copied to the cache {tmp_path / 'cache'}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(load_prepared(folder).labeled) == 3


def test_unlabelled_images_that_are_streamed_are_not_opened(copy: Path) -> None:
    file = next((copy / "data").glob("unlabeled-*"))
    file.write_bytes(bytes(file.stat().st_size))
    data = load_prepared(copy, unlabeled=False)
    assert data.unlabeled is None
    assert list(data.shards["unlabeled"]) == [file]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_image(encode(Image.fromarray(pixels), exif=exif))
    turned = [
        pixels, pixels[:, ::-1], pixels[::-1, ::-1], pixels[::-1], pixels.swapaxes(0, 1),
        np.rot90(pixels, -1), np.rot90(pixels, 2).swapaxes(0, 1), np.rot90(pixels, 1),
    ][orientation - 1]  # fmt: skip
    np.testing.assert_array_equal(found, turned)


def test_pictures_of_many_kinds_become_rgb() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    picture = Image.fromarray(grey)
    for other in (picture, picture.convert("P"), picture.convert("LA"), picture.convert("RGBA")):
        found = decode_image(encode(other))
        assert found.dtype == np.uint8
        assert found.flags.writeable
        np.testing.assert_array_equal(found, rgb)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_image(encode(deep)), rgb)
    np.testing.assert_array_equal(decode_image(encode(deep, "TIFF")), rgb)


@pytest.mark.parametrize("data", [b"", b"junk", encode(Image.effect_noise((40, 30), 50))[:200]])
def test_bytes_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(OSError):  # noqa: PT011  (Pillow words it)
        decode_image(data)
    with pytest.raises(OSError):  # noqa: PT011
        decode_label(data)


def test_labels_keep_palette_ids_and_colours_are_refused() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (5, 7), dtype=np.uint8)
    label = Image.fromarray(ids)
    label.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    np.testing.assert_array_equal(decode_label(encode(label)), ids)
    with pytest.raises(ValueError, match="mode 'RGB'"):
        decode_label(encode(ImageOps.colorize(Image.fromarray(ids), "black", "white")))


def test_synthetic_data_in_memory_and_as_a_folder_are_the_same(copy: Path, tmp_path: Path) -> None:
    memory = load_prepared("synthetic:3")
    report = prepare(PrepareOptions("synthetic", tmp_path / "scenes", seed=3), say=lambda note: None)
    folder = load_prepared(tmp_path / "scenes")
    assert report.split_hash == memory.split_hash == folder.split_hash
    assert memory.unlabeled is not None
    assert folder.unlabeled is not None
    assert set(memory.unlabeled[0]) == {"id", "image"}
    assert memory.labeled[0]["image"]["bytes"] == folder.labeled[0]["image"]["bytes"]
    labels = (decode_label(data.labeled[0]["label"]["bytes"]) for data in (memory, folder))
    np.testing.assert_array_equal(*labels)
    assert (memory.id2label, memory.palette) == (folder.id2label, folder.palette)
    for wrong in ("synthetic:x", "synthetic:", "synthetic:3:most", "synthetic:all"):
        refused(wrong, "the embedded data is called")


def test_synthetic_data_with_all_labels_is_the_same_scenes() -> None:
    few, every = load_prepared("synthetic:3"), load_prepared("synthetic:3:all")
    assert few.unlabeled is not None
    assert every.unlabeled is None
    assert (every.path, every.name) == ("synthetic:3:all", few.name)
    assert every.split_hash != few.split_hash
    assert every.labeled["id"][:] == [*few.labeled["id"][:], *few.unlabeled["id"][:]]
    assert every.labeled[:16] == few.labeled[:]
    assert every.labeled[16]["image"] == few.unlabeled[0]["image"]
    assert decode_label(every.labeled[16]["label"]["bytes"]).shape == (128, 128)
    assert every.validation is not None
    assert few.validation is not None
    assert every.validation[:] == few.validation[:]


@pytest.mark.parametrize("decode", [decode_image, decode_label])
def test_a_picture_that_breaks_off_inside_is_an_error_of_the_system(decode: Callable[[bytes], np.ndarray]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    data = bytearray(png(noise))
    # Pillow writes 64 KiB a chunk; in the name of the second one a bit has changed.
    place = data.index(b"IDAT", data.index(b"IDAT") + 4)
    data[place] ^= 0x80
    with pytest.raises(OSError, match="broken"):
        decode(bytes(data))
