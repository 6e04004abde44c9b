"""Reading one shard: parquet files and webdataset tars as people have them, whole, in parts, and broken."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pools import names, tar_of, write_parquet, write_tar

from s4mim_hf.data.streaming.samples import Part, Sample
from s4mim_hf.data.streaming.shards import list_shards
from s4mim_hf.data.streaming.units import Unit
from s4mim_hf.errors import InputError


def unit(path: Path, part: Part | None = None) -> Unit:
    (shard,) = list_shards([str(path)])
    return Unit(shard, part or Part())


def contents(path: Path, column: str | None = None, part: Part | None = None, skip: int = 0) -> list[bytes | None]:
    return [sample.data for sample in unit(path, part).samples(column, skip)]


def counted(path: Path) -> int:
    """Return how many images a shard is said to have once it is read through."""
    samples = unit(path).samples(None)
    while True:
        try:
            next(samples)
        except StopIteration as end:
            return end.value


# parquet


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("row_group", [3, 7, 1000])
def test_parquet_parts_and_skips(tmp_path: Path, plain: bool, row_group: int) -> None:
    images: list[bytes | None] = [*names(0, 20), None, *names(1, 2)]
    path = write_parquet(tmp_path / "a.parquet", images, plain=plain, row_group=row_group)
    assert contents(path) == images
    assert counted(path) == unit(path).images_in_shard(None) == 23
    for of in (1, 2, 5, 23, 30):
        parts = [contents(path, part=Part(number, of)) for number in range(of)]
        assert [image for part in parts for image in part] == images
        assert [len(part) for part in parts] == [unit(path, Part(number, of)).share(23) for number in range(of)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for skip in (1, 8, 9, 11):
        assert contents(path, part=Part(1, 2), skip=skip) == images[11 + skip :]
    assert next(unit(path, Part(1, 2)).samples(None, 4)).name == f"row 15 of {path}"


def test_parquet_that_datasets_writes_and_large_binary(tmp_path: Path) -> None:
    pixels = [np.full((3, 4, 3), value, np.uint8) for value in (1, 2)]
    data = datasets.Dataset.from_dict({"image": pixels}, features=datasets.Features({"image": datasets.Image()}))
    data.to_parquet(tmp_path / "a.parquet")
    encoded = data.cast_column("image", datasets.Image(decode=False))["image"]
    assert contents(tmp_path / "a.parquet") == [image["bytes"] for image in encoded]
    pq.write_table(pa.table({"photo": pa.array([b"x", b"y"], pa.large_binary())}), tmp_path / "b.parquet")
    assert contents(tmp_path / "b.parquet", "photo") == [b"x", b"y"]


def test_parquet_reads_no_other_column(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", names(0, 50))
    metadata = pq.ParquetFile(path).metadata.row_group(0)
    columns = {metadata.column(number).path_in_schema: metadata.column(number) for number in range(4)}
    spoiled = bytearray(path.read_bytes())
    for name in ("id", "image.path", "caption"):
        start = columns[name].dictionary_page_offset or columns[name].data_page_offset
        spoiled[start : start + columns[name].total_compressed_size] = b"\xff" * columns[name].total_compressed_size
    path.write_bytes(spoiled)
    assert contents(path) == names(0, 50)


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        ({"img": [b"x"]}, None, r"has no column 'image' \(its columns: img\).*data.unlabeled.image_column"),
        ({"image": [b"x"], "photos": [b"x"]}, "photo", "has no column 'photo' .*did you mean 'photos'"),
        ({"image": ["a.jpg"]}, None, "column 'image' of .* holds string, and no images"),
        ({"image": [{"path": "a.jpg"}]}, None, "holds struct<path: string>, and no images"),
        ({"image": [[1, 2]]}, None, "holds list<.*>, and no images"),
        ({"image": pa.array([], pa.binary())}, None, "has no rows"),
    ],
)
def test_parquet_without_images(tmp_path: Path, table: dict[str, Any], column: str | None, message: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    for read in (lambda one: one.images_in_shard(column), lambda one: list(one.samples(column))):
        with pytest.raises(InputError, match=message):
            read(unit(tmp_path / "a.parquet"))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_parquet_cut_short(tmp_path: Path, kept: float) -> None:
    path = write_parquet(tmp_path / "a.parquet", names(0, 500))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError, match=r"a.parquet cannot be read as parquet \(.*\); it may be cut short"):
        contents(path)


def test_parquet_with_a_damaged_row_group(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [bytes([value % 251]) * 3000 for value in range(40)], row_group=10)
    start = pq.ParquetFile(path).metadata.row_group(2).column(1).data_page_offset
    spoiled = bytearray(path.read_bytes())
    spoiled[start : start + 40] = b"\xff" * 40
    path.write_bytes(spoiled)
    samples = unit(path).samples(None)
    assert len([next(samples) for _ in range(20)]) == 20
    with pytest.raises(InputError, match=r"a.parquet cannot be read as parquet"):
        next(samples)


# tar


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "TAR"])
def test_tar_parts_and_skips(tmp_path: Path, suffix: str) -> None:
    path = tar_of(tmp_path / f"a.{suffix}", names(0, 23))
    if suffix == "tgz":
        assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert contents(path) == names(0, 23)
    assert counted(path) == 23
    for of in (1, 2, 5, 23, 30):
        parts = [contents(path, part=Part(number, of)) for number in range(of)]
        assert sorted(image for part in parts for image in part if image) == sorted(names(0, 23))
        assert [len(part) for part in parts] == [unit(path, Part(number, of)).share(23) for number in range(of)]
    for skip in (1, 5, 8):
        assert contents(path, part=Part(1, 3), skip=skip) == names(0, 23)[1::3][skip:]
    assert next(unit(path, Part(1, 3)).samples(None, 2)) == Sample(f"set/0007.jpg in {path}", b"0:7", "set/0007")


def test_tar_keys_and_suffixes(tmp_path: Path) -> None:
    members = [
        ("a/1.cls", b"-"),
        ("a/1.JPG", b"a1"),
        ("a/1.png", b"second image of a sample"),
        ("a/2.seg.png", b"label"),
        ("a/2.txt", b"-"),
        ("b/1.png", b"b1"),
        ("b.x/1.webp", b"bx1"),
        ("./3.jpeg", b"3"),
        (".hidden.jpg", b"-"),
        ("__MACOSX/a/._1.jpg", b"-"),
        ("noext", b"-"),
        ("ä/" + "long" * 40 + "/5.tiff", b"5"),
        ("6.rgb.jpg", b"6"),
        ("6.depth.png", b"-"),
    ]
    path = write_tar(tmp_path / "a.tar", members)
    assert contents(path) == [b"a1", b"b1", b"bx1", b"3", b"5"]
    for suffix in ("rgb.jpg", ".RGB.jpg"):
        assert contents(path, suffix) == [b"6"]
    assert contents(path, "seg.png") == [b"label"]


def test_tar_folders_and_links_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind in (("d.jpg", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "a.jpg"
            archive.addfile(entry)
        entry = tarfile.TarInfo("a.jpg")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"image"))
    assert contents(tmp_path / "a.tar") == [b"image"]


def test_a_tar_s_members_are_not_collected(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", names(0, 1000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in unit(path).samples(None)) == 1000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The descriptions of its 4,000 files take 1.8 MB.
    assert peak < 1e6


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_tar_cut_short_anywhere(tmp_path: Path, suffix: str) -> None:
    path = tar_of(tmp_path / f"a.{suffix}", [bytes([value]) * 700 for value in range(6)])
    whole = path.read_bytes()
    # After each header and each member, inside both; gzip at any place.
    blocks = [*range(512, 40 * 512, 512), 700, 1100, 9000]
    for size in blocks if suffix == "tar" else range(20, len(whole), 9):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"a.{suffix} .*cut short"):
            contents(path)


def test_tar_with_a_damaged_header_is_not_taken_for_its_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", names(0, 10))
    spoiled = bytearray(path.read_bytes())
    spoiled[8 * 1024 : 8 * 1024 + 512] = b"\x07" * 512
    path.write_bytes(spoiled)
    with pytest.raises(InputError, match=r"a.tar is damaged: there is no file header at byte 8192"):
        contents(path)
    path.write_bytes(b"no tar at all" * 1000)
    with pytest.raises(InputError, match=r"a.tar cannot be read as tar"):
        contents(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.txt", b"-"), ("b.seg.png", b"-")], r"holds no image of suffix jpg, .*\(suffixes: seg.png, txt\)"),
        ([], "no files at all"),
    ],
)
def test_tar_without_images(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        contents(write_tar(tmp_path / "a.tar", members))


def test_gzip_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"text" * 500))
    (tmp_path / "b.tar.gz").write_bytes(b"text" * 500)
    for name in ("a", "b"):
        with pytest.raises(InputError, match=rf"{name}.tar.gz cannot be read as tar.gz"):
            contents(tmp_path / f"{name}.tar.gz")
