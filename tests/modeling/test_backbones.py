"""Encoders: sizes and positions of features, dilation, what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from architectures import BACKBONES
from torch import nn
from transformers import CONFIG_MAPPING, AutoBackbone, MobileNetV2Model, ViTConfig

from s4mim_hf.modeling import S4MIMConfig
from s4mim_hf.modeling.backbone_weights import load_backbone_config, load_backbone_weights
from s4mim_hf.modeling.backbones import Backbone


def build(name: str, output_stride: int | None) -> Backbone:
    """Build a tiny encoder, the same weights for the same name, large enough for features to be seen."""
    config = S4MIMConfig(backbone_config=dict(BACKBONES[name])).backbone_config
    torch.manual_seed(3)
    backbone = Backbone(config, output_stride)
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in")
            elif isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.bias.uniform_(-0.1, 0.1)
    return backbone.eval()


@pytest.mark.parametrize("size", [(97, 129), (64, 96), (33, 31), (5, 3), (1, 1)])
def test_a_feature_of_stride_r_has_ceil_size(pyramid_name, size):
    with torch.no_grad():
        low_level, last = build(pyramid_name, None)(torch.randn(2, 3, *size))
    assert low_level.shape[-2:] == tuple(math.ceil(side / 4) for side in size)
    assert last.shape[-2:] == tuple(math.ceil(side / 32) for side in size)


@pytest.mark.parametrize(("stride", "step"), [(16, 2), (8, 4)])
def test_dilated_features_at_every_second_position_are_the_native_ones(dilated_name, stride, step):
    # 32 n + 1: only there the native network sees as many zeros behind the image as the dilated one.
    pixel_values = torch.randn(1, 3, 97, 129)
    with torch.no_grad():
        native = build(dilated_name, None)(pixel_values)
        dilated = build(dilated_name, stride)(pixel_values)
    assert dilated.last.shape[-2:] == tuple(math.ceil(side / stride) for side in (97, 129))
    assert native.last.abs().max() > 1e-3
    scale = native.last.abs().max().item()
    torch.testing.assert_close(dilated.last[..., ::step, ::step], native.last, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(dilated.low_level, native.low_level)


def test_dilation_changes_no_weight_and_no_key(dilated_name):
    native, dilated = build(dilated_name, None).state_dict(), build(dilated_name, 8).state_dict()
    assert list(native) == list(dilated)
    assert all(torch.equal(native[key], dilated[key]) for key in native)


def test_position_i_sees_the_pixels_from_i_times_r_on(pyramid_name):
    """The gradient of one position peaks near its own pixels, for odd sizes as well."""
    backbone = build(pyramid_name, None)
    pixel_values = torch.randn(1, 3, 97, 129, requires_grad=True)
    row, column = 12, 20
    # Weighted: after a LayerNorm the plain sum over channels is constant.
    feature = backbone(pixel_values).low_level[0, :, row, column]
    (feature * torch.randn_like(feature)).sum().backward()
    weight = pixel_values.grad.abs().sum(dim=(0, 1))
    rows = (weight.sum(1) * torch.arange(97)).sum() / weight.sum()
    columns = (weight.sum(0) * torch.arange(129)).sum() / weight.sum()
    # Swin's windows and its shifts look to one side by up to half a window (16 pixels).
    slack = {"swin": 16, "segformer": 24}.get(pyramid_name, 4)
    assert abs(rows - (row * 4 + 1.5)) < slack
    assert abs(columns - (column * 4 + 1.5)) < slack


@pytest.mark.parametrize("name", ["resnet-bottleneck", "mobilenet_v2", "convnext"])
def test_the_size_of_an_image_moves_no_feature(name):
    """Features whose field of view is inside the image are those of an image that ends some pixels later."""
    backbone = build(name, 16)
    pixel_values = torch.randn(1, 3, 16, 1201)
    with torch.no_grad():
        expected = backbone(pixel_values)
        for width in range(1185, 1201):
            found = backbone(pixel_values[..., :width])
            # Columns that see no end of the image: MobileNetV2, dilated, sees about 370 pixels to either side.
            torch.testing.assert_close(found.last[..., :45], expected.last[..., :45], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.low_level[..., :180], expected.low_level[..., :180], rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient(pyramid_name):
    backbone = build(pyramid_name, None).train()
    low_level, last = backbone(torch.randn(2, 3, 64, 64))
    (low_level.square().sum() + last.square().sum()).backward()
    # Swin's relative position tables and MobileNetV2's tail have one each as well: nothing is left unused.
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_mobilenet_batch_norm_has_a_sane_momentum_and_no_classifier_layers():
    backbone = build("mobilenet_v2", 16)
    assert {m.momentum for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert not [key for key in backbone.state_dict() if "conv_1x1" in key]


def test_mobilenet_features_are_transformers_hidden_states():
    backbone = build("mobilenet_v2", None)
    reference = MobileNetV2Model(CONFIG_MAPPING["mobilenet_v2"](depth_multiplier=0.35)).eval()
    reference.load_state_dict(backbone.encoder.state_dict(), strict=False)
    # 32 n + 1: there TensorFlow's padding, transformers' default, is alike on both sides.
    pixel_values = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        hidden = reference(pixel_values, output_hidden_states=True).hidden_states
        low_level, last = backbone(pixel_values)
    torch.testing.assert_close(low_level, hidden[1])
    torch.testing.assert_close(last, hidden[15])


@pytest.mark.parametrize("stride", [8, 16])
def test_swin_is_refused_another_stride(stride):
    with pytest.raises(ValueError, match=rf"output_stride is {stride}.*'swin'.*stride 32 only"):
        build("swin", stride)


def test_an_encoder_that_is_no_pyramid_is_refused():
    config = S4MIMConfig(backbone_config=ViTConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=1))
    with pytest.raises(ValueError, match="'vit'"):
        Backbone(config.backbone_config, None)(torch.randn(1, 3, 224, 224))


@pytest.mark.parametrize("name", ["resnet-basic", "convnext", "swin"])
def test_pretrained_weights_arrive_from_a_backbone_folder(name, tmp_path):
    source = AutoBackbone.from_config(CONFIG_MAPPING[BACKBONES[name]["model_type"]].from_dict(BACKBONES[name]))
    source.save_pretrained(tmp_path)
    config = S4MIMConfig(backbone_config=load_backbone_config(str(tmp_path)))
    assert str(tmp_path) not in json.dumps(config.to_dict())
    backbone = Backbone(config.backbone_config, None)
    load_backbone_weights(backbone, str(tmp_path))
    found, expected = backbone.encoder.state_dict(), source.state_dict()
    # The source outputs its last stage only, so has no norm for the first one's output.
    shared = [key for key in found if key in expected]
    assert len(shared) >= len(found) - 2
    assert all(torch.equal(found[key], expected[key]) for key in shared)


def test_a_checkpoint_that_lacks_a_weight_is_refused(tmp_path):
    source = AutoBackbone.from_config(CONFIG_MAPPING["resnet"].from_dict(BACKBONES["resnet-basic"]))
    state = {key: value for key, value in source.state_dict().items() if "stages.2" not in key}
    source.save_pretrained(tmp_path, state_dict=state)
    backbone = Backbone(S4MIMConfig(backbone_config=load_backbone_config(str(tmp_path))).backbone_config, None)
    with pytest.raises(ValueError, match=r"lacks \d+ weights.*stages\.2"):
        load_backbone_weights(backbone, str(tmp_path))


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        load_backbone_config(str(tmp_path / "nowhere"))
