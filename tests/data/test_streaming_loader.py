"""Streamed pictures in the training loader: real decoding, real workers, and memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pools import pool_of, tar_of, write_parquet

from s4mim_hf.data.loaders import Batch, PairedBatches, build_train_loader
from s4mim_hf.data.streaming import ImageStream
from s4mim_hf.data.views import WeakViewConfig
from s4mim_hf.errors import InputError

VIEWS = WeakViewConfig(crop_size=16, scale_range=(1, 1))


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=form)
    return buffer.getvalue()


def rows(count: int = 3) -> list[dict[str, Any]]:
    shape = (20, 24)
    return [
        {
            "image": {"bytes": encoded(np.full((*shape, 3), number, np.uint8))},
            "label": {"bytes": encoded(np.full(shape, number, np.uint8))},
        }
        for number in range(count)
    ]


def pictures(shard: int, count: int) -> list[bytes]:
    """Return pictures whose three channels hold shard, number and noise."""
    noise = np.random.default_rng(shard).integers(0, 255, (count, 20, 24), dtype=np.uint8)
    planes = [(np.full((20, 24), shard), np.full((20, 24), number), noise[number]) for number in range(count)]
    return [encoded(np.stack(plane, axis=-1).astype(np.uint8)) for plane in planes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pool")
    for shard, count in enumerate((7, 5, 9, 6, 4)):
        images: Sequence[bytes] = pictures(shard, count)
        if shard % 2:
            write_parquet(made / f"{shard}.parquet", images, row_group=3)
        else:
            tar_of(made / f"{shard}.tar", images)
    return made


def loaded(folder: Path, rank: int = 0, world_size: int = 1, **changed: Any) -> list[Batch]:
    stream = ImageStream(pool_of(folder), seed=4, rank=rank, world_size=world_size)
    arguments: dict[str, Any] = {"views": VIEWS, "labeled_batch_size": 2, "unlabeled_batch_size": 3, "seed": 4}
    where = {"rank": rank, "world_size": world_size}
    return list(build_train_loader(rows(), stream, **arguments | where | {"stop": 12} | changed))


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch))


def ids(batch: Batch) -> list[tuple[int, int]]:
    """Return shard and number of each unlabelled picture."""
    assert batch.unlabeled_images is not None
    assert batch.unlabeled_valid is not None
    views = zip(batch.unlabeled_images, batch.unlabeled_valid, strict=True)
    return [(int(view[0][valid][0]), int(view[1][valid][0])) for view, valid in views]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_no_pixel_and_a_resumed_loader_goes_on(folder: Path, workers: int) -> None:
    expected = loaded(folder)
    assert len({tuple(ids(batch)) for batch in expected}) == 12
    found = loaded(folder, num_workers=workers)
    assert len(found) == 12
    assert all(map(same, expected, found))
    assert all(map(same, expected[5:], loaded(folder, num_workers=workers, start=5)))


def test_labelled_images_do_not_depend_on_the_stream(folder: Path) -> None:
    arguments: dict[str, Any] = {"views": VIEWS, "labeled_batch_size": 2, "seed": 4, "stop": 6}
    for one, other in zip(build_train_loader(rows(), None, **arguments), loaded(folder), strict=False):
        assert torch.equal(one.labeled_images, other.labeled_images)
        assert torch.equal(one.labels, other.labels)


def test_two_ranks_draw_other_views_of_other_pictures(folder: Path) -> None:
    ranks = [loaded(folder, rank, 2) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == 12
    first, second = ({picture for batch in rank for picture in ids(batch)} for rank in ranks)
    assert first
    assert second
    assert not first & second


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_pictures_are_replaced_and_named(
    tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = pictures(0, 24)
    huge = b"\x89PNG\r\n\x1a\n" + whole[9][8:16] + b"\x7f\xff\xff\xff" * 2 + whole[9][24:]
    spoiled = {4: b"no picture", 5: b"", 8: whole[8][: len(whole[8]) // 2], 9: huge}
    write_parquet(tmp_path / "a.parquet", [spoiled.get(number, image) for number, image in enumerate(whole)])
    batches = loaded(tmp_path, num_workers=workers, stop=24)
    seen = {number for batch in batches for _, number in ids(batch)}
    assert seen == set(range(24)) - set(spoiled)
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: row")]
    assert {int(line.split()[2]) for line in warnings} == set(spoiled)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pool_of_something_else_ends_in_a_sentence(tmp_path: Path, workers: int) -> None:
    write_parquet(tmp_path / "a.parquet", [b"text"] * 40)
    with pytest.raises(InputError, match=r"row \d+ of .*a.parquet cannot be decoded .*name images"):
        loaded(tmp_path, num_workers=workers)


def test_the_batch_size_counts() -> None:
    stream = ImageStream.__new__(ImageStream)
    with pytest.raises(InputError, match="unlabelled batch size is 0"):
        PairedBatches(rows(), stream, views=VIEWS, labeled_batch_size=1, unlabeled_batch_size=0)


MEASURE = """
import os, sys
from pathlib import Path
from pools import pool_of
from test_streaming_loader import VIEWS, rows
from s4mim_hf.data.loaders import PairedBatches
from s4mim_hf.data.streaming import ImageStream

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

pool = pool_of(Path(sys.argv[1]), lanes=4, shuffle_buffer=64)
batches = PairedBatches(rows(), ImageStream(pool, seed=0), views=VIEWS, labeled_batch_size=1, unlabeled_batch_size=50)
peaks = []
for first, last in ((0, 10), (10, 200)):
    peaks.append(0)
    for number in range(first, last):
        batches[number]
        peaks[-1] = max(peaks[-1], resident())
print(*peaks)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory is in use")
def test_memory_does_not_grow_with_the_images_read(tmp_path: Path) -> None:
    """500 images against 10,000, of a pool of 3,000 whose files have 60 MB; what a window holds is 1 MB of it."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 24, 3), dtype=np.uint8)
    images = [encoded(picture, "JPEG") + b"\0" * 18000 for picture in noise]
    for shard in range(4):
        many = [images[number % 20] for number in range(750)]
        if shard % 2:
            write_parquet(tmp_path / f"{shard}.parquet", many, row_group=50, compressed=False)
        else:
            tar_of(tmp_path / f"{shard}.tar", many)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    early, late = map(int, done.stdout.split())
    # All that is read is 190 MB; without bounds it, or the members of the tars, would be in memory.
    assert late < 1.05 * early, f"{early / 2**20:.0f} MiB, then {late / 2**20:.0f} MiB"
