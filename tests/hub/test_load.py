"""A model loads whole or is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s4mim_hf import S4MIMConfig, S4MIMForSemanticSegmentation, S4MIMImageProcessor
from s4mim_hf.data.catalog import default_palette
from s4mim_hf.errors import InputError
from s4mim_hf.hub.load import load_model, model_palette

BACKBONE = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "model"
    config = S4MIMConfig(
        backbone_config=BACKBONE, decoder_channels=8, low_level_channels=8, num_labels=3,
        palette=[[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    )  # fmt: skip
    S4MIMForSemanticSegmentation(config).save_pretrained(folder)
    S4MIMImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_loads_weights_processor_and_palette(saved: Path) -> None:
    model, processor = load_model(saved)
    assert not model.training
    assert list(processor.image_mean) == [0.1, 0.2, 0.3]
    assert model_palette(model) == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    model.config.palette = None
    assert model_palette(model) == tuple(default_palette(3))
    stored = load_file(saved / "model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items() if name in stored)


def test_what_is_no_model_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json; did you mean .*model\?"):
        load_model(saved.parent)
    with pytest.raises(InputError, match="is no model folder"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="there is no model folder"):
        load_model(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="is a file"):
        load_model(saved / "config.json")


def test_a_repository_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="somebody/nothing"):
        load_model("somebody/nothing")


def test_cut_weights_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="no segmentation model can be loaded"):
        load_model(copied)


def test_missing_weights_are_refused_and_not_drawn(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    gone = next(name for name in weights if name.endswith("classifier.weight"))
    del weights[gone]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"lacks 1 of its weights, such as {gone}"):
        load_model(copied)


def test_weights_of_other_shapes_and_other_tasks_are_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "decoder_channels": 16}))
    with pytest.raises(InputError, match="no segmentation model can be loaded"):
        load_model(copied)
    (copied / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="no segmentation model can be loaded"):
        load_model(copied)


def test_a_missing_processor_is_named(copied: Path) -> None:
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="no image processor that can be loaded"):
        load_model(copied)
