"""Find pictures that are there more than once, and pictures of one split that look almost like those of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from s4mim_hf.data.checking.counts import DIGEST_BYTES, SplitNumbers

# Looks (`pictures.look_of`) that differ in at most so many of 64 bits are alike. Of all pairs of MSRC-21's 473 photos
# none differs in 1 to 11 bits; of any fifth of CamVid's frames drawn at random some are alike to frames that are left.
ALIKE_BITS = 4
# Nearly all bits are equal in a picture of one tone or one smooth gradient, which looks like any other such picture.
_PLAIN_BITS = 6
_BANDS = 4
# Looks that share a band with more others than these are compared with these only: bounds the time, not the memory.
_MOST_CANDIDATES = 4096
_PAIRS_AT_ONCE = 1 << 20
_EXAMPLES = 3


@dataclass(frozen=True)
class Twins:
    """Pictures that are there more than once.

    Attributes:
        within: how many pictures of a split repeat an earlier one of it.
        across: how many pictures of the first split are in the second as well, by (first, second), in both orders.
        examples: "a = b", the first few pairs, by (first, second); (split, split) within one.
    """

    within: Mapping[str, int]
    across: Mapping[tuple[str, str], int]
    examples: Mapping[tuple[str, str], list[str]]


@dataclass(frozen=True)
class Lookalikes:
    """Pictures that look almost like one on the other side, but are not the same.

    Attributes:
        pictures: how many were compared with the other side.
        alike: how many of them have a lookalike there.
        examples: "a ~ b", the first few pairs.
    """

    pictures: int = 0
    alike: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of pictures that have a lookalike, 0 .. 1."""
        return self.alike / max(1, self.pictures)


class Pictures:
    """Pictures in a row: N ids, what tells them apart, and how they look.

    Args:
        parts: the splits that they are taken from.

    Attributes:
        ids: N ids.
        digests: uint64 (N, 2), see `pictures.Facts.digest`.
        looks: uint64 (N,), see `pictures.look_of`.
    """

    def __init__(self, parts: Sequence[SplitNumbers]) -> None:
        self.ids = [image_id for numbers in parts for image_id in numbers.ids]
        joined = b"".join(numbers.digests for numbers in parts)
        self.digests = np.frombuffer(joined, np.uint64).reshape(-1, DIGEST_BYTES // 8)
        self.looks = np.concatenate([np.zeros(0, np.uint64), *(np.array(part.looks, np.uint64) for part in parts)])

    def chosen(self, mask: np.ndarray) -> Pictures:
        """Return the pictures where `mask`, bool (N,), is True."""
        some = Pictures(())
        some.ids = [image_id for image_id, kept in zip(self.ids, mask.tolist(), strict=True) if kept]
        some.digests, some.looks = self.digests[mask], self.looks[mask]
        return some


def find_twins(splits: Mapping[str, SplitNumbers]) -> Twins:
    """Find equal pictures within each split and across each two of them."""
    names = list(splits)
    pictures = Pictures(list(splits.values()))
    split_of = np.repeat(np.arange(len(names)), [len(splits[name].ids) for name in names])
    _, group = np.unique(pictures.digests, axis=0, return_inverse=True)
    group = group.reshape(-1)
    # first[s, g]: the first picture of split s in group g; -1 where there is none.
    first = np.full((len(names), int(group.max(initial=-1)) + 1), -1, np.int64)
    for place in range(len(names)):
        members = np.flatnonzero(split_of == place)[::-1]
        first[place, group[members]] = members
    within, across, examples = {}, {}, {}
    for here, name in enumerate(names):
        members = np.flatnonzero(split_of == here)
        for there, other in enumerate(names):
            partners = first[there, group[members]]
            found = (partners >= 0) & (partners != members)
            pairs = zip(members[found][:_EXAMPLES].tolist(), partners[found][:_EXAMPLES].tolist(), strict=True)
            examples[name, other] = [f"{pictures.ids[a]} = {pictures.ids[b]}" for a, b in pairs]
            if here == there:
                within[name] = int(found.sum())
            else:
                across[name, other] = int(found.sum())
    return Twins(within, across, examples)


def lookalikes_of_a_draw(pictures: Pictures, share: float) -> Lookalikes:
    """Put a share of the pictures aside at random, and find those among them that look like one that is left.

    An estimate of what a draw of validation images would find; the draw itself is made where data is prepared.
    """
    aside = np.zeros(len(pictures.ids), bool)
    aside[np.random.default_rng(0).permutation(len(aside))[: round(share * len(aside))]] = True
    return find_lookalikes(pictures.chosen(aside), pictures.chosen(~aside))


def find_lookalikes(pictures: Pictures, others: Pictures) -> Lookalikes:
    """Find the pictures that look almost like one of the others, without being the same.

    Only looks that have a quarter of their bits in common are compared: most that differ in few bits do.
    """
    partner = np.full(len(pictures.ids), -1, np.int64)
    ours, theirs = np.flatnonzero(~_is_plain(pictures.looks)), np.flatnonzero(~_is_plain(others.looks))
    for band in range(_BANDS):
        keys = [_band(pictures.looks[ours], band), _band(others.looks[theirs], band)]
        order = np.argsort(keys[1], kind="stable")
        start, stop = (np.searchsorted(keys[1][order], keys[0], side) for side in ("left", "right"))
        for here, there in _pairs(start, np.minimum(stop - start, _MOST_CANDIDATES)):
            a, b = ours[here], theirs[order[there]]
            alike = np.bitwise_count(pictures.looks[a] ^ others.looks[b]) <= ALIKE_BITS
            alike &= (pictures.digests[a] != others.digests[b]).any(axis=1)
            partner[a[alike]] = b[alike]
    held = np.flatnonzero(partner >= 0)
    examples = [f"{pictures.ids[a]} ~ {others.ids[partner[a]]}" for a in held[:_EXAMPLES].tolist()]
    return Lookalikes(len(pictures.ids), len(held), examples)


def _is_plain(looks: np.ndarray) -> np.ndarray:
    ones = np.bitwise_count(looks)
    return (ones <= _PLAIN_BITS) | (ones >= 64 - _PLAIN_BITS)


def _band(looks: np.ndarray, band: int) -> np.ndarray:
    """Return one of the four 16-bit parts of each look."""
    return (looks >> np.uint64(16 * band)) & np.uint64(0xFFFF)


def _pairs(start: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (i, j) for every j in start[i] .. start[i] + count[i] - 1, a bounded number of pairs at a time."""
    ends = np.cumsum(count)
    first = 0
    while first < len(count):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, "right")))
        here = np.repeat(np.arange(first, last), count[first:last])
        offset = np.arange(len(here)) - np.repeat(ends[first:last] - count[first:last] - done, count[first:last])
        yield here, start[here] + offset
        first = last
