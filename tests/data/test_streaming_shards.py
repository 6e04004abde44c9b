"""Which shards a list of names and patterns means, and how they are known again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pools import names, pool_of, write_parquet, write_pool, write_tar

from s4mim_hf.data.streaming.shards import expand_braces, fingerprint, list_shards
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.errors import InputError


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{x,yy}/{0..1}.tar", ["x/0.tar", "x/1.tar", "yy/0.tar", "yy/1.tar"]),
        ("a{,-b}.tar", ["a.tar", "a-b.tar"]),
        ("{a}/{}.tar", ["{a}/{}.tar"]),
        ("{5..5}", ["5"]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize(("pattern", "message"), [("{9..3}.tar", "rising"), ("{0..999}{0..9999}", "more than 1000000")])
def test_braces_that_mean_no_names(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand_braces(pattern)


def test_order_is_that_of_the_list_and_sorted_within_a_pattern(tmp_path: Path) -> None:
    write_pool(tmp_path, [2] * 4)
    patterns = ("shard-003.parquet", "shard-00[0-1]*", "shard-{002..002}.*")
    shards = list_shards([f"{tmp_path}/{pattern}" for pattern in patterns])
    assert [shard.name[6:9] for shard in shards] == ["003", "000", "001", "002"]
    assert all(shard.size == Path(shard.url).stat().st_size for shard in shards)
    assert {shard.form for shard in shards} == {"parquet"}


def test_names_are_those_below_the_shared_folder_and_sizes_count(tmp_path: Path) -> None:
    for place in ("here", "there/deep"):
        write_parquet(tmp_path / place / "a" / "x.parquet", names(0, 3))
        write_parquet(tmp_path / place / "b" / "x.parquet", names(1, 3))
    here, there = (list_shards([f"{tmp_path}/{place}/*/x.parquet"]) for place in ("here", "there/deep"))
    assert [shard.name for shard in here] == ["a/x.parquet", "b/x.parquet"]
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(here[::-1])
    assert fingerprint(here) != fingerprint(here[:1])
    write_parquet(tmp_path / "here" / "a" / "x.parquet", names(0, 4))
    assert fingerprint(list_shards([f"{tmp_path}/here/*/x.parquet"])) != fingerprint(here)


def test_paths_relative_to_the_folder_and_to_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pool(tmp_path / "pool", [2, 2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = [str(tmp_path / "pool" / f"shard-00{number}.parquet") for number in (0, 1)]
    for pattern in ("pool/*", "./pool/shard-{000..001}.parquet", "~/pool/*.parquet"):
        assert [os.path.normpath(shard.url) for shard in list_shards([pattern])] == expected


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a[1].parquet", names(0, 2))
    assert [shard.name for shard in list_shards([f"{tmp_path}/a[1].parquet"])] == ["a[1].parquet"]


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("nothing-*.tar", r"nothing-\*.tar', which no file matches"),
        ("nothing.tar", "nothing.tar', but there is no such file"),
        ("folder", r"folder', which is a folder; name the files in it, as in .*folder/\*.tar"),
        (["shard-000.parquet", "shard-*"], r"shard-000.parquet more than once"),
        ("notes.txt", "notes.txt', which is none of .parquet, .tar, .tar.gz, .tgz"),
        ("empty.tar", r"empty.tar is empty \(0 bytes\)"),
        ("https://example.org/a-*.tar", "a web server lists no files"),
        ("nowhere://bucket/a.tar", "nowhere://bucket/a.tar', which cannot be opened: .*nowhere"),
    ],
)
def test_bad_lists(tmp_path: Path, shards: str | list[str], message: str) -> None:
    write_pool(tmp_path, [2, 2])
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("no shard")
    (tmp_path / "empty.tar").write_bytes(b"")
    patterns = [shards] if isinstance(shards, str) else shards
    with pytest.raises(InputError, match=message):
        list_shards([name if "://" in name else f"{tmp_path}/{name}" for name in patterns])


def test_every_local_shard_is_checked_before_anything_runs(tmp_path: Path) -> None:
    folder = write_pool(tmp_path, [6] * 6, "mixed")
    pool_of(folder)
    for name in ("shard-003.parquet", "shard-004.tar"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=f"{name} .*cut short"):
            pool_of(folder)
        path.write_bytes(whole)
    write_parquet(folder / "shard-003.parquet", names(0, 3), column="photo")
    with pytest.raises(InputError, match=r"shard-003.parquet has no column 'image' \(its columns: id, photo, cap"):
        pool_of(folder)
    write_parquet(folder / "shard-003.parquet", [])
    with pytest.raises(InputError, match=r"shard-003.parquet has no rows"):
        pool_of(folder)


def test_the_first_shard_is_opened_before_anything_runs(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", [("a.txt", b"text")])
    with pytest.raises(InputError, match=r"a.tar.gz holds no image of suffix .*suffixes: txt"):
        pool_of(tmp_path)


def test_settings_say_what_is_wrong_with_them() -> None:
    for setting in ("shards=a.tar", "shards=[a.tar, b.tar]", "image_column=photo", "shuffle_buffer=9", "lanes=3"):
        key = setting.partition("=")[0]
        with pytest.raises(InputError, match=f"data.unlabeled.{key} is set, .*add data.unlabeled.streaming=true"):
            load_run_config("demo", [f"data.unlabeled.{setting}"])
    for setting, message in {
        "shuffle_buffer=7": "each of the 8 lanes holds one image",
        "lanes=0": "data.unlabeled.lanes is 0",
        "shards=['']": "data.unlabeled.shards is",
        "shards={a: b}": "expected text or a list of texts",
    }.items():
        with pytest.raises(InputError, match=message):
            load_run_config("demo", ["data.unlabeled.streaming=true", f"data.unlabeled.{setting}"])
    chosen = load_run_config("demo", ["data.unlabeled.streaming=true", "data.unlabeled.shards=*.tar"]).data.unlabeled
    assert chosen.patterns == ("*.tar",)
