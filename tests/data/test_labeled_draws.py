"""Labelled draws nest, hold every class that they can, and are what plain permutations were where those held all.

The references are written from what a draw promises, with sets, and share no code with it.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from s4mim_hf.data.splits import ClassPresence, Drawn, draw, draw_labeled, parse_labeled
from s4mim_hf.errors import InputError

RULES = ("plain", "balanced")


def presence_of(held: list[set[int]], classes: int) -> ClassPresence:
    presence = ClassPresence.empty([f"i{row:04d}" for row in range(len(held))], classes)
    for row, ids in enumerate(held):
        presence.put(row, [*ids, 255])
    return presence


def random_images(case: int) -> tuple[list[set[int]], int]:
    """Return the classes of some images, common ones and rare ones, and K; a class may be in no image."""
    rng = np.random.default_rng(case)
    count, classes = int(rng.integers(2, 60)), int(rng.integers(1, 20))
    shares = rng.uniform(0, 1, classes) ** 4
    return [set(np.flatnonzero(rng.random(classes) < shares).tolist()) for _ in range(count)], classes


def drawn(presence: ClassPresence, count: int, seed: int = 0, rule: str = "plain") -> Drawn:
    return draw_labeled(presence, parse_labeled(str(count)), seed, rule)


def held_by(ids: list[str], held: list[set[int]]) -> set[int]:
    return set().union(*(held[int(image_id[1:])] for image_id in ids))


@pytest.mark.parametrize("rule", RULES)
def test_draws_nest_and_say_what_they_lack(rule: str) -> None:
    for case in range(20):
        held, classes = random_images(case)
        presence, every = presence_of(held, classes), set().union(*held)
        draws = [drawn(presence, count, case, rule) for count in range(1, len(held) + 1)]
        assert [len(set(each.ids)) for each in draws] == list(range(1, len(held) + 1))
        enough = {each.enough for each in draws}
        for count, (small, large) in enumerate(itertools.pairwise(draws), start=1):
            assert large.ids[:count] == small.ids
        for count, each in enumerate(draws, start=1):
            found = held_by(each.ids, held)
            assert set(each.absent) == every - found
            assert set(each.unavailable) == set(range(classes)) - every
            assert (not each.absent) == (count >= each.enough)
        assert len(enough) == 1


def test_plain_draws_are_the_permutation_wherever_that_holds_every_class() -> None:
    for case in range(20):
        held, classes = random_images(case)
        presence, every = presence_of(held, classes), set().union(*held)
        for count in range(1, len(held) + 1):
            before = draw(presence.ids, parse_labeled(str(count)), case)
            if held_by(before, held) == every:
                assert set(drawn(presence, count, case).ids) == set(before)


def test_plain_draws_are_the_first_holders_and_then_the_permutation() -> None:
    for case in range(20):
        held, classes = random_images(case)
        presence = presence_of(held, classes)
        pi = draw(presence.ids, parse_labeled("all"), case)
        first = {next(i for i in pi if class_id in held_by([i], held)) for class_id in set().union(*held)}
        rest = [image_id for image_id in pi if image_id not in first]
        for count in range(1, len(held) + 1):
            found = set(drawn(presence, count, case).ids)
            if count >= len(first):
                assert found == first | set(rest[: count - len(first)])
                assert not drawn(presence, count, case).absent
            else:
                assert found < first


def test_too_few_images_take_those_with_the_most_new_classes() -> None:
    held = [{0}, {1}, {2, 3}, {4, 5, 6}, {0, 4, 5}]
    presence = presence_of(held, 7)
    for seed in range(20):
        few = drawn(presence, 1, seed).ids
        assert few == ["i0003"], "it alone holds class 6, so it is a first holder, and no other has as many classes"


def reference_balanced(held: list[set[int]], classes: int, pi: list[int]) -> list[int]:
    totals = {class_id: sum(class_id in ids for ids in held) for class_id in range(classes)}
    chosen: list[int] = []
    while True:
        counts = {class_id: sum(class_id in held[row] for row in chosen) for class_id in range(classes)}
        open_ones = [c for c in range(classes) if any(c in held[row] for row in pi if row not in chosen)]
        if not open_ones:
            return chosen + [row for row in pi if row not in chosen]
        wanted = min(open_ones, key=lambda c: (counts[c], totals[c], c))
        chosen.append(next(row for row in pi if row not in chosen and wanted in held[row]))


def test_balanced_draws_follow_their_rule() -> None:
    for case in range(12):
        held, classes = random_images(case)
        presence = presence_of(held, classes)
        pi = [int(image_id[1:]) for image_id in draw(presence.ids, parse_labeled("all"), case)]
        order = drawn(presence, len(held), case, "balanced").ids
        assert [int(image_id[1:]) for image_id in order] == reference_balanced(held, classes, pi)


def test_balanced_draws_are_more_even_than_plain_ones() -> None:
    rng = np.random.default_rng(0)
    # One class in nearly every image, others in one of 20.
    held = [{0, *np.flatnonzero(rng.random(6) < 0.05).tolist()} for _ in range(400)]
    presence = presence_of(held, 6)
    least = {}
    for rule in RULES:
        ids = drawn(presence, 40, 3, rule).ids
        least[rule] = min(sum(class_id in held[int(i[1:])] for i in ids) for class_id in range(6))
    assert least["balanced"] >= 2 * least["plain"]


def group_draw(held: list[set[int]], classes: int, names: list[str], text: str, rule: str, seed: int = 1) -> Drawn:
    return draw_labeled(presence_of(held, classes), parse_labeled(text), seed, rule, names)


@pytest.mark.parametrize("rule", RULES)
def test_groups_stay_whole_and_nest(rule: str) -> None:
    for case in range(12):
        rng = np.random.default_rng(case)
        held, classes = random_images(case)
        names = [f"video{number}" for number in rng.integers(0, 8, len(held))]
        if len(set(names)) < 2:
            continue
        ids = [f"i{row:04d}" for row in range(len(held))]
        sizes = {name: names.count(name) for name in names}
        before: set[str] = set()
        for count in range(1, len(held)):
            found = group_draw(held, classes, names, str(count), rule, case)
            groups = {names[ids.index(image_id)] for image_id in found.ids}
            assert len(found.ids) == sum(sizes[name] for name in groups), "whole groups"
            assert before <= set(found.ids)
            assert 1 <= len(groups) < len(sizes)
            before = set(found.ids)
        assert len(group_draw(held, classes, names, "all", rule).ids) == len(held)


def test_the_number_of_groups_comes_nearest_to_the_amount() -> None:
    names = [f"g{row // 10}" for row in range(100)]
    held = [{row % 3} for row in range(100)]
    for text, expected in (("3", 10), ("14", 10), ("16", 20), ("1/8", 10), ("0.5", 50), ("97", 90)):
        assert len(group_draw(held, 3, names, text, "plain").ids) == expected


def test_groups_hold_every_class_first() -> None:
    names = [f"g{row // 5:02d}" for row in range(100)]
    held = [{0} if row != 37 else {0, 1} for row in range(100)]
    for seed in range(10):
        assert "i0037" in group_draw(held, 2, names, "5", "plain", seed).ids


def test_a_draw_that_cannot_be_made() -> None:
    presence = presence_of([{0}] * 5, 1)
    with pytest.raises(InputError, match="--labeled 6: 6 images are asked for, but only 5"):
        drawn(presence, 6)
    with pytest.raises(InputError, match="--seed must not be negative"):
        drawn(presence, 2, seed=-1)
    with pytest.raises(InputError, match="--labeled is 2 of 5 images, but --group-by finds one group only"):
        draw_labeled(presence, parse_labeled("2"), 0, groups=["a"] * 5)


def test_presence_takes_one_bit_a_class() -> None:
    rng = np.random.default_rng(0)
    held = [set(np.flatnonzero(rng.random(19) < 0.4).tolist()) for _ in range(50)]
    presence = presence_of(held, 19)
    assert presence.bits.nbytes == 50 * 3
    for class_id in range(19):
        np.testing.assert_array_equal(presence.holds(class_id), [class_id in ids for ids in held])
    assert [set(presence.of(row).tolist()) for row in range(50)] == held
    assert set(np.flatnonzero(presence.among([3, 7, 9])).tolist()) == held[3] | held[7] | held[9]
    some = presence.select(["i0007", "i0003"])
    assert (some.ids, set(some.of(0).tolist())) == (["i0003", "i0007"], held[3])
    whole = presence.merge([f"g{row % 4}" for row in range(50)])
    for number in range(4):
        assert set(whole.of(number).tolist()) == set().union(*held[number::4])
