"""What is kept of a photo: the class map of prediction itself, its shares, its confidence, and not for ever."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tiny_segmenters import save_segmenter

from s4mim_hf.demo.looking import DISPLAY_SIDE, Look, Shelf, look_at
from s4mim_hf.demo.models import DemoModel, open_model
from s4mim_hf.evaluation.inference import InferenceConfig
from s4mim_hf.prediction.pictures import encoded, mask_picture
from s4mim_hf.prediction.predictor import Prediction, Predictor
from s4mim_hf.prediction.sources import InputImage


@pytest.fixture(scope="module")
def models(plain_model: Path, training_model: Path) -> tuple[DemoModel, DemoModel]:
    return open_model(str(plain_model)), open_model(str(training_model))


def test_the_class_map_is_that_of_prediction(models, photo: Path, tmp_path: Path) -> None:
    """Against scripts/predict.py's own predictor, and a softmax over the model's logits."""
    model = models[0]
    look = look_at(photo, (model,), tmp_path, max_side=1024, name="given.jpg")
    predictor = Predictor(model.segmenter, model.processor, InferenceConfig(), classes=len(model.classes))
    (predicted,) = predictor.predict([InputImage(0, "photo", photo.read_bytes)])
    assert isinstance(predicted, Prediction)
    mask = io.BytesIO(encoded(mask_picture(predicted.label, model.palette)))
    found = look.found[0]
    assert found.file == tmp_path / "given_classes.png"
    with Image.open(found.file) as ours, Image.open(mask) as theirs:
        assert (ours.mode, ours.size) == ("P", (96, 72))
        np.testing.assert_array_equal(ours, theirs)
        assert ours.getpalette() == theirs.getpalette()
        ids = np.asarray(ours)
    np.testing.assert_array_equal(found.ids, ids)
    assert len(np.unique(ids)) > 1
    assert found.shares == tuple((ids == index).mean() for index in range(len(model.classes)))
    with Image.open(photo) as stored:
        upright = ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(look.image, upright)
    with torch.no_grad():
        pixels = model.processor(upright, return_tensors="pt")["pixel_values"]
        expected = model.segmenter(pixels).logits.softmax(dim=1).amax(dim=1)[0].numpy()
    assert np.abs(found.confidence / 255 - expected).max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("name", ["../../../x.png", "a" * 300 + ".jpg", "nul\0.jpg", "", "ü b.jpg"])
def test_no_name_of_a_photo_leads_elsewhere(models, photo: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    look = look_at(photo, models[:1], tmp_path / "in", max_side=1024, name=name)
    assert [*tmp_path.rglob("*.png")] == [look.found[0].file]
    assert look.found[0].file.parent == tmp_path / "in"


def test_large_photos_are_small_on_the_page_and_whole_in_the_file(models, tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1920, dtype=np.uint8)[None, :, None]
    Image.fromarray(np.broadcast_to(ramp, (960, 1920, 3))).save(tmp_path / "wide.jpg")
    look = look_at(tmp_path / "wide.jpg", models, tmp_path, max_side=96)
    assert look.size == (960, 1920)
    assert look.image.shape == (DISPLAY_SIDE // 2, DISPLAY_SIDE, 3)
    for found in look.found:
        assert found.ids.shape == found.confidence.shape == look.image.shape[:2]
        assert sum(found.shares) == pytest.approx(1)
        with Image.open(found.file) as mask:
            assert mask.size == (1920, 960)
            whole = np.asarray(mask)
        # The pixel of the class map at the centre of each one that is shown.
        rows = [int((row + 0.5) * 960 / 640) for row in range(640)]
        columns = [int((column + 0.5) * 1920 / 1280) for column in range(1280)]
        np.testing.assert_array_equal(found.ids, whole[rows][:, columns])
    assert look.found[0].file != look.found[1].file


def test_two_models_are_compared_where_an_id_means_the_same(models, photo: Path, tmp_path: Path) -> None:
    look = look_at(photo, models, tmp_path, max_side=1024)
    first, second = (found.ids for found in look.found)
    np.testing.assert_array_equal(look.differing, first != second)
    assert look.difference == (first != second).mean()
    assert 0 < look.difference < 1
    other = open_model(str(save_segmenter(tmp_path / "other", classes=("a", "b"))))
    look = look_at(photo, (models[0], other), tmp_path, max_side=1024)
    assert look.differing is None
    assert look.difference is None


def test_a_shelf_forgets_what_was_longest_not_asked_for(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", capacity=2)
    tokens = []
    for name in "abc":
        token, folder = shelf.new_folder()
        (folder / "file").touch()
        shelf.put(token, Look(name, (1, 1), np.zeros((1, 1, 3), np.uint8), ()))
        tokens.append(token)
        assert shelf.get(tokens[0]) is not None, "the first one is asked for again and again"
    first, second, third = tokens
    assert shelf.get(second) is None
    assert shelf.get(third).name == "c"
    assert sorted(path.name for path in (tmp_path / "shelf").iterdir()) == sorted([first, third])
    shelf.drop(first)
    shelf.drop(None)
    assert shelf.get(first) is None
    assert shelf.get(None) is None
    assert [path.name for path in (tmp_path / "shelf").iterdir()] == [third]
