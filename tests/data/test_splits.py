"""Amounts have the published counts, permutations depend on seed and ids alone, and hashes on what is where."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from s4mim_hf.data.splits import draw, parse_labeled, split_hash
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
    assert len(draw(IDS[:total], parse_labeled(text), seed=0)) == expected


@pytest.mark.parametrize("text", ["", "half", "0", "-3", "9/8", "1/0", "0.0", "1.5", "nan", "inf", "al", "-1/8"])
def test_bad_amounts(text: str) -> None:
    with pytest.raises(InputError, match=r"--labeled takes a count such as 92 or a fraction such as 1/8.*'all'"):
        parse_labeled(text)


def test_smaller_draws_are_part_of_larger_ones_and_order_of_ids_is_nothing() -> None:
    for seed in range(3):
        draws = [draw(IDS, parse_labeled(text), seed) for text in ("1/16", "1/8", "1/4", "all")]
        for small, large in itertools.pairwise(draws):
            assert large[: len(small)] == small
        assert draw(reversed(IDS), parse_labeled("1/8"), seed) == draws[1]
    first, second = (set(draw(IDS, parse_labeled("1/8"), seed)) for seed in (0, 1))
    assert len(first & second) < 20


def test_the_permutation_is_pinned() -> None:
    """A change here changes everybody's splits."""
    drawn = draw([f"{index:02d}" for index in range(20)], parse_labeled("6"), seed=0)
    assert drawn == ["04", "19", "06", "02", "13", "16"]


def test_more_than_there_are() -> None:
    with pytest.raises(InputError, match=r"400 images are asked for, but only 367"):
        draw(IDS, parse_labeled("400"), seed=0)


def test_hash_depends_on_which_id_is_where_only() -> None:
    base = split_hash({"labeled": ["a", "b"], "unlabeled": ["c"], "validation": []})
    assert base == hashlib.sha256(b'{"labeled": ["a", "b"], "unlabeled": ["c"], "validation": []}').hexdigest()
    assert base == split_hash({"validation": [], "unlabeled": ["c"], "labeled": ["b", "a"]})
    assert base != split_hash({"labeled": ["a"], "unlabeled": ["b", "c"], "validation": []})
    assert base != split_hash({"labeled": ["ab"], "unlabeled": ["c"], "validation": []})
