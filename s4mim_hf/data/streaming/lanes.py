"""Lanes: endless sequences of samples, each read from shards of its own and shuffled within windows.

Everything here is a function of the seed, the shards and a position, so that a sequence has no state that a resumed
run would need. A lane keeps its shard open and reads on; only where it is asked for an earlier sample, or for its first
one after a resumption, does it look for the place anew.

V: samples in a window.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from s4mim_hf.data.streaming.counts import ShardCounts
from s4mim_hf.data.streaming.samples import Sample
from s4mim_hf.data.streaming.units import Unit
from s4mim_hf.errors import InputError
from s4mim_hf.randomness import generator

# So few samples are rather read and dropped than looked for anew.
_NEAR = 256


class Lane:
    """One endless sequence of samples, by position.

    Args:
        units: what it reads, over and over, in a new random order each time.
        window: V.
        image_column: see `UnlabeledConfig`.
        seed: the run's.
        number: of the lane, among those of all processes.
        counts: how many images shards have, as far as that is known.

    Attributes:
        window: V.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        window: int,
        image_column: str | None,
        seed: int,
        number: int,
        counts: ShardCounts,
    ) -> None:
        self._units, self.window, self._image_column = list(units), window, image_column
        self._seed, self._number, self._counts = seed, number, counts
        # The open shard and its successors, and the position of what it gives next.
        self._source = self._from(0)
        self._next: int | None = None
        # Samples by the number of their window, in the order of reading; None: no longer needed.
        self._held: dict[int, list[Sample | None]] = {}
        self._orders: dict[int, list[int]] = {}

    def __getitem__(self, position: int) -> Sample:
        """Return the sample at `position` (0, 1, ..., without end) of the shuffled sequence.

        Raises:
            InputError: a shard cannot be read, or the lane has no images.
        """
        window, place = divmod(position, self.window)
        self._fill(window, self.window)
        sample = self._held[window][self._order(window)[place]]
        if sample is None:
            del self._held[window]
            return self[position]
        return sample

    def go_on(self, position: int) -> None:
        """Let go of everything before `position`, and read as far ahead as has been let go, so that reading is even."""
        window, place = divmod(position, self.window)
        for far in [number for number in self._held if not window <= number <= window + 1]:
            del self._held[far]
        if len(self._held.get(window, ())) == self.window:
            for used in self._order(window)[:place]:
                self._held[window][used] = None
            self._fill(window + 1, place)

    def _fill(self, window: int, count: int) -> None:
        """Hold at least the first `count` samples of a window."""
        held = self._held.setdefault(window, [])
        while len(held) < count:
            needed = window * self.window + len(held)
            if self._next is None or not self._next <= needed <= self._next + _NEAR:
                self._source.close()
                self._source, self._next = self._from(needed), needed
            place = self._next
            # A source that fails is at its end; whoever asks again starts another.
            self._next = None
            sample = next(self._source)
            self._next = place + 1
            if place == needed:
                held.append(sample)

    def _order(self, window: int) -> list[int]:
        """Return which sample of a window, in the order of reading, stands at each place."""
        if window not in self._orders:
            shuffle = generator(self._seed, "stream-window", self._number, window)
            recent = {number: self._orders[number] for number in sorted(self._orders)[-1:]}
            self._orders = {**recent, window: torch.randperm(self.window, generator=shuffle).tolist()}
        return self._orders[window]

    def _from(self, position: int) -> Generator[Sample, None, None]:
        """Yield the samples in the order of reading, from `position` on."""
        cycle, skip = 0, position
        while True:
            length = 0
            shuffle = generator(self._seed, "stream-units", self._number, cycle)
            for index in torch.randperm(len(self._units), generator=shuffle).tolist():
                unit = self._units[index]
                count = self._count(unit) if skip else None
                if count is None or skip < count:
                    count = yield from self._samples(unit, skip)
                skip = max(0, skip - count)
                length += count
            if length == 0:
                raise InputError(
                    f"a lane has no images, for its part of {self._units[0].shard.url} is empty: the pool is smaller "
                    "than the number of lanes of all processes; lower data.unlabeled.lanes"
                )
            passed, skip = divmod(skip, length)
            cycle += 1 + passed

    def _count(self, unit: Unit) -> int | None:
        """Return how many samples a unit has; None where only reading it through tells."""
        images = self._counts.get(unit.shard)
        if images is None and (images := unit.images_in_shard(self._image_column)) is not None:
            self._counts.learn(unit.shard, images)
        return None if images is None else unit.share(images)

    def _samples(self, unit: Unit, skip: int) -> Generator[Sample, None, int]:
        """Yield the samples of a unit after its first `skip`; return how many it has."""
        images = yield from unit.samples(self._image_column, skip)
        self._counts.learn(unit.shard, images)
        return unit.share(images)
