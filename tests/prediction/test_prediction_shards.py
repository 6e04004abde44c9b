"""Parquet shards of predictions: what `datasets` reads from them, and that a killed call changes no byte of them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pools
import pyarrow as pa
import pytest
from PIL import Image
from predicting import FACTS, PALETTE, Brightest, call, noise, noise_folder, predictor, probabilities

from s4mim_hf.errors import InputError
from s4mim_hf.prediction.journal import Journal
from s4mim_hf.prediction.sources import open_images
from s4mim_hf.prediction.summary import Summary
from s4mim_hf.prediction.tasks import ShardTask


def task(source: Path | str, output: Path) -> ShardTask:
    return ShardTask(open_images([str(source)], output), FACTS, output)


def contents(output: Path) -> dict[str, bytes]:
    files = [*(output / "data").iterdir(), output / "README.md"]
    return {path.name: path.read_bytes() for path in files}


def test_datasets_reads_masks_with_their_palette_and_confidences(tmp_path: Path) -> None:
    noise_folder(tmp_path / "in", 18)
    summary = call(task(tmp_path / "in", tmp_path / "out"), predictor())
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(rows.features) == ["name", "height", "width", "mask", "confidence", "mean_confidence"]
    assert isinstance(rows.features["mask"], datasets.Image)
    assert rows["name"][:] == [f"{number:02d}" for number in range(18)]
    for number in (0, 17):
        row, expected = rows[number], probabilities(noise(number, 12 + number % 2))
        assert (row["height"], row["width"]) == expected.shape[:2]
        assert row["mask"].mode == "P"
        assert row["mask"].getpalette()[:9] == [channel for color in PALETTE for channel in color]
        np.testing.assert_array_equal(np.asarray(row["mask"]), expected.argmax(axis=-1))
        assert np.abs(np.asarray(row["confidence"]) / 255 - expected.max(axis=-1)).max() <= 1 / 510 + 1e-6
        assert row["mean_confidence"] == pytest.approx(expected.max(axis=-1).mean(), abs=1e-6)
    assert summary.mean_confidence == pytest.approx(np.mean(rows["mean_confidence"]))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "18 images, predicted by `a/model` (whole image at original size)" in card
    assert "| 1 | green | #c80000 |" in card


def test_an_interrupted_call_goes_on_with_the_next_image_and_changes_no_byte(tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 20)
    call(task(folder, tmp_path / "whole"), predictor())
    model, stops = Brightest(), [0, 3, 3, 17, 19]
    for stop in stops:
        model.fails_at = stop
        with pytest.raises(KeyboardInterrupt):
            call(task(folder, tmp_path / "out"), predictor(model))
    model.fails_at = None
    summary = call(task(folder, tmp_path / "out"), predictor(model))
    # What was encoded but not yet written when it stopped is predicted again: a few images each time.
    assert 20 <= model.calls <= 20 + 5 * len(stops)
    assert summary.predicted + summary.kept == summary.measured == 20
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert call(task(folder, tmp_path / "out"), predictor(model)).kept == 20
    assert not list((tmp_path / "out").rglob("*.arrows"))
    call(task(folder, tmp_path / "two"), predictor(), world_size=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "whole"), "whoever predicts which part"


def test_rows_of_a_call_that_was_killed_count_as_far_as_they_are_whole(tmp_path: Path) -> None:
    schema = pa.schema({"number": pa.int64(), "data": pa.binary()})
    rows = [{"number": number, "data": bytes([number]) * 300} for number in range(4)]
    journal = Journal(tmp_path / "whole", 3, schema)
    sizes = []
    for row in rows:
        journal.append([row])
        sizes.append((tmp_path / "whole" / "00003.0.arrows").stat().st_size)
    journal.close()
    data = (tmp_path / "whole" / "00003.0.arrows").read_bytes()
    for length in range(0, len(data) + 1, 37):
        cut = Journal(tmp_path / f"cut{length}", 3, schema)
        (tmp_path / f"cut{length}").mkdir()
        (tmp_path / f"cut{length}" / "00003.0.arrows").write_bytes(data[:length])
        whole = sum(size <= length for size in sizes)
        assert cut.table().to_pylist() == rows[:whole]
        cut.append(rows[whole:] or [])
        cut.close()
        assert cut.table().to_pylist() == rows
    assert journal.summary() is None
    journal.finish(Summary(kept=4, reasons={"x": "y"}, bad=1))
    assert journal.summary() == Summary(kept=4, reasons={"x": "y"}, bad=1)


def test_bad_images_are_named_again_and_predicted_once_they_are_replaced(tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 5)
    good = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(b"nothing")
    for predicted in (4, 0):
        model = Brightest()
        summary = call(task(folder, tmp_path / "out"), predictor(model))
        assert (summary.predicted, summary.bad, list(summary.reasons), model.calls) == (predicted, 1, ["03"], predicted)
    (folder / "03.png").write_bytes(good)
    summary = call(task(folder, tmp_path / "out"), predictor())
    assert (summary.predicted, summary.kept, summary.bad) == (1, 4, 0)
    call(task(folder, tmp_path / "whole"), predictor())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


# The system's call at which a process is killed, and what the file is called that it would have put or deleted.
MOMENTS = {
    "before its shard is there": ("replace", ".parquet"),
    "before it is written down as finished": ("replace", ".json"),
    "before its rows are removed": ("unlink", ".arrows"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_repaired_part_is_published_whenever_a_call_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    name, suffix = MOMENTS[moment]
    real = getattr(os, name)

    def killed(*paths: Path) -> None:
        if str(paths[-1]).endswith(suffix):
            raise KeyboardInterrupt
        real(*paths)

    folder = noise_folder(tmp_path / "in", 18)
    call(task(folder, tmp_path / "whole"), predictor())
    good = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(b"nothing")
    assert call(task(folder, tmp_path / "out"), predictor()).bad == 1
    (folder / "03.png").write_bytes(good)
    with monkeypatch.context() as patch:
        patch.setattr(os, name, killed)
        with pytest.raises(KeyboardInterrupt):
            call(task(folder, tmp_path / "out"), predictor())
    model = Brightest()
    summary = call(task(folder, tmp_path / "out"), predictor(model))
    assert (summary.kept, summary.measured, summary.bad, model.calls) == (18, 18, 0, 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob("*.arrows")), "each row is there once"


def test_a_damaged_shard_is_predicted_anew(tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 18)
    call(task(folder, tmp_path / "out"), predictor())
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "data" / "train-00001-of-00002.parquet").write_bytes(b"PAR1")
    assert call(task(folder, tmp_path / "out"), predictor()).predicted == 2
    assert contents(tmp_path / "out") == before


def test_a_part_without_any_good_image_is_an_empty_shard(tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "in", 18)
    for name in ("16.png", "17.png"):
        (folder / name).write_bytes(b"nothing")
    assert call(task(folder, tmp_path / "out"), predictor()).bad == 2
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 16


def test_a_pool_passes_by_and_goes_on(tmp_path: Path) -> None:
    pictures = []
    for number in range(6):
        buffer = io.BytesIO()
        Image.fromarray(noise(number)).save(buffer, format="PNG")
        pictures.append(buffer.getvalue())
    pools.tar_of(tmp_path / "pool-0.tar", [*pictures[:3], b"broken", *pictures[3:4]])
    pools.write_parquet(tmp_path / "pool-1.parquet", pictures[4:])
    given = f"{tmp_path}/pool-*"
    model = Brightest(fails_at=2)
    with pytest.raises(KeyboardInterrupt):
        call(task(tmp_path / "pool-0.tar", tmp_path / "one"), predictor(model))
    model.fails_at = None
    summary = call(task(tmp_path / "pool-0.tar", tmp_path / "one"), predictor(model))
    assert (summary.measured, list(summary.reasons)) == (4, ["pool-0/set/0003"])
    summary = call(task(f"{given}.{{tar,parquet}}", tmp_path / "both"), predictor(), world_size=2)
    assert (summary.predicted, summary.bad) == (6, 1)


def test_a_full_disk_is_one_sentence_and_the_same_call_goes_on(
    tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    folder = noise_folder(tmp_path / "in", 12)
    call(task(folder, tmp_path / "whole"), predictor())
    model = Brightest()
    small_files(6000)
    with pytest.raises(InputError, match=r"cannot write .*: File too large; make room .* goes on after it"):
        call(task(folder, tmp_path / "out"), predictor(model))
    small_files(2**20)
    summary = call(task(folder, tmp_path / "out"), predictor(model))
    assert summary.kept > 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_summaries_add_up_and_name_so_many_bad_images_at_most() -> None:
    total = Summary()
    for part in range(2):
        summary = Summary(predicted=3, kept=1, left_out=part)
        summary.measure(0.5 + part / 4, [1, 2, 1])
        for number in range(700):
            summary.add_bad(f"{part}/{number}", "cut")
        total.merge(summary)
    assert (total.predicted, total.kept, total.left_out, total.bad, len(total.reasons)) == (6, 2, 1, 1400, 1000)
    assert (total.mean_confidence, total.shares()) == (0.625, [0.25, 0.5, 0.25])
    assert Summary().mean_confidence is None
