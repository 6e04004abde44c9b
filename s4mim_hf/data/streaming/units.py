"""Units: the shards, or parts of shards, that are read in one go, and how they are dealt to the lanes."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import NamedTuple

import torch

from s4mim_hf.data.streaming.parquet import count_rows, read_rows, rows_of
from s4mim_hf.data.streaming.samples import Part, Sample
from s4mim_hf.data.streaming.shards import Shard
from s4mim_hf.data.streaming.tar import images_of, read_images
from s4mim_hf.randomness import generator


class Unit(NamedTuple):
    """What a lane reads in one go.

    Attributes:
        shard: the file.
        part: which share of it.
    """

    shard: Shard
    part: Part = Part()

    def samples(self, image_column: str | None, skip: int = 0) -> Generator[Sample, None, int]:
        """Yield the unit's samples after its first `skip`; return how many images the whole shard has.

        Raises:
            InputError: the shard cannot be read, is damaged, or holds no image.
        """
        read = read_rows if self.shard.form == "parquet" else read_images
        return read(self.shard, image_column, self.part, skip)

    def images_in_shard(self, image_column: str | None) -> int | None:
        """Return how many images the whole shard has; None where only reading it through tells.

        Raises:
            InputError: the shard cannot be read.
        """
        return count_rows(self.shard, image_column) if self.shard.form == "parquet" else None

    def share(self, images: int) -> int:
        """Return how many of a shard's `images` are this unit's."""
        return (rows_of if self.shard.form == "parquet" else images_of)(images, self.part)


def deal(shards: Sequence[Shard], lanes: int, seed: int) -> list[list[Unit]]:
    """Deal shards to all lanes of all processes, in a random order, as evenly as can be.

    Every lane gets equally many whole shards; those that are left over are cut into equal parts, of which again every
    lane gets equally many. With one shard, each lane thus has its share of it.
    """
    order = torch.randperm(len(shards), generator=generator(seed, "stream-deal")).tolist()
    left_over = len(shards) % lanes
    whole, cut = order[: len(order) - left_over], order[len(order) - left_over :]
    parts = lanes // math.gcd(left_over, lanes)
    units = [Unit(shards[index]) for index in whole]
    units += [Unit(shards[index], Part(number, parts)) for index in cut for number in range(parts)]
    return [units[lane::lanes] for lane in range(lanes)]
