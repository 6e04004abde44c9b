"""Look at every picture once, in threads, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

from tqdm import tqdm

from s4mim_hf.data.checking.counts import SplitNumbers
from s4mim_hf.data.checking.pictures import Sample, inspect
from s4mim_hf.data.prepared import SPLITS
from s4mim_hf.data.prepared_writer.reading import read_ahead


def gather(samples: Iterable[Sample], total: int, classes: int | None) -> dict[str, SplitNumbers]:
    """Inspect all samples, with a progress bar that tells the time left.

    Args:
        samples: in any order; they are taken a few at a time.
        total: how many there are.
        classes: how many classes the labels may hold; None where it is not known.

    Returns:
        The numbers of each of the three splits.
    """
    numbers = {split: SplitNumbers(classes) for split in SPLITS}
    with tqdm(total=total, desc="checking", unit="img", disable=None) as progress:
        for sample, facts in read_ahead(inspect, samples):
            numbers[sample.split].add(sample.id, facts.result())
            progress.update()
    return numbers
