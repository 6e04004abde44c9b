"""Pairs of labelled and unlabelled images in ready-made micro-batches.

Item n of the data set *is* micro-batch n, built whole inside a worker from the seed and n alone. The number of workers
therefore changes no pixel, a run resumes exactly at any micro-batch, ranks never come out uneven, and there is no
state to save. An epoch is one permutation of a set, and a batch may reach over its end into the next. Unlabelled
images may also be streamed, which keeps all of this: `s4mim_hf.data.streaming`.

B_l, B_u: labelled and unlabelled images of a micro-batch on one rank; S: the side of the crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from s4mim_hf.data.decoding import open_image, open_label
from s4mim_hf.data.streaming import ImageStream
from s4mim_hf.data.views import WeakViewConfig, weak_view
from s4mim_hf.errors import InputError
from s4mim_hf.randomness import generator
from s4mim_hf.transfers import to_device

T = TypeVar("T")


class Rows(Protocol):
    """A `datasets.Dataset` whose images stay undecoded, or any sequence of rows like its own.

    A row is {"image": {"bytes": ...}, "label": {"bytes": ...}}; the label of an unlabelled row is never read.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass
class Batch:
    """One micro-batch of weak views.

    Args:
        labeled_images: uint8 (B_l, 3, S, S).
        labels: uint8 (B_l, S, S), class ids, 255 where unknown or padding.
        unlabeled_images: uint8 (B_u, 3, S, S), or None.
        unlabeled_valid: bool (B_u, S, S), False on padding, or None.
    """

    labeled_images: torch.Tensor
    labels: torch.Tensor
    unlabeled_images: torch.Tensor | None = None
    unlabeled_valid: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return self._map(lambda tensor: to_device(tensor, device))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from which a copy to a GPU need not block."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})


class _Order:
    """An endless sequence of row numbers: one permutation of the rows after another."""

    def __init__(self, length: int, seed: int, purpose: str) -> None:
        self._length, self._seed, self._purpose = length, seed, purpose
        self._permutations: dict[int, torch.Tensor] = {}

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._length)
        if epoch not in self._permutations:
            # Batches come in order, and one may span two epochs: older permutations are not needed again.
            recent = sorted(self._permutations)[-1:]
            self._permutations = {known: self._permutations[known] for known in recent}
            drawn = torch.randperm(self._length, generator=generator(self._seed, self._purpose, epoch))
            self._permutations[epoch] = drawn
        return int(self._permutations[epoch][place])


