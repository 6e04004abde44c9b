"""The loader's benchmark compares like with like: the same pictures, and a reference that makes what the peers make."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from s4mim_hf.data.strong_views import normalize
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.benchmarks import loader_reference as peers
from s4mim_hf.experiments.benchmarks.loader import Cost, LoaderCosts, LoaderSettings, benchmark_loader
from s4mim_hf.experiments.benchmarks.loader_cases import (
    BARE,
    CASES,
    OURS,
    QUICK_CASES,
    REFERENCE,
    WITH_DEVICE,
    Pipelines,
    finish_on_device,
)
from s4mim_hf.experiments.benchmarks.loader_pictures import make_samples

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_made_pictures_are_as_large_as_those_they_stand_for() -> None:
    case = CASES[0]
    for sample in make_samples(2, case.width, case.height, case.image_format, None):
        with Image.open(io.BytesIO(sample.image)) as image, Image.open(io.BytesIO(sample.label)) as label:
            assert image.format == "JPEG"
            assert image.size == label.size == (500, 375)
            assert label.mode == "L"
        assert 85_000 < len(sample.image) < 125_000


def test_ones_own_photographs_take_their_place(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (200, 20, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 90), (20, 200, 20)).save(tmp_path / "b.webp", lossless=True)
    (tmp_path / "notes.txt").write_text("no picture")
    colors = []
    for sample in make_samples(4, 60, 40, "PNG", tmp_path):
        with Image.open(io.BytesIO(sample.image)) as image:
            assert image.size == (60, 40)
            colors.append(image.getpixel((30, 20)))
    assert colors == [(200, 20, 20), (20, 200, 20)] * 2
    (tmp_path / "c.jpg").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"c\.jpg cannot be read"):
        make_samples(4, 60, 40, "PNG", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no pictures"):
        make_samples(1, 60, 40, "PNG", tmp_path / "empty")


def test_the_reference_cuts_image_and_label_alike_and_knows_its_padding() -> None:
    columns = np.broadcast_to(np.arange(50, dtype=np.uint8), (40, 50))
    image, label = Image.fromarray(np.stack([columns * 4] * 3, axis=-1)), Image.fromarray(columns)
    padded = 0
    for seed in range(20):
        view, mask = peers.weak_view(image, label, 48, 255, random.Random(seed))
        assert view.size == mask.size == (48, 48)
        ids = np.array(mask).astype(float)
        known = ids != 255
        assert np.abs(np.array(view)[..., 0] / 4 - ids)[known].max() <= 1
        padded += int(not known.all())
    assert 0 < padded < 20


def test_the_reference_makes_what_ours_and_the_device_make() -> None:
    case = replace(QUICK_CASES[0], batch_size=3)
    pipelines = Pipelines(case, make_samples(2, case.width, case.height, "JPEG", None))
    labeled, unlabeled = pipelines.reference(0)
    batch = pipelines.ours()[0]
    images, *views, labels = finish_on_device(batch, 0)
    assert (images.shape, images.dtype) == (labeled.image.shape, labeled.image.dtype) == ((3, 3, 64, 64), torch.float32)
    assert (labels.shape, labels.dtype) == (labeled.label.shape, labeled.label.dtype) == ((3, 64, 64), torch.int64)
    references = (unlabeled.weak, unlabeled.first_strong, unlabeled.second_strong)
    assert [(view.shape, view.dtype) for view in views] == [(view.shape, view.dtype) for view in references]
    assert torch.equal(images, normalize(batch.labeled_images, MEAN, STD))
    for weak, *strong in (views, references):
        assert all(not torch.equal(view, weak) for view in strong)
        assert not torch.equal(*strong)
    assert unlabeled.first_box.shape == unlabeled.ignored.shape == (3, 64, 64)
    alone = replace(pipelines, with_unlabeled=False)
    assert alone.reference(0)[1] is None
    assert alone.ours()[0].unlabeled_images is None
    assert (pipelines.images, alone.images) == (6, 3)


def test_rates_are_compared_round_by_round() -> None:
    def costs(*core: float) -> list[Cost]:
        return [Cost(seconds, seconds / 2, 2 * seconds) for seconds in core]

    rows = {BARE: costs(1, 2, 1), OURS: costs(2, 4, 2), WITH_DEVICE: costs(4, 8, 4), REFERENCE: costs(8, 16, 8)}
    found = LoaderCosts(CASES[0], 100.0, rows, rows)
    assert found.reached().to_dict() == {"lower": 4, "median": 4, "upper": 4}
    assert LoaderCosts(CASES[1], 100.0, rows, rows).reached("making").median == 0.5
    content = found.to_dict()["labeled_and_unlabeled"]
    assert content[WITH_DEVICE]["rate_over_reference"]["median"] == 2
    assert content[WITH_DEVICE]["rate_over_bare_decoding"]["median"] == 0.25
    assert content[OURS]["images_per_second_per_core"] == 0.5
    assert content[OURS]["of_these_making"]["median"] == 1
    assert content[OURS]["wall_seconds_per_image"]["median"] == 4
    assert content[WITH_DEVICE]["wall_seconds_per_image"] is None


def test_every_way_to_load_is_measured() -> None:
    threads = torch.get_num_threads()
    found = benchmark_loader(LoaderSettings(rounds=1, warmup=0, cases=QUICK_CASES[:1]))
    assert torch.get_num_threads() == threads
    (costs,) = found.costs
    for rows in (costs.costs, costs.labeled_costs):
        assert list(rows) == [BARE, OURS, WITH_DEVICE, REFERENCE]
        for (cost,) in rows.values():
            assert cost.making > 0
            assert cost.wall > 0
        assert rows[WITH_DEVICE][0].making > rows[OURS][0].making
    console = Console(file=io.StringIO(), width=80)
    for table in found.tables():
        console.print(table)
    printed = console.file.getvalue()
    assert "…" not in printed
    assert printed.count("bare") >= 4
    assert printed.count("│ 3      │") == 1, "the goal stands beside what was measured"
