from __future__ import annotations

import itertools
from typing import Any

import torch

from s4mim_hf.randomness import derive_seed, generator


def test_the_value_is_the_same_in_every_process() -> None:
    # A changed value would also make old runs impossible to repeat.
    assert derive_seed(0, "weak-labeled", 5) == 15968931536004099017
    assert 0 <= derive_seed(0, "weak-labeled", 5) < 2**64


def test_any_other_argument_gives_another_seed() -> None:
    arguments: list[Any] = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", 0),
        (0, "a", 0, 0),
        (0, "a", 1),
        (0, "a", 1, 0),
        (0, "a', 1"),
    ]
    seeds = {derive_seed(*each) for each in arguments}
    assert len(seeds) == len(arguments)
    assert len({derive_seed(0, "step", step) for step in range(10_000)}) == 10_000


def test_generators_repeat_and_leave_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (torch.rand(5, generator=generator(3, "x", step)) for step in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_neighbouring_positions_are_uncorrelated() -> None:
    draws = torch.stack([torch.rand(1000, generator=generator(0, "x", step)) for step in range(20)])
    correlations = torch.corrcoef(draws)
    assert all(abs(correlations[i, j]) < 0.15 for i, j in itertools.combinations(range(20), 2))
    assert abs(draws[:, 0].mean() - 0.5) < 0.25
