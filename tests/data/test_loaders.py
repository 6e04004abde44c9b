from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from s4mim_hf.data.decoding import DecodedPicture
from s4mim_hf.data.loaders import Batch, PairedBatches, build_train_loader
from s4mim_hf.data.views import WeakViewConfig, weak_view
from s4mim_hf.errors import InputError
from s4mim_hf.randomness import generator

VIEWS = WeakViewConfig(crop_size=16, scale_range=(0.8, 1.5))


def _png(array: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return rows whose image and label hold the row's number in every pixel."""
    shape = (20, 24)
    return [
        {"image": _png(np.full((*shape, 3), number, np.uint8)), "label": _png(np.full(shape, number, np.uint8))}
        for number in range(first, first + count)
    ]


class _WithoutLabel(Mapping[str, Any]):
    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def __getitem__(self, key: str) -> Any:
        if key == "label":
            raise AssertionError("the label of an unlabelled image was read")
        return self._row[key]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all columns of an unlabelled image were read")

    def __len__(self) -> int:
        return len(self._row)


LABELED, UNLABELED = _rows(5), [_WithoutLabel(row) for row in _rows(7, first=100)]


def _batches(**changed: Any) -> PairedBatches:
    arguments: dict[str, Any] = {"views": VIEWS, "labeled_batch_size": 2, "unlabeled_batch_size": 3, "seed": 4}
    return PairedBatches(changed.pop("labeled", LABELED), changed.pop("unlabeled", UNLABELED), **arguments | changed)


def _loader(**changed: Any) -> list[Batch]:
    arguments: dict[str, Any] = {"views": VIEWS, "labeled_batch_size": 2, "unlabeled_batch_size": 3, "seed": 4}
    rows = changed.pop("labeled", LABELED), changed.pop("unlabeled", UNLABELED)
    return list(build_train_loader(*rows, **arguments | changed))


def _same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


def _sources(images: torch.Tensor | None, known: torch.Tensor) -> list[int]:
    """Return the row number that each image of a batch was made of."""
    assert images is not None
    return [int(image[0][inside][0]) for image, inside in zip(images, known, strict=True)]


def test_a_batch_is_what_its_types_say() -> None:
    (batch,) = _loader(stop=1)
    assert (batch.labeled_images.shape, batch.labeled_images.dtype) == ((2, 3, 16, 16), torch.uint8)
    assert (batch.labels.shape, batch.labels.dtype) == ((2, 16, 16), torch.uint8)
    assert batch.unlabeled_images is not None
    assert batch.unlabeled_valid is not None
    assert (batch.unlabeled_images.shape, batch.unlabeled_images.dtype) == ((3, 3, 16, 16), torch.uint8)
    assert (batch.unlabeled_valid.shape, batch.unlabeled_valid.dtype) == ((3, 16, 16), torch.bool)


def test_each_label_belongs_to_its_image() -> None:
    for batch in _loader(stop=10):
        known = batch.labels != 255
        assert torch.equal(batch.labeled_images[:, 0][known], batch.labels[known])


def test_an_epoch_holds_every_image_once_and_epochs_differ() -> None:
    labeled = [n for batch in _loader(stop=15) for n in _sources(batch.labeled_images, batch.labels != 255)]
    assert len(labeled) == 30
    epochs = [tuple(labeled[start : start + 5]) for start in range(0, 30, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 2


def test_equals_the_definition_sample_by_sample() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (5, 20, 24, 3), dtype=np.uint8)
    label = picture[..., 0] % 5
    rows = [{"image": _png(picture[i]), "label": _png(label[i])} for i in range(5)]
    batch = _batches(labeled=rows, rank=1, world_size=3, seed=9)[6]
    for i in range(2):
        position = (6 * 3 + 1) * 2 + i
        order = torch.randperm(5, generator=generator(9, "order-labeled", position // 5))
        row = int(order[position % 5])
        pictures = DecodedPicture(picture[row]), DecodedPicture(label[row])
        view, label_view, _ = weak_view(*pictures, VIEWS, generator(9, "weak-labeled", position))
        assert label_view is not None
        assert torch.equal(batch.labeled_images[i], view)
        assert torch.equal(batch.labels[i], label_view)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers: int) -> None:
    expected = _loader(stop=5)
    found = _loader(stop=5, num_workers=num_workers)
    assert len(found) == 5
    assert all(map(_same, expected, found))


def _photo_rows(count: int) -> list[dict[str, Any]]:
    """Return rows of JPEGs, every third mirrored by its metadata, with labels that say where a pixel is."""
    columns = np.broadcast_to(np.arange(320) % 250, (240, 320)).astype(np.uint8)
    grain = np.random.default_rng(0).integers(0, 40, (count, 240, 320, 1))
    rows = []
    for number in range(count):
        mirrored, buffer, exif = number % 3 == 2, io.BytesIO(), Image.Exif()
        exif[0x0112] = 2 if mirrored else 1
        pixels = (columns[..., None] * (0.8, 0.5, 0.3) + grain[number]).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
        rows.append({"image": {"bytes": buffer.getvalue()}, "label": _png(columns[:, :: -1 if mirrored else 1])})
    return rows


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_workers_change_nothing_where_jpegs_are_decoded_in_part_and_reduced() -> None:
    rows = _photo_rows(4)
    views = WeakViewConfig(crop_size=48, scale_range=(0.1, 1.5))
    expected = _loader(labeled=rows, unlabeled=rows[::-1], views=views, stop=8)
    for num_workers in (1, 2, 3):
        found = _loader(labeled=rows, unlabeled=rows[::-1], views=views, stop=8, num_workers=num_workers)
        assert len(found) == 8
        assert all(map(_same, expected, found))
    for batch in expected:
        known = batch.labels != 255
        difference = batch.labeled_images[:, 0][known].float() / 0.8 - 25 - batch.labels[known].float()
        assert difference.abs().median() < 12, "an image and its label show the same place"


def test_resumes_exactly_and_ends_where_asked() -> None:
    whole = _loader(stop=12)
    assert len(whole) == 12
    rest = _loader(start=7, stop=12)
    assert len(rest) == 5
    assert all(map(_same, whole[7:], rest))
    assert not _same(whole[0], whole[1])


def test_batches_do_not_depend_on_the_order_in_which_they_are_asked_for() -> None:
    batches, fresh = _batches(), _batches()
    forward = [batches[n] for n in range(8)]
    assert all(_same(forward[n], fresh[n]) for n in (7, 0, 3, 3, 6, 1))


def test_ranks_share_the_images_without_doubles() -> None:
    # 2 ranks x 2 images x 5 micro-batches are 4 epochs of 5 labelled images.
    together: Counter[int] = Counter()
    for rank in range(2):
        batches = _loader(stop=5, rank=rank, world_size=2)
        assert len(batches) == 5
        together.update(n for batch in batches for n in _sources(batch.labeled_images, batch.labels != 255))
    assert together == dict.fromkeys(range(5), 4)


def test_two_ranks_see_the_images_of_one_rank_with_a_doubled_batch() -> None:
    one = _loader(stop=4, labeled_batch_size=4, unlabeled_batch_size=6)
    ranks = [_loader(stop=4, rank=rank, world_size=2) for rank in range(2)]
    for number, batch in enumerate(one):
        for name in (field.name for field in fields(Batch)):
            halves = torch.cat([getattr(ranks[rank][number], name) for rank in range(2)])
            assert torch.equal(halves, getattr(batch, name))


def test_the_labelled_stream_does_not_depend_on_the_unlabelled_one() -> None:
    for one, other in zip(_loader(stop=6), _loader(stop=6, unlabeled=None), strict=True):
        assert other.unlabeled_images is None
        assert other.unlabeled_valid is None
        assert torch.equal(one.labeled_images, other.labeled_images)
        assert torch.equal(one.labels, other.labels)


def test_tables_give_the_batches_of_plain_rows_and_their_unlabelled_labels_are_dropped() -> None:
    plain = _rows(7, first=100)
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Image(decode=False)})
    labeled = datasets.Dataset.from_list(LABELED, features=features)
    unlabeled = datasets.Dataset.from_list(plain, features=features)
    corrupt = unlabeled.remove_columns("label").add_column("label", ["no label"] * 7)
    expected = _loader(stop=4)
    for table in (unlabeled, corrupt, unlabeled.remove_columns("label")):
        assert all(map(_same, expected, _loader(labeled=labeled, unlabeled=table, stop=4)))


def test_padding_is_invalid_and_ignored() -> None:
    wide = WeakViewConfig(crop_size=40, scale_range=(1, 1))
    (batch,) = _loader(stop=1, views=wide)
    assert batch.unlabeled_valid is not None
    assert (batch.unlabeled_valid.sum((1, 2)) == 20 * 24).all()
    assert ((batch.labels != 255).sum((1, 2)) == 20 * 24).all()


def test_a_loader_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    _loader(stop=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_moves_whole() -> None:
    (batch,) = _loader(stop=1)
    moved = batch.to("meta")
    assert all(getattr(moved, field.name).device.type == "meta" for field in fields(Batch))
    assert Batch(batch.labeled_images, batch.labels).to("cpu").unlabeled_images is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinning memory needs a GPU")
def test_batches_come_pinned() -> None:
    (batch,) = _loader(stop=1, pin_memory=True, num_workers=1)
    assert all(getattr(batch, field.name).is_pinned() for field in fields(Batch))


def test_errors() -> None:
    with pytest.raises(InputError, match="no labelled images"):
        _batches(labeled=[])
    with pytest.raises(InputError, match="no unlabelled images"):
        _batches(unlabeled=[])
    with pytest.raises(InputError, match="labelled batch size is 0"):
        _batches(labeled_batch_size=0)
    with pytest.raises(InputError, match="unlabelled batch size is 0"):
        _batches(unlabeled_batch_size=0)
