"""The numbers of a comparison: means, spreads, paired differences. Pure functions of numbers by seed.

A row's runs are paired with another row's by seed, which is that of the labelled draw as well: `{seed: mIoU}`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from s4mim_hf.experiments.results import Spread


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return mean and sample standard deviation (n - 1; None for a single value); None for no value."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(mean=statistics.fmean(values), std=deviation, n=len(values))


def paired_difference(row: Mapping[int, float], reference: Mapping[int, float]) -> Spread | None:
    """Return mean and spread of row - reference over the seeds that both have; None where they share none."""
    return spread_of([row[seed] - reference[seed] for seed in sorted(row.keys() & reference.keys())])


def share_of_the_way(
    row: Mapping[int, float], floor: Mapping[int, float], ceiling: Mapping[int, float]
) -> float | None:
    """Return (row - floor) / (ceiling - floor), each the mean over the seeds that all three have.

    None where they share no seed, or the ceiling is not above the floor, so that there is no way to go.
    """
    seeds = sorted(row.keys() & floor.keys() & ceiling.keys())
    if not seeds:
        return None
    reached, low, high = (statistics.fmean(one[seed] for seed in seeds) for one in (row, floor, ceiling))
    return (reached - low) / (high - low) if high > low else None
