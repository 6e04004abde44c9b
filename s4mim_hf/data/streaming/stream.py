"""The unlabelled side of micro-batches, streamed: lanes side by side, and what happens to broken images.

Micro-batch n of a rank is made of the next samples of its lane n mod L, L being `data.unlabeled.lanes`. A loader gives
its micro-batches to W workers in turn, so where W divides L each worker reads lanes of its own, and no shard twice.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from s4mim_hf.data.streaming.counts import ShardCounts
from s4mim_hf.data.streaming.lanes import Lane
from s4mim_hf.data.streaming.pool import ShardPool
from s4mim_hf.data.streaming.samples import Sample
from s4mim_hf.data.streaming.units import deal
from s4mim_hf.errors import InputError

T = TypeVar("T")

# What decoders raise over bytes that are no whole picture.
UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)
_NAMED_WARNINGS = 100


class ImageStream:
    """The unlabelled images of one rank, by micro-batch.

    Args:
        pool: the shards, and how they are read.
        seed: the run's; all ranks share it.
        rank: this process's number.
        world_size: how many processes share the run.
        counts_folder: where counts of images per shard are kept between runs; None: they are not.
    """

    def __init__(
        self, pool: ShardPool, *, seed: int, rank: int = 0, world_size: int = 1, counts_folder: Path | None = None
    ) -> None:
        self._pool, self._seed, self._rank, self._world_size = pool, seed, rank, world_size
        self._counts = ShardCounts(counts_folder, rank, pool.counts)
        self._lanes: dict[int, Lane] = {}
        self._broken = _BrokenImages()

    def __getstate__(self) -> dict[str, Any]:
        # A loader's worker opens shards of its own.
        return {**self.__dict__, "_lanes": {}}

    def images(self, number: int, size: int, use: Callable[[bytes, int], T]) -> list[T]:
        """Return what `use` makes of each image of micro-batch `number`.

        Args:
            number: of the micro-batch, from 0.
            size: how many images it has.
            use: called with an image's bytes and its place in the batch; raises one of `UNREADABLE` where it is broken,
                and is then given the next image of the lane that is whole.

        Raises:
            InputError: a shard cannot be read, or as many images as a window holds are broken in a row.
        """
        turn, which = divmod(number, self._pool.settings.lanes)
        lane = self._lane(which)
        made = [self._readable(lane, turn * size + place, place, use) for place in range(size)]
        lane.go_on((turn + 1) * size)
        return made

    def _readable(self, lane: Lane, position: int, place: int, use: Callable[[bytes, int], T]) -> T:
        broken, reason = None, ""
        for candidate in range(position, position + lane.window):
            sample = lane[candidate]
            try:
                if sample.data is None:
                    raise ValueError("its row holds no bytes")
                made = use(sample.data, place)
            except UNREADABLE as error:
                if broken is None:
                    broken, reason = sample, " ".join(str(error).split())[:200]
                continue
            if broken is not None:
                self._broken.report(broken, reason, sample)
            return made
        assert broken is not None
        raise InputError(
            f"{broken.name} cannot be decoded ({reason}), nor any other of {lane.window} images after it; see that "
            "data.unlabeled.shards and data.unlabeled.image_column name images"
        )

    def _lane(self, which: int) -> Lane:
        """Return one of this rank's lanes, with the shards that it alone reads."""
        if which not in self._lanes:
            settings = self._pool.settings
            number = self._rank * settings.lanes + which
            self._lanes[which] = Lane(
                deal(self._pool.shards, self._world_size * settings.lanes, self._seed)[number],
                window=settings.shuffle_buffer // settings.lanes,
                image_column=settings.image_column,
                seed=self._seed,
                number=number,
                counts=self._counts,
            )
        return self._lanes[which]


class _BrokenImages:
    """Says on standard error which images are broken: each once, and of very many only how many."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._met = 0

    def report(self, broken: Sample, reason: str, instead: Sample) -> None:
        """Count one that another image stands in for."""
        if broken.name in self._named:
            return
        self._met += 1
        if len(self._named) < _NAMED_WARNINGS:
            self._named.add(broken.name)
            text = f"{broken.name} cannot be decoded ({reason}); {instead.name} stands in for it"
        # From here on there is no list of names to grow, and a line for each doubling.
        elif self._met & (self._met - 1) == 0:
            text = "broken images are no longer named, and may be counted once per reading"
        else:
            return
        print(f"warning: {text} (broken images of this process so far: {self._met})", file=sys.stderr, flush=True)
