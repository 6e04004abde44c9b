"""Shards on the Hub: the same images as from a disk, by `hf://` addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import ChildError, HubClient, hub_client
from hub_server import Account, HubServer, running_hub
from pools import names, pool_of, read, write_parquet, write_pool
from prepared_folders import write_folder

from s4mim_hf.data.streaming import ImageStream

TEXTS = "pools:texts_of"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with running_hub(mine=Account("ann")) as running:
        yield running


@pytest.fixture(scope="module")
def client(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    with hub_client(hub.environment(tmp_path_factory.mktemp("home"))) as child:
        yield child


def test_parquet_and_tars_are_read_by_ranges(hub: HubServer, client: HubClient, tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    write_pool(folder / "data", [9, 5, 7, 8])
    write_pool(folder / "tars", [9, 5, 7, 8], "tar")
    hub.put("dataset", "ann/pool", folder)
    expected = read(ImageStream(pool_of(folder / "data"), seed=7), range(24))
    assert client(TEXTS, "hf://datasets/ann/pool/data/*.parquet", 0, 24) == expected
    # Tars are divided among lanes otherwise than parquet files only where there are fewer of them than lanes.
    assert client(TEXTS, "hf://datasets/ann/pool@main/tars/shard-{000..003}.tar", 9, 24) == expected[9:]
    hub.fail("GET", r"/resolve/main/data/shard-00", 503, times=1)
    assert client(TEXTS, "hf://datasets/ann/pool/data/*.parquet", 13, 24) == expected[13:]


def test_own_shards_of_prepared_data_on_the_hub(hub: HubServer, client: HubClient, tmp_path: Path) -> None:
    for part in range(2):
        write_parquet(tmp_path / "data" / f"unlabeled-0000{part}-of-00002.parquet", names(part, 9))
    write_parquet(tmp_path / "data" / "labeled-00000-of-00001.parquet", names(5, 9))
    hub.put("dataset", "ann/prepared", tmp_path)
    found = client("pools:own_shards_of", "hf://datasets/ann/prepared")
    assert found == [f"hf://datasets/ann/prepared/data/unlabeled-0000{part}-of-00002.parquet" for part in range(2)]


def test_what_is_not_there_or_not_for_everybody(hub: HubServer, client: HubClient, tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", [9])
    hub.put("dataset", "ann/secret", tmp_path / "pool", private=True)
    for shards, message in {
        "hf://datasets/ann/nothing/*.parquet": "nothing/\\*.parquet cannot be read .*401",
        "hf://datasets/ann/nothing/a.parquet": "nothing/a.parquet cannot be read .*401",
        "hf://datasets/ann/secret/*.parquet": "secret/\\*.parquet cannot be read .*log in with",
    }.items():
        with pytest.raises(ChildError, match=message) as error:
            client(TEXTS, shards, 0, 1)
        assert "\n" not in str(error.value)
    hub.put("dataset", "ann/pool", tmp_path / "pool")
    for shards, message in {
        "hf://datasets/ann/pool/*.tar": "which no file matches",
        "hf://datasets/ann/pool/a.parquet": "but there is no such file",
        "hf://datasets/ann/pool@v9/*.parquet": "which no file matches",
    }.items():
        with pytest.raises(ChildError, match=message):
            client(TEXTS, shards, 0, 1)


def test_prediction_finds_data_sets_prepared_or_not_and_shards(
    hub: HubServer, client: HubClient, tmp_path: Path
) -> None:
    find = "hub_client:names_to_predict"
    prepared = write_folder(tmp_path / "scenes")
    hub.put("dataset", "ann/scenes", prepared)
    assert client(find, "hf://datasets/ann/scenes") == client(find, prepared)
    write_parquet(tmp_path / "plain" / "train.parquet", names(0, 2))
    hub.put("dataset", "ann/plain", tmp_path / "plain")
    rows = ["train/0", "train/1"]
    assert client(find, "ann/plain", image_column="image") == rows
    assert client(find, "hf://datasets/ann/plain/default", image_column="image") == rows
    assert client(find, "hf://datasets/ann/plain/*.parquet") == ["train/000000", "train/000001"]
    with pytest.raises(ChildError, match="there is no file or folder ann/nothing here, either"):
        client(find, "ann/nothing")
