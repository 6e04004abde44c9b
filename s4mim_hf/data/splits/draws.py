"""Seeded draws that nest: what a smaller amount draws is part of what a larger one draws, for one seed.

N units (images, or groups of them) in the order of their ids, K classes. pi is the seeded permutation of the units.

plain:    R are the units that are, for some class, the first in pi to hold it. The order of the draw is R, then the
          rest of pi: its first n units are the first n of pi wherever those hold every class, and hold every class
          from n = |R| on.
balanced: again and again the class that the fewest drawn units hold, and the first unit in pi that holds it.

Either order is the same for all amounts, so that draws nest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from s4mim_hf.data.splits.amounts import Amount
from s4mim_hf.data.splits.presence import ClassPresence
from s4mim_hf.errors import InputError

Seed = int | Sequence[int]
PLAIN, BALANCED = "plain", "balanced"


def permutation(count: int, seed: Seed) -> np.ndarray:
    """Return the seeded permutation pi of 0 .. count-1, int64 (count)."""
    return np.random.Generator(np.random.PCG64(seed)).permutation(count)


def draw(ids: Iterable[str], amount: Amount, seed: Seed) -> list[str]:
    """Draw `amount` of `ids`, whatever they show: the first ones of one seeded permutation.

    The order of `ids` does not matter. Returned in the order of the permutation.

    Raises:
        InputError: there are fewer ids than asked for.
    """
    ordered = sorted(ids)
    return [ordered[row] for row in permutation(len(ordered), seed)[: amount.of(len(ordered))]]


@dataclass(frozen=True)
class Drawn:
    """A labelled draw.

    Attributes:
        ids: the images that keep their labels, in the order of the draw.
        absent: the classes that none of them holds, though other images that could be drawn do.
        unavailable: the classes that no image that could be drawn holds.
        enough: the number of images from which on a draw with this seed holds every class that can be had.
    """

    ids: list[str]
    absent: list[int]
    unavailable: list[int]
    enough: int


def draw_labeled(
    presence: ClassPresence, amount: Amount, seed: int, rule: str = PLAIN, groups: Sequence[str] | None = None
) -> Drawn:
    """Draw the images that keep their labels, nested over amounts for one seed.

    Args:
        presence: the images that may be drawn, and the classes that they hold.
        amount: how many. With groups, whole groups are drawn until their number of images is nearest to this; at least
            one group, and never all of them unless all images are asked for.
        seed: of the permutation.
        rule: "plain" or "balanced".
        groups: the name of each image's group, in the order of `presence.ids`; None: every image stands by itself.

    Raises:
        InputError: there are fewer images than asked for, one group only, or the seed is negative.
    """
    if seed < 0:
        raise InputError(f"--seed must not be negative, but {seed} was given")
    try:
        count = amount.of(len(presence.ids))
    except InputError as error:
        raise InputError(f"--labeled {amount.text}: {error}") from None
    units = presence if groups is None else presence.merge(groups)
    order = _order(units, permutation(len(units.ids), seed), rule)
    sizes = np.ones(len(units.ids), int) if groups is None else group_sizes(groups)
    taken = count if groups is None else whole_groups(sizes[order], count, "--labeled", count == len(presence.ids))
    chosen = order[:taken]
    available = units.among(order)
    return Drawn(
        _images(presence.ids, groups, [units.ids[unit] for unit in chosen]),
        np.flatnonzero(available & ~units.among(chosen)).tolist(),
        np.flatnonzero(~available).tolist(),
        _enough(units, order, sizes),
    )


def _order(units: ClassPresence, pi: np.ndarray, rule: str) -> np.ndarray:
    """Return all units in the order in which they are drawn, int64 (N)."""
    return balanced_order(units, pi) if rule == BALANCED else covering_order(units, pi)


def covering_order(units: ClassPresence, pi: np.ndarray) -> np.ndarray:
    """Return R, those first that add the most classes, and then the rest of pi; int64 (N)."""
    holds = {class_id: units.holds(class_id)[pi] for class_id in range(units.classes)}
    counts = {class_id: int(held.sum()) for class_id, held in holds.items()}
    left = sorted({int(np.argmax(held)) for held in holds.values() if held.any()})
    held_by = {place: set(units.of(pi[place]).tolist()) for place in left}
    missing = {class_id for class_id, count in counts.items() if count}
    first: list[int] = []

    def gain(place: int) -> tuple[int, int, int]:
        """More new classes, then the rarer class, then the place in pi."""
        rarest = min((counts[class_id] for class_id in held_by[place] & missing), default=len(pi))
        return -len(held_by[place] & missing), rarest, place

    while left:
        place = min(left, key=gain)
        left.remove(place)
        first.append(place)
        missing -= held_by[place]
    return np.concatenate([pi[first], np.delete(pi, first)]) if first else pi


def balanced_order(units: ClassPresence, pi: np.ndarray) -> np.ndarray:
    """Return the units in the order in which the class with the fewest drawn units chooses the next; int64 (N).

    Of classes with equally few, the rarest chooses, and of those the one with the lowest id. Units without any class
    come last, in the order of pi.
    """
    # Places in pi of each class's units: a class looks at each of them once.
    waiting = [iter(np.flatnonzero(units.holds(class_id)[pi])) for class_id in range(units.classes)]
    totals = np.array([units.holds(class_id).sum() for class_id in range(units.classes)])
    # Each class's turn: K times the units drawn with it so far, plus its rank among all; the lowest chooses next.
    turn = np.empty(units.classes, int)
    turn[np.lexsort((np.arange(units.classes), totals))] = np.arange(units.classes)
    left, never = int((totals > 0).sum()), np.iinfo(int).max // 2
    turn[totals == 0] = never
    taken = np.zeros(len(pi), bool)
    order: list[int] = []
    while left:
        class_id = int(np.argmin(turn))
        place = next((int(place) for place in waiting[class_id] if not taken[place]), None)
        if place is None:
            turn[class_id] = never
            left -= 1
            continue
        taken[place] = True
        order.append(place)
        turn[units.of(pi[place])] += units.classes
    return np.concatenate([pi[order], pi[~taken]]) if order else pi


def group_sizes(groups: Sequence[str]) -> np.ndarray:
    """Return how many images each group has, in the order of the groups' names; int64."""
    counts = Counter(groups)
    return np.array([counts[name] for name in sorted(counts)], int)


