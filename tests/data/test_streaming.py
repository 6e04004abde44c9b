"""The sequence of streamed images: what it is, and that nothing but the seed, the shards and the settings makes it."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pools import names, pool_of, read, write_parquet, write_pool

from s4mim_hf.data.config import DataConfig, UnlabeledConfig
from s4mim_hf.data.streaming import ImageStream, open_pool
from s4mim_hf.data.streaming.shards import Shard
from s4mim_hf.data.streaming.units import deal
from s4mim_hf.errors import InputError
from s4mim_hf.randomness import generator

COUNTS = (5, 9, 4, 7, 6, 8)
ALL = {name.decode() for shard, count in enumerate(COUNTS) for name in names(shard, count)}


def permuted(items: Sequence[str], *purpose: str | int) -> list[str]:
    name, *counters = purpose
    drawn = torch.randperm(len(items), generator=generator(7, str(name), *map(int, counters)))
    return [items[index] for index in drawn.tolist()]


def reference(lane: int, length: int, lanes: int = 4, window: int = 4) -> list[str]:
    """Return a lane's first images as the definition says, with every shard in memory (6 shards of parquet)."""
    shards = permuted([str(shard) for shard in range(6)], "stream-deal")
    # 6 shards for 4 lanes: one whole one each, and the other two in halves.
    whole, cut = shards[:4], shards[4:]
    images = {shard: [name.decode() for name in names(int(shard), COUNTS[int(shard)])] for shard in shards}
    units = [images[shard] for shard in whole]
    for shard in cut:
        half = len(images[shard]) // 2
        units += [images[shard][:half], images[shard][half:]]
    own = {str(number): unit for number, unit in enumerate(units[lane::lanes])}
    read_order: list[str] = []
    cycle = 0
    while len(read_order) < length + window:
        for key in permuted(sorted(own), "stream-units", lane, cycle):
            read_order += own[key]
        cycle += 1
    shuffled: list[str] = []
    for number in range(length // window):
        shuffled += permuted(read_order[number * window : (number + 1) * window], "stream-window", lane, number)
    return shuffled


def stream(folder: Path, rank: int = 0, world_size: int = 1, seed: int = 7, **settings: int | str) -> ImageStream:
    return ImageStream(pool_of(folder, **settings), seed=seed, rank=rank, world_size=world_size)


@pytest.fixture(params=["parquet", "tar", "tar.gz", "mixed"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_pool(tmp_path / "pool", COUNTS, request.param)


def test_equals_the_definition(tmp_path: Path) -> None:
    whole = stream(write_pool(tmp_path / "pool", COUNTS))
    for lane in range(4):
        found = [image for batch in read(whole, range(lane, 80, 4)) for image in batch]
        assert found == reference(lane, 60)
    assert len({tuple(batch) for batch in read(whole, range(4))}) == 4


def test_resumes_at_any_micro_batch(pool: Path) -> None:
    unbroken = read(stream(pool), range(40))
    for start in (1, 3, 4, 11, 17, 24, 39):
        assert read(stream(pool), range(start, 40)) == unbroken[start:]


def test_a_micro_batch_does_not_depend_on_what_was_asked_before(pool: Path) -> None:
    unbroken, one = read(stream(pool), range(40)), stream(pool)
    for number in (30, 2, 2, 38, 6, 6, 7, 10, 14, 0):
        assert read(one, [number]) == [unbroken[number]]


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_workers_that_take_turns_change_nothing(pool: Path, workers: int) -> None:
    unbroken = read(stream(pool, shuffle_buffer=8), range(40))
    for worker in range(workers):
        its_own = range(worker, 40, workers)
        assert read(stream(pool, shuffle_buffer=8), its_own) == [unbroken[number] for number in its_own]


def test_a_divisor_of_the_lanes_reads_each_shard_in_one_worker(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", [6] * 8)
    opened = [{image.split(":")[0] for batch in read(stream(pool), range(w, 80, 2)) for image in batch} for w in (0, 1)]
    assert opened[0] | opened[1] == {str(shard) for shard in range(8)}
    assert not opened[0] & opened[1]


def test_ranks_read_shards_of_their_own_and_never_end(pool: Path) -> None:
    seen = [Counter(i for batch in read(stream(pool, rank, 2, lanes=2), range(60)) for i in batch) for rank in (0, 1)]
    assert not set(seen[0]) & set(seen[1])
    assert set(seen[0]) | set(seen[1]) == ALL
    assert sum(seen[0].values()) == sum(seen[1].values()) == 180


@pytest.mark.parametrize("counts", [(40,), (9, 12), (5, 3, 8), COUNTS, (4,) * 13])
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_every_image_comes_exactly_once_in_a_cycle_of_its_lane(tmp_path: Path, form: str, counts: tuple[int]) -> None:
    pool = write_pool(tmp_path / "pool", counts, form)
    total: Counter[str] = Counter()
    for lane in range(4):
        # A batch of one image from a window of one: the order of reading. Until its first image comes again.
        one = stream(pool, shuffle_buffer=4)
        cycle = [read(one, [lane + 4 * turn], size=1)[0][0] for turn in range(sum(counts))]
        length = next((n for n in range(1, len(cycle)) if cycle[n] in cycle[:n]), len(cycle))
        total.update(cycle[:length])
        assert Counter(cycle[:length]) == Counter(cycle[length : 2 * length]) or len(cycle) < 2 * length
    assert total == dict.fromkeys((n.decode() for shard, c in enumerate(counts) for n in names(shard, c)), 1)


@pytest.mark.parametrize(("shards", "lanes"), [(1, 8), (3, 8), (8, 8), (10, 8), (21, 16), (100, 8)])
def test_lanes_are_dealt_equal_amounts(shards: int, lanes: int) -> None:
    dealt = deal([Shard(str(n), str(n), 1, "tar") for n in range(shards)], lanes, seed=3)
    amounts = {sum(1 / unit.part.of for unit in units) for units in dealt}
    assert all(amount == pytest.approx(shards / lanes) for amount in amounts)
    pieces = Counter((unit.shard.url, unit.part) for units in dealt for unit in units)
    assert set(pieces.values()) == {1}
    whole = [url for (url, part) in pieces if part.of == 1]
    assert len(whole) == shards - shards % lanes
    assert dealt != deal([Shard(str(n), str(n), 1, "tar") for n in range(shards)], lanes, seed=4) or shards == 1


def test_seed_and_settings_choose_the_order(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", COUNTS)
    one = read(stream(pool), range(20))
    assert one == read(stream(pool), range(20))
    for other in (stream(pool, seed=8), stream(pool, lanes=2), stream(pool, shuffle_buffer=32)):
        assert read(other, range(20)) != one


def test_the_buffer_bounds_how_far_images_are_shuffled_and_what_is_held(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    write_parquet(pool / "a.parquet", names(0, 400), row_group=100)
    for buffer in (1, 20, 100):
        one = stream(pool, lanes=1, shuffle_buffer=buffer)
        places, held = [], 0
        for number in range(133):
            places += [int(image.split(":")[1]) for image in read(one, [number])[0]]
            held = max(held, sum(s is not None for w in one._lanes[0]._held.values() for s in w))
        moved = max(abs(place - at) for at, place in enumerate(places))
        assert moved < buffer
        assert moved >= buffer // 2
        # The window, and what is read ahead while a batch is made of it.
        assert held <= buffer + 3
    assert places[:100] != sorted(places[:100])


def test_streams_travel_to_workers_that_are_started_anew(tmp_path: Path) -> None:
    one = stream(write_pool(tmp_path / "pool", COUNTS))
    expected = read(one, range(8))
    assert read(pickle.loads(pickle.dumps(one)), range(8)) == expected


def test_counts_are_kept_and_change_nothing(tmp_path: Path) -> None:
    pool = pool_of(write_pool(tmp_path / "pool", [5, 9, 4, 7], "tar"))
    folder = tmp_path / "run"
    folder.mkdir()
    unbroken = read(ImageStream(pool, seed=7), range(60))
    assert read(ImageStream(pool, seed=7, counts_folder=folder), range(30)) == unbroken[:30]
    file = folder / "shard_counts.0.jsonl"
    lines = file.read_text().splitlines()
    assert len(lines) == 4
    # With them a resumed run opens no shard that it has passed: a missing one is not missed.
    file.write_text('{"shard": "shard-0' + "\n".join(["", *lines, '{"sha']))
    resumed = ImageStream(pool, seed=7, counts_folder=folder)
    assert read(resumed, range(30, 60)) == unbroken[30:]
    assert len(file.read_text().splitlines()) == 6


def test_counts_that_cannot_be_kept_end_no_run(tmp_path: Path) -> None:
    pool = pool_of(write_pool(tmp_path / "pool", [5, 9, 4, 7], "tar"))
    # A folder of that name cannot be appended to, whoever runs this.
    folder = tmp_path / "run"
    stream_of = ImageStream(pool, seed=7, counts_folder=folder)
    (folder / "shard_counts.0.jsonl").mkdir(parents=True)
    assert read(stream_of, range(30)) == read(ImageStream(pool, seed=7), range(30))


def test_a_resumed_stream_passes_over_shards_without_opening_them(tmp_path: Path) -> None:
    folder = write_pool(tmp_path / "pool", [8, 8, 8], "tar")
    pool, run = pool_of(folder, lanes=1, shuffle_buffer=1), tmp_path / "run"
    run.mkdir()
    unbroken = read(ImageStream(pool, seed=7, counts_folder=run), range(16))
    first = unbroken[0][0].split(":")[0]
    (folder / f"shard-00{first}.tar").unlink()
    assert read(ImageStream(pool, seed=7, counts_folder=run), range(3, 8)) == unbroken[3:8]
    with pytest.raises(InputError, match=rf"shard-00{first}.tar cannot be read"):
        read(ImageStream(pool, seed=7), range(3, 8))


def test_a_pool_smaller_than_the_lanes_is_refused(tmp_path: Path) -> None:
    one = stream(write_pool(tmp_path / "pool", [3]))
    with pytest.raises(InputError, match=r"a lane has no images.*lower data.unlabeled.lanes"):
        read(one, range(4))


def test_broken_images_are_replaced_by_the_next_whole_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pool"
    images: list[bytes | None] = list(names(0, 60))
    whole = stream(_written(folder / "whole", images), lanes=1, shuffle_buffer=8)
    order = [image for batch in read(whole, range(20)) for image in batch]
    for place in (4, 5, 11, 30):
        number = int(order[place].split(":")[1])
        images[number] = None if place == 11 else b"broken"
    spoiled = _written(folder / "spoiled", images)
    one = stream(spoiled, lanes=1, shuffle_buffer=8)
    found = [image for batch in read(one, range(20)) for image in batch]
    expected = list(order)
    for place in (30, 11, 5, 4):
        expected[place] = expected[place + 1]
    assert found == expected
    # The same wherever the run is resumed, and in the next cycle.
    assert [i for b in read(stream(spoiled, lanes=1, shuffle_buffer=8), range(3, 20)) for i in b] == expected[9:]
    capsys.readouterr()
    read(one, range(20, 60))
    read(one, range(20))
    assert capsys.readouterr().err == ""


def _written(folder: Path, images: Sequence[bytes | None]) -> Path:
    write_parquet(folder / "a.parquet", images)
    return folder


def test_broken_images_are_named_once_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [b"broken" if number % 20 == 3 else b"fine" for number in range(60)]
    one = stream(_written(tmp_path, images), lanes=1, shuffle_buffer=10)
    read(one, range(100))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("warning: row ") and "cannot be decoded (it is broken); row" in line for line in lines)
    assert {line.split()[2] for line in lines} == {"3", "23", "43"}
    assert [line[-3:-1].strip() for line in lines] == ["1", "2", "3"]


def test_very_many_broken_images_are_counted_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [b"broken" if number % 2 else b"fine" for number in range(600)]
    one = stream(_written(tmp_path, images), lanes=1, shuffle_buffer=10)
    read(one, range(200))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 102
    assert "no longer named" in lines[100]
    assert "so far: 128)" in lines[100]


def test_a_window_without_a_whole_image_ends_the_run(tmp_path: Path) -> None:
    one = stream(_written(tmp_path, [b"broken"] * 40), lanes=1, shuffle_buffer=8)
    with pytest.raises(InputError, match=r"row \d+ of .*a.parquet cannot be decoded \(it is broken\), nor .* of 8"):
        read(one, [0])


@pytest.mark.parametrize("name", ["data [1]", "data {1,2}", "data {0..2}*"])
def test_own_shards_of_a_prepared_folder(tmp_path: Path, name: str) -> None:
    prepared = tmp_path / name
    for part in range(2):
        write_parquet(prepared / "data" / f"unlabeled-0000{part}-of-00002.parquet", names(part, 9))
    write_parquet(prepared / "data" / "labeled-00000-of-00001.parquet", names(5, 9))
    pool = open_pool(DataConfig(path=str(prepared), unlabeled=UnlabeledConfig(streaming=True, lanes=2)))
    assert [shard.name for shard in pool.shards] == [f"unlabeled-0000{part}-of-00002.parquet" for part in range(2)]
    assert str(pool).startswith("2 shards (0.0 MB)")
    assert set(pool.counts.values()) == {9}
    for path in (prepared / "data").glob("unlabeled*"):
        path.unlink()
    with pytest.raises(InputError, match="no unlabelled images to stream"):
        open_pool(DataConfig(path=str(prepared), unlabeled=UnlabeledConfig(streaming=True)))
    with pytest.raises(InputError, match="'synthetic:3', the embedded data, which has no shards"):
        open_pool(DataConfig(path="synthetic:3", unlabeled=UnlabeledConfig(streaming=True)))
