"""Rows of data sets as the Hub has them: parquet, image folders, masks as pictures and arrays; and the Hub itself."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hub_client import ChildError, HubClient, hub_client
from hub_server import Account, HubServer, running_hub
from hub_trees import (
    HEIGHT,
    PICTURE,
    WIDTH,
    ids,
    label,
    mask,
    opened,
    parquet,
    picture,
    plain,
    refused,
    row,
    written,
)

from s4mim_hf.data.sources.base import Item, SampleError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_parquet_with_the_usual_names(tmp_path: Path) -> None:
    source = opened(plain(tmp_path / "city", train=3, validation=2, test=1), classes=("a", "b", "c"))
    listing = source.listing()
    assert ids(listing.training) == ["train/000000", "train/000001", "train/000002"]
    assert ids(listing.validation) == ["validation/000000", "validation/000001"]
    assert source.classes is not None
    assert (source.name, source.title, source.classes.names) == ("city", "city", ("a", "b", "c"))
    for items in (listing.training, listing.validation or []):
        for seed, item in enumerate(items):
            assert source.read_image(item) == picture(seed)["bytes"]
            assert source.read_label(item).dtype == np.int64
            np.testing.assert_array_equal(source.read_label(item), mask(seed))
            assert source.file_name(item) == f"{seed:06d}.png"
    assert len(source.depends_on()) == 2
    assert all(path.is_file() for path in source.depends_on())
    assert list(listing.notes) == [
        "splits that are left out: test",
        "pictures are those of column 'image', masks those of 'label'",
    ]


def test_what_save_to_disk_and_a_single_file_hold(tmp_path: Path) -> None:
    folder = plain(tmp_path / "raw", train=4, val=2)
    loaded = datasets.load_dataset(str(folder))
    # A selection is stored as indices into the whole table.
    chosen = datasets.DatasetDict(train=loaded["train"].select([3, 1]), val=loaded["val"])
    chosen.save_to_disk(tmp_path / "saved")
    source = opened(tmp_path / "saved")
    listing = source.listing()
    np.testing.assert_array_equal(source.read_label(listing.training[0]), mask(3))
    assert ids(listing.validation) == ["val/000000", "val/000001"]
    assert source.classes is None
    single = opened(folder / "data" / "val-00000-of-00001.parquet").listing()
    assert ids(single.training) == ["train/000000", "train/000001"]
    assert single.validation is None


def test_rows_are_read_in_threads(tmp_path: Path) -> None:
    source = opened(plain(tmp_path / "raw", train=40))
    items = source.listing().training
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.read_label, items))
    for seed, each in enumerate(found):
        np.testing.assert_array_equal(each, mask(seed))


def test_an_image_folder(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        folder = tmp_path / split
        (folder / "masks").mkdir(parents=True)
        lines = []
        for seed in range(2):
            (folder / f"p{seed}.jpg").write_bytes(picture(seed, kind="JPEG")["bytes"])
            (folder / "masks" / f"m{seed}.png").write_bytes(label(seed)["bytes"])
            lines.append(json.dumps({"file_name": f"p{seed}.jpg", "mask_file_name": f"masks/m{seed}.png"}))
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    source = opened(tmp_path)
    listing = source.listing()
    assert ids(listing.training) == ["train/p0", "train/p1"]
    assert ids(listing.validation) == ["validation/p0", "validation/p1"]
    item = listing.training[1]
    assert source.file_name(item) == "p1.jpg"
    assert source.read_image(item) == (tmp_path / "train" / "p1.jpg").read_bytes()
    np.testing.assert_array_equal(source.read_label(item), mask(1))
    (tmp_path / "train" / "p1.jpg").unlink()
    with pytest.raises(SampleError, match="images cannot be read"):
        source.read_image(item)


def test_a_colour_table_is_for_pictures(tmp_path: Path) -> None:
    types = {"pixel_values": PICTURE, "labels": datasets.Array2D((HEIGHT, WIDTH), "uint8")}
    raw = parquet(tmp_path / "raw", types, train=[{"pixel_values": picture(0), "labels": mask(0).tolist()}])
    table = written(tmp_path, "colors.json", {"a": [0, 0, 0], "b": [1, 2, 3]})
    refused(raw, "--color-table is for masks that are pictures, but column 'labels' of", color_table=table)


@pytest.mark.parametrize("kind", ["list", "array", "class labels"])
def test_masks_as_arrays(kind: str, tmp_path: Path) -> None:
    types = {
        "list": datasets.List(datasets.List(datasets.Value("int32"))),
        "array": datasets.Array2D((HEIGHT, WIDTH), "uint8"),
        "class labels": datasets.List(datasets.List(datasets.ClassLabel(names=["a", "b", "c"]))),
    }
    values = [mask(seed) % 3 if kind == "class labels" else mask(seed) for seed in range(2)]
    rows = [{"pixel_values": picture(seed), "labels": value.tolist()} for seed, value in enumerate(values)]
    if kind != "array":
        rows.append({"pixel_values": picture(2), "labels": [[1, 2], [1]]})
    source = opened(parquet(tmp_path / "raw", {"pixel_values": PICTURE, "labels": types[kind]}, train=rows))
    items = source.listing().training
    for item, value in zip(items, values, strict=False):
        np.testing.assert_array_equal(source.read_label(item), value)
    if kind != "array":
        with pytest.raises(SampleError, match="rows differ in length"):
            source.read_label(items[2])
    named = kind == "class labels"
    assert (source.classes.names if source.classes else None) == (("a", "b", "c") if named else None)


def test_rows_without_a_mask(tmp_path: Path) -> None:
    rows = [row(0), {"image": picture(1), "label": None}, {"image": picture(2), "label": None}]
    source = opened(parquet(tmp_path / "raw", {"image": PICTURE, "label": PICTURE}, train=rows, test=rows))
    listing = source.listing()
    assert [item.label is None for item in listing.training] == [False, True, True]
    assert ids(listing.validation) == ["test/000000"]
    assert "validation is the split 'test'; see --validation-split" in listing.notes
    assert "2 rows of 'test' have no mask and are left out" in listing.notes
    none = parquet(tmp_path / "none", {"image": PICTURE, "label": PICTURE}, train=rows, test=rows[1:])
    assert opened(none).listing().validation is None
    # Other writers store a record of two nulls.
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    rows = [row(0), {"image": picture(1), "label": {"bytes": None, "path": None}}]
    made = opened(parquet(tmp_path / "other", {"image": PICTURE, "label": stored}, train=rows), label_column="label")
    assert [item.label is None for item in made.listing().training] == [False, True]
    np.testing.assert_array_equal(made.read_label(made.listing().training[0]), mask(0))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["x_b.png", "x_a.png"], ["train/x_b", "train/x_a"]),
        (["train/b", "a\\c.jpg"], ["train/b", "train/a/c"]),
        ([12, 7], ["train/12", "train/7"]),
        (["a", "a"], ["train/f0", "train/f1"]),
        (["a.png", "a.jpg"], ["train/f0", "train/f1"]),
        (["a", None], ["train/f0", "train/f1"]),
        (["a", "../b"], ["train/f0", "train/f1"]),
    ],
)
def test_ids_are_a_column_or_the_names_of_files(values: list[Any], expected: list[str], tmp_path: Path) -> None:
    kind = datasets.Value("int64" if isinstance(values[0], int) else "string")
    rows = [
        {"image": picture(seed, f"f{seed}.png"), "label": label(seed), "file_name": value}
        for seed, value in enumerate(values)
    ]
    source = opened(parquet(tmp_path / "raw", {"image": PICTURE, "label": PICTURE, "file_name": kind}, train=rows))
    items = source.listing().training
    assert ids(items) == sorted(expected)
    for item in items:
        np.testing.assert_array_equal(source.read_label(item), mask(expected.index(item.id)))


def test_pictures_that_are_none(tmp_path: Path) -> None:
    rows = [{"image": None, "label": label(0)}, {"image": {"bytes": b"junk", "path": None}, "label": label(1)}]
    made = opened(parquet(tmp_path / "raw", {"image": PICTURE, "label": PICTURE}, train=rows))
    items = made.listing().training
    with pytest.raises(SampleError, match="missing from their rows"):
        made.read_image(items[0])
    assert (made.read_image(items[1]), made.file_name(items[1])) == (b"junk", "000001.png")


def test_data_sets_that_cannot_be_loaded(tmp_path: Path) -> None:
    refused(tmp_path / "nothing" / "at" / "all", "--source of 'hub' is an id such as USER/NAME, or a local path")
    script = tmp_path / "script"
    script.mkdir()
    (script / "script.py").write_text("import datasets\n")
    refused(script, "is a Python script, which datasets")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty cannot be loaded: The directory at")
    refused(written(tmp_path, "a.zip", "PK"), "is a file; give a parquet file")
    source = plain(tmp_path / "raw", train=2)
    file = source / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    refused(source, "raw cannot be loaded: Parquet magic bytes not found")


def test_offline(tmp_path: Path) -> None:
    # conftest.py has set HF_HUB_OFFLINE.
    refused(
        "nobody/nothing", "cannot load the data set nobody/nothing: HF_HUB_OFFLINE is set, and it is not in the cache"
    )


def summary_of(source: str, **options: Any) -> dict[str, Any]:
    """Open a data set of the Hub, and return what a test compares."""
    made = opened(source, **options)
    listing = made.listing()
    item: Item = listing.training[0]
    return {
        "ids": ids(listing.training),
        "name": (made.name, made.title, made.note),
        "classes": made.classes.names if made.classes else None,
        "image": list(made.read_image(item)),
        "label": made.read_label(item).tolist(),
    }


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with running_hub(me=Account("me")) as server:
        yield server


@pytest.fixture(scope="module")
def child(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    with hub_client(hub.environment(tmp_path_factory.mktemp("home"))) as client:
        yield client


def test_data_sets_of_the_hub(hub: HubServer, child: HubClient, tmp_path: Path) -> None:
    source = plain(tmp_path / "raw", train=2)
    written(source, "id2label.json", {"0": "a", "1": "b", "2": "c"})
    commit = hub.put("dataset", "me/scenes", source)
    found = child("test_hub_source:summary_of", "me/scenes")
    assert found["ids"] == ["train/000000", "train/000001"]
    assert found["name"] == [
        "scenes",
        "me/scenes",
        f"From the data set me/scenes of the Hugging Face Hub, revision {commit}.",
    ]
    assert found["classes"] == ["a", "b", "c"]
    assert bytes(found["image"]) == picture(0)["bytes"]
    np.testing.assert_array_equal(found["label"], mask(0))
    shutil.rmtree(source)
    hub.put("dataset", "me/scenes", plain(tmp_path / "raw", train=3))
    assert len(child("test_hub_source:summary_of", "me/scenes", classes=["x"])["ids"]) == 3
    assert len(child("test_hub_source:summary_of", f"hf://datasets/me/scenes@{commit}")["ids"]) == 2


def test_what_the_hub_refuses(hub: HubServer, child: HubClient, tmp_path: Path) -> None:
    hub.put("dataset", "me/private", plain(tmp_path / "raw", train=1), private=True)

    def says(message: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(ChildError, match=re.escape(message)):
            child("test_hub_source:summary_of", *arguments, **options)

    says("cannot load the data set me/private: there is none of that name, or it is private", "me/private")
    assert len(child("test_hub_source:summary_of", "me/private", token="me")["ids"]) == 1
    says("the data set me/private at 'v2': it has no such revision", "me/private@v2", token="me")
    hub.fail("GET", "/api/datasets/me/private", 503, message="resting")
    says("the Hub failed with status 503 (resting); try again later; --source takes a local", "me/private", token="me")
    hub.fail("GET", "/api/datasets/me/private", 0)
    says("gives no answer", "me/private", token="me")
    # Nothing was asked twice: who has no connection learns it at once.
    assert hub.requests.count("GET /api/datasets/me/private") == 4
