"""A regular expression names each image's group, or is refused in one sentence."""

from __future__ import annotations

import re

import pytest

from s4mim_hf.data.splits import Groups
from s4mim_hf.errors import InputError

IDS = ["train/0016E5_07959", "train/0016E5_07961", "train/0006R0_f00930"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"[^/]+(?=_)", ["0016E5", "0016E5", "0006R0"]),
        (r"^(.*)_", ["train/0016E5", "train/0016E5", "train/0006R0"]),
        (r"/(\w+)_(\w+)$", ["0016E5", "0016E5", "0006R0"]),
        (r".*", IDS),
        (r"(x?)", ["", "", ""]),
    ],
)
def test_groups_are_the_first_group_or_the_match(pattern: str, expected: list[str]) -> None:
    assert Groups(pattern).of(IDS) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "--group-by '(' is no regular expression (missing ), unterminated subpattern at position 0)"),
        ("0016E5", "--group-by '0016E5' does not match 1 of 3 ids (train/0006R0_f00930)"),
        ("x", "does not match 3 of 3 ids (train/0016E5_07959, "),
        ("f(x)?", "does not match 3 of 3 ids"),
    ],
)
def test_expressions_that_do_not_fit(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Groups(pattern).of(IDS)