class PairedBatches(Dataset[Batch]):
    """Micro-batches by their number; see the module's text.

    Args:
        labeled: rows with image and label.
        unlabeled: rows with an image, or a stream made for this seed and rank, or None for batches of labelled images
            alone.
        views: the weak augmentation.
        labeled_batch_size: B_l, on this rank.
        unlabeled_batch_size: B_u, on this rank; not read where `unlabeled` is None.
        seed: the run's seed; all ranks share it.
        rank: this process's number.
        world_size: how many processes share the run.

    Raises:
        InputError: for an empty set or a batch size below 1.
    """

    def __init__(
        self,
        labeled: Rows,
        unlabeled: Rows | ImageStream | None,
        *,
        views: WeakViewConfig,
        labeled_batch_size: int,
        unlabeled_batch_size: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check("labelled", labeled, labeled_batch_size)
        self._labeled, self._labeled_batch_size = labeled, labeled_batch_size
        self._labeled_order = _Order(len(labeled), seed, "order-labeled")
        self._unlabeled, self._unlabeled_batch_size = unlabeled, unlabeled_batch_size
        if unlabeled is not None:
            _check("unlabelled", unlabeled, unlabeled_batch_size)
        if not (unlabeled is None or isinstance(unlabeled, ImageStream)):
            self._unlabeled = _image_column(unlabeled)
            self._unlabeled_order = _Order(len(unlabeled), seed, "order-unlabeled")
        self._views, self._seed, self._rank, self._world_size = views, seed, rank, world_size

    def __getitem__(self, number: int) -> Batch:
        """Return micro-batch `number` (0, 1, ..., without end) of this rank."""
        images, labels = zip(*map(self._labeled_sample, self._positions(number, self._labeled_batch_size)), strict=True)
        if self._unlabeled is None:
            return Batch(torch.stack(images), torch.stack(labels))
        others, valid = zip(*self._unlabeled_samples(number), strict=True)
        return Batch(torch.stack(images), torch.stack(labels), torch.stack(others), torch.stack(valid))

    def _positions(self, number: int, batch_size: int) -> range:
        """Return the positions, in the endless sequence that all ranks share, of this rank's part of a micro-batch."""
        first = (number * self._world_size + self._rank) * batch_size
        return range(first, first + batch_size)

    def _labeled_sample(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        index = self._labeled_order[position]
        row = self._labeled[index]
        draws = generator(self._seed, "weak-labeled", position)
        with _named("labelled", index):
            image, label = open_image(row["image"]["bytes"]), open_label(row["label"]["bytes"])
            view, label_view, _ = weak_view(image, label, self._views, draws)
        assert label_view is not None
        return view, label_view

    def _unlabeled_samples(self, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        assert self._unlabeled is not None
        positions = self._positions(number, self._unlabeled_batch_size)
        if isinstance(self._unlabeled, ImageStream):
            return self._unlabeled.images(
                number, len(positions), lambda data, place: self._unlabeled_view(data, positions[place])
            )
        samples = []
        for position in positions:
            index = self._unlabeled_order[position]
            with _named("unlabelled", index):
                samples.append(self._unlabeled_view(self._unlabeled[index]["image"]["bytes"], position))
        return samples

    def _unlabeled_view(self, data: bytes, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        draws = generator(self._seed, "weak-unlabeled", position)
        view, _, valid = weak_view(open_image(data), None, self._views, draws)
        return view, valid


@contextmanager
def _named(split: str, index: int) -> Iterator[None]:
    """Turn a picture that cannot be decoded into a sentence that says which one it is."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{split} image number {index} cannot be read: {reason}; prepare the data again") from None


def _check(name: str, rows: Rows | ImageStream, batch_size: int) -> None:
    if not isinstance(rows, ImageStream) and len(rows) == 0:
        raise InputError(f"there are no {name} images; at least one is needed to train with them")
    if batch_size < 1:
        raise InputError(f"the {name} batch size is {batch_size}; it must be at least 1")


def _image_column(rows: Rows) -> Rows:
    """Return the rows without their other columns where they are a table: a row of a table is read whole."""
    select = getattr(rows, "select_columns", None)
    return rows if select is None else select(["image"])


def _as_it_is(batch: T) -> T:
    return batch


def build_train_loader(
    labeled: Rows,
    unlabeled: Rows | ImageStream | None,
    *,
    views: WeakViewConfig,
    labeled_batch_size: int,
    unlabeled_batch_size: int = 0,
    seed: int = 0,
    start: int = 0,
    stop: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Return a loader of micro-batches start .. stop - 1 of this rank, in this order.

    Args:
        labeled: see `PairedBatches`, as for the arguments that are not named here.
        unlabeled: likewise.
        views: likewise.
        labeled_batch_size: likewise.
        unlabeled_batch_size: likewise.
        seed: likewise.
        start: the first micro-batch; a run that has done n of them resumes with start=n.
        stop: one after the last.
        rank: likewise.
        world_size: likewise.
        num_workers: processes that prepare batches; 0 prepares them in this one. The batches are the same.
        pin_memory: whether batches come in page-locked memory.

    Raises:
        InputError: for an empty set or a batch size below 1.
    """
    batches = PairedBatches(
        labeled,
        unlabeled,
        views=views,
        labeled_batch_size=labeled_batch_size,
        unlabeled_batch_size=unlabeled_batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=_as_it_is,
        # Without one of its own, each new iterator draws from torch's global generator, and dropout would change.
        generator=generator(seed, "loader-workers"),
    )