def whole_groups(sizes: np.ndarray, count: int, option: str, may_be_all: bool = False) -> int:
    """Return how many of the first groups have together the number of images nearest to `count`.

    Args:
        sizes: of the groups in the order of the draw, int64.
        count: images asked for.
        option: which asked, for the message.
        may_be_all: whether all groups may be taken; otherwise one is left at least.

    Raises:
        InputError: there is one group only, and it may not be taken.
    """
    totals = np.cumsum(sizes) if may_be_all else np.cumsum(sizes)[:-1]
    if not len(totals):
        raise InputError(
            f"{option} is {count} of {sizes.sum()} images, but --group-by finds one group only, which cannot be "
            "parted; use an expression that finds more"
        )
    return int(np.argmin(np.abs(totals - count))) + 1


def _images(ids: Sequence[str], groups: Sequence[str] | None, chosen: Sequence[str]) -> list[str]:
    """Return the images of the chosen units, group after group."""
    if groups is None:
        return list(chosen)
    place = {name: number for number, name in enumerate(chosen)}
    held = [(place[name], image_id) for image_id, name in zip(ids, groups, strict=True) if name in place]
    return [image_id for _, image_id in sorted(held)]


def _enough(units: ClassPresence, order: np.ndarray, sizes: np.ndarray) -> int:
    """Return how many images the first units have together that hold every class there is; 0 for no class."""
    last = 0
    for class_id in range(units.classes):
        held = units.holds(class_id)[order]
        if held.any():
            last = max(last, int(np.argmax(held)) + 1)
    return int(sizes[order[:last]].sum())
