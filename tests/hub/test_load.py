"""A model loads whole or is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSemanticSegmentation, SegformerConfig, SegformerForSemanticSegmentation

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


def test_a_repository_that_cannot_be_had_is_named() -> None:
    with pytest.raises(InputError, match="cannot load the model somebody/nothing: HF_HUB_OFFLINE is set"):
        load_model("somebody/nothing")


@pytest.mark.parametrize("name", ["a b/c", "a/b/c", "", "-x/y", "a..b/c", "https://host/a/b", "x/" + "y" * 120])
def test_what_can_be_no_repository_is_said(name: str) -> None:
    with pytest.raises(InputError, match="is neither a folder that is there nor the id of a Hub repository"):
        load_model(name)


def test_damaged_weights_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:-100], b"hello", b""):
        weights.write_bytes(content)
        with pytest.raises(InputError, match=r"^model\.safetensors of .*model is no whole safetensors file"):
            load_model(copied)


def test_without_weights_or_with_pickled_ones_there_is_no_model(copied: Path) -> None:
    state = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no weights: there is no model\.safetensors"):
        load_model(copied)
    torch.save(state, copied / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"as pytorch_model\.bin only, which can run code"):
        load_model(copied)
    # transformers alone would read it.
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        S4MIMForSemanticSegmentation.from_pretrained(copied)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        AutoModelForSemanticSegmentation.from_pretrained(copied)
    with pytest.raises(ValueError, match="read from safetensors only"):
        S4MIMForSemanticSegmentation.from_pretrained(copied, use_safetensors=False)


def test_weights_are_written_as_safetensors_only_also_in_shards(saved: Path, tmp_path: Path) -> None:
    model, processor = load_model(saved)
    with pytest.raises(ValueError, match="written as safetensors only"):
        model.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert not (tmp_path / "pickled").exists()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    processor.save_pretrained(tmp_path)
    shards = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json", ".py"}
    loaded, _ = load_model(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    (tmp_path / shards[1]).unlink()
    with pytest.raises(InputError, match=f"lacks {shards[1]} of its weight files"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="lists no weights"):
        load_model(tmp_path)


def test_missing_weights_are_refused_and_not_drawn(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    gone = next(name for name in weights if name.endswith("classifier.weight"))
    del weights[gone]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"lacks 1 of its weights, such as {gone}"):
        load_model(copied)


def test_weights_of_other_shapes_are_named(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "decoder_channels": 16}))
    sentence = r"has \d+ weights of other shapes than its config\.json means, such as decode_head\.classifier\.weight: "
    with pytest.raises(InputError, match=sentence + r"\(3, 8, 1, 1\) instead of \(3, 16, 1, 1\)"):
        load_model(copied)
    assert "MISMATCH" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"model_type": "bert"}', "holds a model of type 'bert', which segments nothing"),
        ('{"model_type": "s4mimm"}', "no segmentation model can be loaded from .*s4mimm"),
        ('{"model_type": "s4mim", "decoder_chanels": 8}', "did you mean 'decoder_channels'"),
        ("{}", "names no model_type"),
        ("[1]", "names no model_type"),
        ("{nope", r"config\.json of .* is no JSON \(.*\); save the model again"),
    ],
)
def test_what_a_configuration_does_not_describe_is_refused(copied: Path, content: str, sentence: str) -> None:
    (copied / "config.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        load_model(copied)


def test_another_segmenter_is_a_model_too(tmp_path: Path) -> None:
    config = SegformerConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, num_labels=3
    )
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    S4MIMImageProcessor().save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    assert isinstance(model, SegformerForSemanticSegmentation)


def test_a_missing_processor_is_named(copied: Path) -> None:
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="no image processor that can be loaded"):
        load_model(copied)
