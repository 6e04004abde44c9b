"""Prepared folders load undecoded and are compared with their record; pictures decode to what a person sees."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image, ImageOps
from raw_trees import CLASSES, write_tree

from s4mim_hf.data.catalog import default_palette
from s4mim_hf.data.plan import PrepareOptions
from s4mim_hf.data.prepare import prepare_folder, prepare_synthetic
from s4mim_hf.data.prepared import decode_image, decode_label, load_prepared
from s4mim_hf.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareOptions(write_tree(folder / "raw", bare=3, validation=2), folder / "out", labeled="4", name="mine")
    prepare_folder(options, say=lambda note: None)
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
    file.write_bytes(file.read_bytes()[:100])
    refused(copy, "cannot be read")
    file.unlink()
    refused(copy, "the validation split has 0 images, but splits.json lists 2")


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
    report = prepare_synthetic(tmp_path / "scenes", seed=3)
    folder = load_prepared(tmp_path / "scenes")
    assert report.split_hash == memory.split_hash == folder.split_hash
    assert memory.unlabeled is not None
    assert folder.unlabeled is not None
    assert set(memory.unlabeled[0]) == {"id", "image"}
    assert memory.labeled[0]["image"]["bytes"] == folder.labeled[0]["image"]["bytes"]
    assert memory.labeled[0]["label"]["bytes"] == folder.labeled[0]["label"]["bytes"]
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
