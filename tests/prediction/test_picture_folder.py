"""Masks, overlays and confidences as PNGs: what is in them, what a second call keeps, what a full disk leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicting import FACTS, PALETTE, Brightest, call, noise, noise_folder, picture, predictor, probabilities

from s4mim_hf.errors import InputError
from s4mim_hf.prediction.claims import claimed, weights_hash
from s4mim_hf.prediction.sources import open_images
from s4mim_hf.prediction.tasks import PictureTask


def task(folder: Path, output: Path, overlays: bool = False, confidences: bool = False) -> PictureTask:
    source = open_images([str(folder)], output)
    return PictureTask(source, FACTS, output, overlays=overlays, confidences=confidences)


def test_masks_are_palette_pngs_of_ids_at_the_oriented_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture(tmp_path / "in" / "turned.png", size=(8, 6), channel=2, exif=exif)
    picture(tmp_path / "in" / "plain.png", size=(8, 6), channel=1)
    summary = call(task(tmp_path / "in", tmp_path / "out"), predictor())
    assert (summary.predicted, summary.bad, summary.pixels) == (2, 0, [0, 48, 48])
    with Image.open(tmp_path / "out" / "masks" / "turned.png") as mask:
        assert (mask.mode, mask.size) == ("P", (6, 8))
        assert mask.getpalette()[:9] == [channel for color in PALETTE for channel in color]
        assert (np.asarray(mask) == 2).all()
    with Image.open(tmp_path / "out" / "masks" / "plain.png") as mask:
        assert (np.asarray(mask) == 1).all()
    assert not (tmp_path / "out" / "overlays").exists()


def test_confidences_are_probabilities_in_eight_bits_and_overlays_have_a_legend(tmp_path: Path) -> None:
    noise_folder(tmp_path / "in", 1)
    summary = call(task(tmp_path / "in", tmp_path / "out", overlays=True, confidences=True), predictor())
    with Image.open(tmp_path / "in" / "00.png") as image:
        expected = probabilities(np.asarray(image)).max(axis=-1)
    with Image.open(tmp_path / "out" / "confidences" / "00.png") as stored:
        assert stored.mode == "L"
        assert np.abs(np.asarray(stored) / 255 - expected).max() <= 1 / 510 + 1e-6
    assert summary.mean_confidence == pytest.approx(expected.mean(), abs=1e-6)
    with Image.open(tmp_path / "out" / "overlays" / "00.png") as drawn:
        assert drawn.height > 12


def test_a_second_call_predicts_what_is_missing(tmp_path: Path) -> None:
    noise_folder(tmp_path / "in", 4)
    model = Brightest(fails_at=2)
    with pytest.raises(KeyboardInterrupt):
        call(task(tmp_path / "in", tmp_path / "out"), predictor(model))
    model.fails_at = None
    summary = call(task(tmp_path / "in", tmp_path / "out"), predictor(model), world_size=3)
    # What was predicted but not yet written when it stopped is predicted again.
    assert summary.predicted + summary.kept == 4
    assert model.calls == 2 + summary.predicted
    (tmp_path / "out" / "masks" / "01.png").unlink()
    assert call(task(tmp_path / "in", tmp_path / "out"), predictor()).predicted == 1
    # With overlays wanted as well, masks alone are not everything.
    assert call(task(tmp_path / "in", tmp_path / "out", overlays=True), predictor()).predicted == 4
    assert call(task(tmp_path / "in", tmp_path / "out", overlays=True), predictor()).kept == 4
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_full_disk_is_one_sentence(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        Image.fromarray(noise(number, 200, 200)).save(tmp_path / "in" / f"{number}.png")
    folder = tmp_path / "in"
    small_files(5000)
    with pytest.raises(InputError, match=r"masks/.\.png cannot be written: .*make room or give another --output"):
        call(task(folder, tmp_path / "out"), predictor())
    small_files(2**20)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert call(task(folder, tmp_path / "out"), predictor()).predicted == 2


def test_an_output_belongs_to_one_model_and_protocol(tmp_path: Path) -> None:
    def claim(model: str, **identity: str) -> None:
        with claimed(tmp_path / "out", tmp_path / "out", identity, {"model": model}):
            pass

    claim("a", weights="1", protocol="whole")
    claim("moved/a", weights="1", protocol="whole", images="x")
    for message, model, identity in (
        ("of model 'moved/a', not of 'b'", "b", {"weights": "2"}),
        ("of other weights of model 'moved/a' than it has now", "moved/a", {"weights": "2"}),
        ("with protocol 'whole', not 'sliding'", "a", {"weights": "1", "protocol": "sliding"}),
        ("of other images than these", "a", {"images": "y"}),
    ):
        with pytest.raises(InputError, match=message):
            claim(model, **identity)
    with (
        claimed(tmp_path / "out", tmp_path / "out", {}, {}),
        pytest.raises(InputError, match="another process is writing"),
    ):
        claim("a")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used for output"), claimed(tmp_path / "file", tmp_path, {}, {}):
        pass
    assert weights_hash(Brightest()) == weights_hash(Brightest())
    changed = Brightest()
    changed.scale.data += 1
    assert weights_hash(changed) != weights_hash(Brightest())
