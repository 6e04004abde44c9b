"""Shards behind a web server: the same images as from a disk, by ranges, over a network that fails now and then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pools import names, pool_of, read, tar_of, write_parquet, write_pool
from range_server import RangeServer, serve

from s4mim_hf.data.streaming import ImageStream, files
from s4mim_hf.data.streaming.shards import list_shards
from s4mim_hf.data.streaming.units import Unit
from s4mim_hf.errors import InputError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "site").mkdir()
    with serve(tmp_path / "site") as running:
        yield running


@pytest.fixture(autouse=True)
def _no_time_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(files, "BLOCK", 3000)


def stream(shards: Path | str, **settings: Any) -> ImageStream:
    return ImageStream(pool_of(shards, **settings), seed=7)


@pytest.mark.parametrize("form", ["parquet", "tar", "tar.gz"])
def test_the_same_images_as_from_a_disk(server: RangeServer, form: str) -> None:
    folder = write_pool(server.folder / "pool", [9, 5, 7, 8, 6, 9], form)
    local, remote = pool_of(folder), pool_of(f"{server.url}/pool/shard-{{000..005}}.{form}?signature=secret")
    assert remote.fingerprint == local.fingerprint
    expected = read(ImageStream(local, seed=7), range(30))
    assert read(ImageStream(remote, seed=7), range(30)) == expected
    assert read(ImageStream(remote, seed=7), range(17, 30)) == expected[17:]


def test_row_groups_of_others_are_not_transferred(server: RangeServer) -> None:
    images = [bytes([value]) * 30000 for value in range(48)]
    write_parquet(server.folder / "a.parquet", images, row_group=4, compressed=False)
    size = (server.folder / "a.parquet").stat().st_size
    (shard,) = list_shards([f"{server.url}/a.parquet"])
    assert Unit(shard).images_in_shard(None) == 48
    assert sum(end - first for method, _, first, end in server.requests if method == "GET") < size / 8
    server.requests.clear()
    samples = Unit(shard).samples(None, skip=40)
    assert [sample.data for sample in samples] == images[40:]
    assert sum(end - first for method, _, first, end in server.requests if method == "GET") < size / 3


@pytest.mark.parametrize("how", ["drop", "short", "500", "503", "429"])
@pytest.mark.parametrize("form", ["parquet", "tar", "tar.gz"])
def test_a_network_that_fails_now_and_then_changes_nothing(server: RangeServer, form: str, how: str) -> None:
    write_pool(server.folder / "pool", [9, 5, 7, 8], form)
    remote = stream(f"{server.url}/pool/shard-{{000..003}}.{form}")
    expected = read(stream(server.folder / "pool"), range(20))
    server.requests.clear()
    server.fail = lambda number: how if number % 4 in (1, 2) else ""
    assert read(remote, range(20)) == expected
    assert server.gets > 6


@pytest.mark.parametrize(
    ("how", "gets", "tries"),
    [("500", 4, "4"), ("drop", 4, "4"), ("short", 4, "4"), ("403", 1, "1"), ("401", 1, "1")],
)
def test_a_network_that_stays_away_is_one_sentence(server: RangeServer, how: str, gets: int, tries: str) -> None:
    tar_of(server.folder / "a.tar", [b"x" * 2000] * 20)
    remote = stream(f"{server.url}/a.tar", lanes=1)
    server.requests.clear()
    server.fail = lambda number: how
    with pytest.raises(
        InputError, match=rf"^{server.url}/a.tar cannot be read \(.*tries: {tries}\); .* --resume"
    ) as error:
        read(remote, range(2))
    assert "\n" not in str(error.value)
    # aiohttp asks once more by itself where a connection is dropped.
    assert server.gets in (gets, 2 * gets)
    # And once it is back, the same stream goes on.
    server.fail = lambda number: ""
    assert len(read(remote, range(2))) == 2


def test_a_shard_that_vanishes(server: RangeServer) -> None:
    write_parquet(server.folder / "a.parquet", names(0, 400), row_group=40)
    remote = stream(f"{server.url}/a.parquet", lanes=1)
    (server.folder / "a.parquet").unlink()
    with pytest.raises(InputError, match=rf"{server.url}/a.parquet is no longer there"):
        read(remote, range(2))


def test_a_server_that_sends_whole_files_only(server: RangeServer) -> None:
    tar_of(server.folder / "a.tar", [b"x" * 2000] * 20)
    server.fail = lambda number: "whole"
    with pytest.raises(InputError, match=r"a.tar cannot be read \(ValueError: .*range requests.* tries: 1\)"):
        read(stream(f"{server.url}/a.tar", lanes=1), range(2))


def test_addresses_without_a_shard(server: RangeServer) -> None:
    with pytest.raises(InputError, match=r"nothing.tar', but there is no such file"):
        list_shards([f"{server.url}/nothing.tar"])
    server.fail = lambda number: "503"
    port = server.server_port
    server.shutdown()
    server.server_close()
    url = f"http://127.0.0.1:{port}/a.tar"
    with pytest.raises(InputError, match=rf"{url} cannot be read \(.*tries: 3\); check the address"):
        list_shards([url])


@pytest.mark.parametrize("form", ["parquet", "tar", "tar.gz"])
def test_a_remote_shard_cut_short(server: RangeServer, form: str) -> None:
    images = [bytes([value]) * 2000 for value in range(20)]
    path = server.folder / f"a.{form}"
    write_parquet(path, images) if form == "parquet" else tar_of(path, images)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    (shard,) = list_shards([f"{server.url}/a.{form}"])
    with pytest.raises(InputError, match=rf"{server.url}/a.{form} .*cut short"):
        list(Unit(shard).samples(None))


def test_shards_of_two_servers_keep_their_names_apart(tmp_path: Path) -> None:
    with serve(tmp_path / "a") as first, serve(tmp_path / "b") as second:
        for number, site in enumerate((first, second)):
            site.folder.mkdir(exist_ok=True)
            write_parquet(site.folder / "0.parquet", names(number, 4))
        shards = list_shards([f"{site.url}/0.parquet" for site in (first, second)])
        assert len({shard.name for shard in shards}) == 2
        assert all(shard.name.endswith("0.parquet") for shard in shards)
