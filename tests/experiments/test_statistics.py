"""Against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from s4mim_hf.experiments.statistics import paired_difference, share_of_the_way, spread_of


def test_mean_and_sample_standard_deviation() -> None:
    # Deviations -2, -1, 3: squares add up to 14, over n - 1 = 2.
    spread = spread_of([1.0, 2.0, 6.0])
    assert spread is not None
    assert spread["n"] == 3
    assert spread["mean"] == pytest.approx(3.0)
    assert spread["std"] == pytest.approx(math.sqrt(7))


def test_one_number_has_no_spread_and_none_has_no_mean() -> None:
    assert spread_of([0.25]) == {"mean": 0.25, "std": None, "n": 1}
    assert spread_of([]) is None


def test_differences_are_paired_by_seed() -> None:
    row, reference = {0: 0.50, 1: 0.75, 2: 0.9}, {1: 0.25, 0: 0.40, 7: 0.1}
    # 0.1 and 0.5 over the seeds 0 and 1: mean 0.3, deviations 0.2 each, so sqrt(0.08 / 1).
    difference = paired_difference(row, reference)
    assert difference is not None
    assert difference["n"] == 2
    assert difference["mean"] == pytest.approx(0.3)
    assert difference["std"] == pytest.approx(math.sqrt(0.08))
    # Unpaired, the spread of a row that is always 0.1 better would be that of the draws.
    better = paired_difference({0: 0.5, 1: 0.25}, {0: 0.375, 1: 0.125})
    assert better == {"mean": 0.125, "std": 0.0, "n": 2}
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_the_share_of_the_way_is_of_means_over_common_seeds() -> None:
    floor, ceiling = {0: 0.2, 1: 0.4}, {0: 0.7, 1: 0.7, 2: 0.9}
    # Means over seeds 0 and 1: row 0.4, floor 0.3, ceiling 0.7.
    assert share_of_the_way({0: 0.3, 1: 0.5, 2: 0.1}, floor, ceiling) == pytest.approx(0.25)
    assert share_of_the_way(floor, floor, ceiling) == 0
    assert share_of_the_way(ceiling, floor, ceiling) == 1
    assert share_of_the_way({0: 0.1, 1: 0.3}, floor, ceiling) == pytest.approx(-0.25)


def test_there_is_no_way_without_a_common_seed_or_below_the_floor() -> None:
    assert share_of_the_way({0: 0.3}, {1: 0.2}, {0: 0.7}) is None
    assert share_of_the_way({0: 0.3}, {0: 0.4}, {0: 0.4}) is None
    assert share_of_the_way({0: 0.3}, {0: 0.5}, {0: 0.4}) is None
    assert share_of_the_way({}, {}, {}) is None
