"""The ways in which a loaded model is run: compiled, at half precision, spread over devices."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

from s4mim_hf.modeling import S4MIMForSemanticSegmentation, S4MIMForSemiSupervisedSegmentation


def predicted(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).logits


def test_evaluation_is_one_graph_with_the_same_result(make_config):
    # All encoders were compiled once by hand; tracing them takes too long for every run of the tests.
    model = S4MIMForSemanticSegmentation(make_config()).eval()
    images = torch.randn(2, 3, 33, 50)
    torch.compiler.reset()
    # A break in the graph is an error with fullgraph; the backend runs the graph as it is.
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(predicted(compiled, images), predicted(model, images))


@pytest.mark.parametrize("name", ["resnet-basic", "mobilenet_v2", "convnext", "swin", "dinov2"])
def test_bfloat16_weights_take_the_processors_float32(make_config, name, tmp_path):
    model = S4MIMForSemanticSegmentation(make_config(name)).eval()
    model.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 33, 50)
    expected = predicted(model, images)
    half = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert {value.dtype for value in half.state_dict().values() if value.is_floating_point()} == {torch.bfloat16}
    for one in (half, model.to(torch.bfloat16)):
        found = predicted(one, images)
        assert found.dtype == torch.bfloat16
        # bfloat16 has 8 bits: a few parts in a hundred after so many layers.
        assert (found.float() - expected).abs().max() < 0.25 * expected.std()
        assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.95


def test_under_autocast_float32_weights_stay_float32(make_config):
    model = S4MIMForSemiSupervisedSegmentation(make_config()).eval()
    images = torch.randn(2, 3, 33, 50)
    with torch.autocast("cpu", torch.bfloat16):
        first, second = predicted(model, images), predicted(model, images.bfloat16())
    assert first.dtype == second.dtype == torch.bfloat16
    assert (first - predicted(model, images)).abs().max() < 0.1


@pytest.mark.parametrize(
    "device_map", ["auto", {"backbone": "cpu", "decode_head": "disk"}, {"backbone": "disk", "decode_head": "cpu"}]
)
def test_device_maps_and_weights_on_disk_change_nothing(make_config, tmp_path, device_map):
    model = S4MIMForSemanticSegmentation(make_config("mobilenet_v2")).eval()
    model.save_pretrained(tmp_path / "model")
    spread = AutoModelForSemanticSegmentation.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "disk"
    ).eval()
    on_disk = {name.split(".")[0] for name, weight in spread.named_parameters() if weight.device.type == "meta"}
    assert on_disk == {part for part in ("backbone", "decode_head") if f"'{part}': 'disk'" in str(device_map)}
    images = torch.randn(1, 3, 33, 50)
    torch.testing.assert_close(predicted(spread, images), predicted(model, images), rtol=1e-5, atol=1e-6)


def test_device_maps_split_between_encoder_and_head_only(make_config):
    """Within either, features of one device would meet those of another."""
    for name in ("resnet-basic", "mobilenet_v2", "dinov2"):
        model = S4MIMForSemanticSegmentation(make_config(name))
        assert {type(child).__name__ for child in model.children()} <= set(model._no_split_modules)
