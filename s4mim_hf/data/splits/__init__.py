"""Which images are labelled: seeded draws that nest, or lists of ids.

An image's id is its path below `images/`, with forward slashes and without its suffix: "train/0016E5_07959".
"""

from __future__ import annotations

from s4mim_hf.data.splits.amounts import Amount, parse_amount, parse_labeled
from s4mim_hf.data.splits.draws import Drawn, draw, draw_labeled, group_sizes, permutation, whole_groups
from s4mim_hf.data.splits.groups import Groups
from s4mim_hf.data.splits.hashing import split_hash
from s4mim_hf.data.splits.id_lists import IMAGE_SUFFIXES, match_ids, read_id_list, without_suffix
from s4mim_hf.data.splits.presence import ClassPresence

__all__ = [
    "IMAGE_SUFFIXES",
    "Amount",
    "ClassPresence",
    "Drawn",
    "Groups",
    "draw",
    "draw_labeled",
    "group_sizes",
    "match_ids",
    "parse_amount",
    "parse_labeled",
    "permutation",
    "read_id_list",
    "split_hash",
    "whole_groups",
    "without_suffix",
]
