"""Masks, overlays and confidences as PNGs: what is in them, what a second call keeps, what a full disk leaves."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicting import FACTS, NAMES, PALETTE, Brightest, call, noise, noise_folder, picture, predictor, probabilities

from s4mim_hf.errors import InputError
from s4mim_hf.prediction.claims import claimed, model_in_words, weights_hash
from s4mim_hf.prediction.pictures import PictureFolder
from s4mim_hf.prediction.predictor import Prediction
from s4mim_hf.prediction.sources import InputImage, open_images
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


def test_names_that_begin_alike_or_are_long_in_bytes_get_their_own_masks(tmp_path: Path) -> None:
    # Two threads write at once; large maps, so that they do for long enough.
    folder, output = tmp_path / "in", PictureFolder(tmp_path / "out", PALETTE, NAMES, overlays=False)
    folder.mkdir()
    names = [f"{'x' * 100}{number:02d}" for number in range(24)] + ["\N{SLICE OF PIZZA}" * 62, "é" * 124]
    maps = {name: np.random.default_rng(number).integers(0, 3, (300, 300)) for number, name in enumerate(names)}
    pixels = np.zeros((300, 300, 3), dtype=np.uint8)

    def write(name: str) -> None:
        image = InputImage(0, name, lambda: b"")
        output.write(Prediction(image, b"", pixels, maps[name].astype(np.uint8), pixels[..., 0].astype(np.float32)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, names))
    for name in names:
        with Image.open(tmp_path / "out" / "masks" / f"{name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), maps[name])
    assert len(list((tmp_path / "out" / "masks").iterdir())) == len(names)


def written_masks(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "masks").iterdir()}


def test_masks_are_kept_for_the_same_pictures_only(tmp_path: Path) -> None:
    """Not of another folder with the same names, nor of a picture that is replaced in its place."""
    first, second, output = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for name in ("frame_1.png", "frame_2.png"):
        picture(first / name, channel=1)
        picture(second / name, channel=2, size=(8 if name == "frame_1.png" else 11, 6))
    # The same size and time: neither tells them apart.
    for folder in (first, second):
        os.utime(folder / "frame_1.png", ns=(0, 0))
    call(task(first, output, overlays=True), predictor())
    summary = call(task(second, output), predictor())
    assert (summary.predicted, summary.kept, summary.replaced) == (2, 0, 2)
    call(task(second, tmp_path / "alone"), predictor())
    assert written_masks(output) == written_masks(tmp_path / "alone")
    assert not list((output / "overlays").iterdir()), "an overlay of another picture beside this one's mask"
    # Copied elsewhere, with other times, the pictures are the same.
    moved = shutil.copytree(second, tmp_path / "moved", copy_function=shutil.copy)
    model = Brightest()
    assert call(task(moved, output), predictor(model)).kept == 2
    assert model.calls == 0
    picture(moved / "frame_2.png", channel=1, size=(11, 6))
    summary = call(task(moved, output), predictor())
    assert (summary.predicted, summary.kept, summary.replaced) == (1, 1, 1)
    (output / "masks" / "frame_2.png").write_bytes(b"cut")
    assert call(task(moved, output), predictor()).replaced == 1
    assert call(task(moved, output), predictor()).kept == 2


def test_a_mask_that_does_not_say_whose_it_is_stays_as_it_is(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "x.png")
    corrected = tmp_path / "out" / "masks" / "x.png"
    call(task(tmp_path / "in", tmp_path / "out"), predictor())
    # What an image editor leaves of a mask that a person has corrected; older code wrote no text either.
    Image.fromarray(np.zeros((6, 8), dtype=np.uint8)).save(corrected)
    before = corrected.read_bytes()
    assert call(task(tmp_path / "in", tmp_path / "out"), predictor()).kept == 1
    assert corrected.read_bytes() == before
    # Nor where something else is missing, or asked for only now.
    summary = call(task(tmp_path / "in", tmp_path / "out", overlays=True, confidences=True), predictor())
    assert summary.predicted == 1
    assert corrected.read_bytes() == before
    assert (tmp_path / "out" / "overlays" / "x.png").is_file()
    assert (tmp_path / "out" / "confidences" / "x.png").is_file()


def test_a_mask_tells_the_sha256_of_its_picture_and_stays_where_that_cannot_be_read(tmp_path: Path) -> None:
    path = picture(tmp_path / "in" / "x.png")
    call(task(tmp_path / "in", tmp_path / "out", overlays=True, confidences=True), predictor())
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    for kind in ("masks", "overlays", "confidences"):
        with Image.open(tmp_path / "out" / kind / "x.png") as stored:
            assert stored.info["picture-sha256"] == expected
    again = task(tmp_path / "in", tmp_path / "out")
    path.unlink()
    summary = call(again, predictor())
    assert (summary.kept, summary.bad, summary.replaced) == (0, 1, 0)
    assert (tmp_path / "out" / "masks" / "x.png").is_file()


def test_the_record_stays_while_there_is_a_mask(tmp_path: Path) -> None:
    record = tmp_path / "out" / "prediction.json"
    picture(tmp_path / "in" / "x.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "y.png").write_bytes(b"nothing")

    def predict(folder: Path) -> None:
        one = task(folder, tmp_path / "out")
        with claimed(tmp_path / "out", tmp_path / "out", one.identity, {"model": "a"}):
            call(one, predictor())

    predict(tmp_path / "bad")
    assert not record.exists()
    predict(tmp_path / "in")
    predict(tmp_path / "bad")
    assert record.exists()
    with (
        pytest.raises(InputError, match="of model 'a', not of 'b'"),
        claimed(tmp_path / "out", tmp_path / "out", {"weights": "others"}, {"model": "b"}),
    ):
        pass


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


def test_a_models_name_is_its_folders_and_no_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "work" / "alice"))
    for path, words in (
        ("work/alice/model", "model"),
        ("work/alice/mine", "mine"),
        ("work/alice/mine/model", "mine/model"),
        ("runs/again", "again"),
        ("runs/again/../again/model", "again/model"),
    ):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        assert model_in_words(str(tmp_path / path)) == words
    assert model_in_words("~/model") == "model"
    assert model_in_words("/") == ""
    monkeypatch.chdir(tmp_path / "runs" / "again" / "model")
    assert model_in_words(".") == "again/model"
    assert model_in_words("somebody/model") == "somebody/model", "an id of the Hub"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", lambda path: True)
        found = [model_in_words(f"{folder}/model") for folder in ("/home/bob", "/Users/bob", "/home", "")]
    assert found == 4 * ["model"]
