"""Saved folders hold what was saved, and load in a process that has imported this project."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import DILATED
from safetensors import safe_open
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation

from s4mim_hf.modeling import (
    S4MIMConfig,
    S4MIMForSemanticSegmentation,
    S4MIMForSemiSupervisedSegmentation,
    S4MIMImageProcessor,
    convert_batch_norm,
    freeze_batch_norm,
    register_auto_classes,
)


def save_both(model: S4MIMForSemiSupervisedSegmentation | S4MIMForSemanticSegmentation, folder: Path) -> Path:
    model.save_pretrained(folder)
    S4MIMImageProcessor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("decoder", ["conv", "attention"])
def test_the_segmenters_folder_holds_no_training_head(make_config, tmp_path, decoder):
    config = make_config(masked_features="token", mim_projection_channels=4, mim_decoder_type=decoder)
    model = S4MIMForSemiSupervisedSegmentation(config)
    model.segmenter.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        assert {key.split(".")[0] for key in weights.keys()} == {"backbone", "decode_head"}  # noqa: SIM118
    assert S4MIMConfig.from_pretrained(tmp_path).num_labels == 5


def test_after_importing_the_project_no_trust_is_needed(make_config, tmp_path):
    register_auto_classes()
    register_auto_classes()
    folder = save_both(S4MIMForSemanticSegmentation(make_config()), tmp_path / "model")
    assert type(AutoConfig.from_pretrained(folder)) is S4MIMConfig
    assert type(AutoModel.from_pretrained(folder)) is S4MIMForSemanticSegmentation
    assert type(AutoModelForSemanticSegmentation.from_pretrained(folder)) is S4MIMForSemanticSegmentation
    assert type(AutoImageProcessor.from_pretrained(folder)) is S4MIMImageProcessor


@pytest.mark.parametrize("decoder", ["conv", "attention"])
def test_the_training_model_reconstructs_alike_after_the_round_trip(make_config, tmp_path, decoder):
    config = make_config(mim_decoder_type=decoder, masked_features="token")
    model = S4MIMForSemiSupervisedSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.mim_decoder.parameters():
            parameter.copy_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded, report = S4MIMForSemiSupervisedSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    masks = torch.rand(1, 1, 40, 72) < 0.5, torch.rand(1, 1, 10, 18) < 0.5
    class_map, images = torch.randint(0, 3, (1, 10, 18)), torch.randn(1, 3, 40, 72)
    with torch.no_grad():
        before, after = (one(images, *masks, class_map) for one in (model, loaded.eval()))
    torch.testing.assert_close(before.reconstruction, after.reconstruction, rtol=1e-4, atol=1e-4)
    assert torch.equal(before.reconstructed, after.reconstructed)
    assert before.reconstruction.abs().sum() > 0


@pytest.mark.parametrize("stride", [None, 8])
def test_weights_and_buffers_survive_the_round_trip(make_config, tmp_path, backbone_name, stride):
    if stride and backbone_name not in DILATED:
        pytest.skip("it exists at its own stride only")
    config = make_config(backbone_name, output_stride=stride, masked_features="token", mim_projection_channels=4)
    model = S4MIMForSemiSupervisedSegmentation(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if "relative_position_index" in key:
                continue  # a table of places
            spread = 0.1 if tensor.ndim > 1 else 1.0  # so that no logit is infinite
            tensor.copy_((torch.rand(tensor.shape) + 0.5) * spread if tensor.is_floating_point() else torch.tensor(7))
    model.save_pretrained(tmp_path)
    loaded, report = S4MIMForSemiSupervisedSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    # Tables that are not saved (positions, frequencies) are computed anew, and must not be forgotten.
    expected = {**model.state_dict(), **dict(model.named_buffers())}
    for key, value in {**loaded.state_dict(), **dict(loaded.named_buffers())}.items():
        assert torch.equal(expected[key], value), key
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        before, after = (one.segmenter(images).logits for one in (model, loaded.eval()))
    # Not to the last bit: where weights lie in memory decides which kernels sum them.
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_a_classifier_of_other_classes_starts_anew_and_nothing_else(make_config, tmp_path):
    model = S4MIMForSemiSupervisedSegmentation(make_config("swin"))
    model.save_pretrained(tmp_path)
    loaded = S4MIMForSemiSupervisedSegmentation.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert loaded.segmenter.decode_head.classifier.weight.shape[0] == 7
    for key, value in loaded.state_dict().items():
        assert value.isfinite().all(), key
        if "classifier" not in key:
            assert torch.equal(value, model.state_dict()[key]), key


def test_either_model_loads_the_others_folder(make_config, tmp_path):
    config = make_config(mim_projection_channels=4)
    both = S4MIMForSemiSupervisedSegmentation(config)
    both.save_pretrained(tmp_path / "both")
    alone, report = S4MIMForSemanticSegmentation.from_pretrained(tmp_path / "both", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for key, value in alone.state_dict().items():
        assert torch.equal(both.segmenter.state_dict()[key], value), key
    alone.save_pretrained(tmp_path / "alone")
    again, report = S4MIMForSemiSupervisedSegmentation.from_pretrained(tmp_path / "alone", output_loading_info=True)
    assert not [key for key in report["missing_keys"] if key.startswith("segmenter.")]
    assert torch.equal(again.segmenter.decode_head.classifier.weight, both.segmenter.decode_head.classifier.weight)
    assert all(value.isfinite().all() for value in again.state_dict().values())


@pytest.mark.parametrize("change", [convert_batch_norm, freeze_batch_norm])
def test_changed_normalisation_layers_leave_the_saved_model_as_it_was(make_config, tmp_path, change):
    model = S4MIMForSemanticSegmentation(make_config()).eval()
    images = torch.randn(1, 3, 33, 41)
    expected = model(images).logits
    change(model).save_pretrained(tmp_path)
    loaded = S4MIMForSemanticSegmentation.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(images).logits, expected)
