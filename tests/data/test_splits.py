"""Draws nest, depend on nothing but seed and ids, and have the published counts; id lists are matched or refused."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import pytest

from s4mim_hf.data.splits import draw_labeled, match_ids, parse_labeled, read_id_list, split_hash
from s4mim_hf.errors import InputError

IDS = [f"train/{index:04d}" for index in range(367)]


@pytest.mark.parametrize(
    ("total", "text", "expected"),
    [
        (367, "1/16", 23), (367, "1/8", 46), (367, "1/4", 92), (355, "1/16", 22), (355, "1/8", 44), (355, "1/4", 89),
        (367, "all", 367), (367, "92", 92), (367, "1/1", 367), (3, "1/8", 1), (5, "0.5", 3), (1, "1", 1),
    ],
)  # fmt: skip
def test_amounts(total: int, text: str, expected: int) -> None:
    assert parse_labeled(text).of(total) == expected
    assert len(draw_labeled(IDS[:total], parse_labeled(text), seed=0)) == expected


@pytest.mark.parametrize("text", ["", "half", "0", "-3", "9/8", "1/0", "0.0", "1.5", "nan", "inf", "al", "-1/8"])
def test_bad_amounts(text: str) -> None:
    with pytest.raises(InputError, match=r"--labeled takes a count such as 92 or a fraction such as 1/8.*'all'"):
        parse_labeled(text)


def test_smaller_draws_are_part_of_larger_ones_and_order_of_ids_is_nothing() -> None:
    for seed in range(3):
        draws = [draw_labeled(IDS, parse_labeled(text), seed) for text in ("1/16", "1/8", "1/4", "all")]
        for small, large in itertools.pairwise(draws):
            assert large[: len(small)] == small
        assert draw_labeled(reversed(IDS), parse_labeled("1/8"), seed) == draws[1]
    first, second = (set(draw_labeled(IDS, parse_labeled("1/8"), seed)) for seed in (0, 1))
    assert len(first & second) < 20


def test_the_draw_is_pinned() -> None:
    """A change here changes everybody's splits."""
    drawn = draw_labeled([f"{index:02d}" for index in range(20)], parse_labeled("6"), seed=0)
    assert drawn == [
        "04",
        "19",
        "06",
        "02",
        "13",
        "16",
    ]


def test_more_than_there_are() -> None:
    with pytest.raises(InputError, match=r"--labeled 400: 400 images are asked for, but only 367"):
        draw_labeled(IDS, parse_labeled("400"), seed=0)


def test_negative_seed() -> None:
    with pytest.raises(InputError, match="--seed must not be negative"):
        draw_labeled(IDS, parse_labeled("1/8"), seed=-1)


def test_hash_depends_on_which_id_is_where_only() -> None:
    base = split_hash({"labeled": ["a", "b"], "unlabeled": ["c"], "validation": []})
    assert base == hashlib.sha256(b'{"labeled": ["a", "b"], "unlabeled": ["c"], "validation": []}').hexdigest()
    assert base == split_hash({"validation": [], "unlabeled": ["c"], "labeled": ["b", "a"]})
    assert base != split_hash({"labeled": ["a"], "unlabeled": ["b", "c"], "validation": []})
    assert base != split_hash({"labeled": ["ab"], "unlabeled": ["c"], "validation": []})


def test_lists_of_ids_of_paths_and_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "labeled.txt"
    path.write_text("\ufeff2007_000032\nimages/a.JPG\n\nJPEGImages/b.jpg SegmentationClass/b.png\r\nmy photo.jpg\n")
    assert read_id_list(path) == ["2007_000032", "images/a.JPG", "JPEGImages/b.jpg", "my photo.jpg"]


@pytest.mark.parametrize(
    ("content", "message"), [(b" \n", "is empty"), (b"\xff\xfe\x00", "no UTF-8 text"), (None, "No such file")]
)
def test_bad_lists(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_id_list(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("train/x/0001", "train/x/0001"),
        ("train/x/0001.jpg", "train/x/0001"),
        ("./train\\x\\0001.png", "train/x/0001"),
        ("x/0001.png", "train/x/0001"),
        ("JPEGImages/2007_000032.jpg", "train/2007_000032"),
        ("2007_000032", "train/2007_000032"),
        ("VOC2012/train/2007_000032.jpg", "train/2007_000032"),
        ("v1.5_scene", "train/v1.5_scene"),
    ],
)
def test_entries_are_matched(entry: str, expected: str) -> None:
    ids = ["train/x/0001", "train/y/0001", "train/2007_000032", "train/v1.5_scene"]
    assert match_ids([entry], ids, [], "list") == [expected]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["0001"], "0001 may mean several images (train/x/0001, train/y/0001)"),
        (["z/0001"], "list names 1 images that are not there: z/0001"),
        (["train/0009"], "images that are not there"),
        (["val/7", "val/8"], "list names 2 validation images: val/7, val/8"),
        (["x/0001", "train/x/0001"], "list names 1 images more than once: train/x/0001"),
        (["lonly"], "did you mean 'train/lonely'?"),
    ],
)
def test_entries_are_refused(entries: list[str], message: str) -> None:
    ids = ["train/x/0001", "train/y/0001", "train/7", "train/lonely"]
    with pytest.raises(InputError, match=re.escape(message)):
        match_ids(entries, ids, ["val/7", "val/8"], "list")


@pytest.mark.real
def test_published_lists_match(shared_dir: Path) -> None:
    entries = read_id_list(shared_dir / "splits" / "pascal" / "92" / "labeled.txt")
    everything = read_id_list(shared_dir / "splits" / "pascal" / "train_aug.txt")
    ids = [Path(entry).stem for entry in everything]
    assert len(ids) == 10582
    assert match_ids(entries, ids, [], "list") == [Path(entry).stem for entry in entries]
    assert len(entries) == 92
