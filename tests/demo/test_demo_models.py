"""What a name stands for: the right weights, the right head, or one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_segmenters import architecture, save_segmenter

from s4mim_hf import S4MIMForSemanticSegmentation, S4MIMForSemiSupervisedSegmentation, S4MIMImageProcessor
from s4mim_hf.data.synthetic import CLASSES, PALETTE
from s4mim_hf.demo.models import classes_agree, open_model, save_demo_model
from s4mim_hf.engine.finished_run import load_finished_run
from s4mim_hf.errors import InputError

PIXELS = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def same_weights(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_segmenter_s_folder(plain_model: Path) -> None:
    found = open_model(str(plain_model))
    assert (found.classes, found.palette, found.head) == (CLASSES, PALETTE, None)
    assert found.label == plain_model.parent.name, "a folder called model says nothing"
    expected = S4MIMForSemanticSegmentation.from_pretrained(plain_model)
    assert same_weights(found.segmenter, expected)
    assert not found.segmenter.training


def test_a_published_model_s_folder_is_no_run_s(plain_model: Path, run_folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(plain_model, tmp_path / "copy"))
    shutil.copy(run_folder / "run_config.yaml", copied)
    assert same_weights(open_model(str(copied)).segmenter, open_model(str(plain_model)).segmenter)


def test_a_run_shows_its_model_and_fills_in_by_its_student(run_folder: Path) -> None:
    found = open_model(str(run_folder))
    run = load_finished_run(run_folder)
    stored = load_file(run_folder / "model" / "model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in found.segmenter.state_dict().items())
    assert found.label == "demo"
    assert found.head is not None
    # Built without the run's data, which may lie elsewhere by now.
    assert same_weights(found.head.student, run.student)
    assert not same_weights(found.segmenter, run.student.segmenter)
    assert found.head.method == run.config.method
    assert (found.head.mean, found.head.std) == run.statistics
    assert not found.head.student.training
    assert found.head.notes == ()


def test_a_run_without_its_data_checkpoint_or_decoder(run_folder: Path, prepared: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run_folder, tmp_path / "run"))
    text = (copied / "run_config.yaml").read_text()
    (copied / "run_config.yaml").write_text(text.replace(str(prepared), str(tmp_path / "gone")))
    assert open_model(str(copied)).head is not None
    (copied / "run_config.yaml").write_text(
        text.replace("reconstruction:\n    weight: 0.1", "reconstruction:\n    weight: 0")
    )
    assert open_model(str(copied)).head is None
    (copied / "run_config.yaml").write_text(text)
    shutil.rmtree(copied / "checkpoints")
    assert open_model(str(copied)).head is None
    shutil.rmtree(copied / "model")
    with pytest.raises(InputError, match="has no model/ yet"):
        open_model(str(copied))


def test_a_training_model_s_folder_segments_and_fills_in(training_model: Path) -> None:
    found = open_model(str(training_model))
    expected = S4MIMForSemiSupervisedSegmentation.from_pretrained(training_model).eval()
    with torch.no_grad():
        assert torch.equal(found.segmenter(PIXELS).logits, expected(PIXELS).logits)
    assert found.head is not None
    assert same_weights(found.head.student, expected)
    assert any("reconstruction.json" in note for note in found.head.notes), "how it learned is a guess, and says so"


def test_a_training_model_without_decoder_has_no_head(tmp_path: Path) -> None:
    S4MIMForSemiSupervisedSegmentation(architecture(mim_decoder=False)).save_pretrained(tmp_path)
    S4MIMImageProcessor().save_pretrained(tmp_path)
    assert open_model(str(tmp_path)).head is None


@pytest.mark.parametrize("kind", ["run_folder", "training_model", "plain_model"])
def test_what_is_saved_for_a_space_is_the_same(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = open_model(str(request.getfixturevalue(kind)))
    save_demo_model(found, tmp_path / "saved")
    again = open_model(str(tmp_path / "saved"))
    assert same_weights(again.segmenter, found.segmenter)
    assert (again.classes, again.palette) == (found.classes, found.palette)
    assert (again.head is None) == (found.head is None)
    if found.head is not None and again.head is not None:
        assert same_weights(again.head.student, found.head.student)
        assert (again.head.method, again.head.notes) == (found.head.method, found.head.notes)


def test_damaged_settings_of_a_head_are_named(training_model: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(training_model, tmp_path / "student"))
    (copied / "reconstruction.json").write_text('{"masking": {"patch_size": -1}}')
    with pytest.raises(InputError, match=r"reconstruction\.json is damaged"):
        open_model(str(copied))


def test_what_is_no_model_is_one_sentence(plain_model: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(plain_model, tmp_path / "copy"))
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights"):
        open_model(str(copied))
    (copied / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="'bert'"):
        open_model(str(copied))
    with pytest.raises(InputError, match="is no model folder"):
        open_model(str(tmp_path))
    many = save_segmenter(tmp_path / "many", classes=tuple(map(str, range(300))))
    with pytest.raises(InputError, match="300 classes, and the page shows at most 256"):
        open_model(str(many))


def test_classes_agree_where_an_id_means_the_same(plain_model: Path, training_model: Path, tmp_path: Path) -> None:
    first, second = open_model(str(plain_model)), open_model(str(training_model))
    swapped = open_model(str(save_segmenter(tmp_path / "swapped", classes=(*CLASSES[1:], CLASSES[0]))))
    assert classes_agree((first,))
    assert classes_agree((first, second))
    assert not classes_agree((first, swapped))
