"""Xception-65: sizes, dilation, gradients, its configuration. Its numbers: tests/hub/test_conversion.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from s4mim_hf.modeling import S4MIMConfig, S4MIMForSemanticSegmentation
from s4mim_hf.modeling.backbones import Backbone

XCEPTION = {
    "model_type": "xception",
    "stem_channels": [4, 6],
    "entry_channels": [6, 8, 12],
    "middle_blocks": 2,
    "exit_channels": [14, 14, 16, 18],
}


def build(stride: int | None = None, **fields: object) -> Backbone:
    torch.manual_seed(3)
    return Backbone(S4MIMConfig(backbone_config={**XCEPTION, **fields}).backbone_config, stride)


@pytest.mark.parametrize("size", [(97, 129), (33, 31), (5, 3), (1, 1)])
@pytest.mark.parametrize("stride", [None, 8])
def test_a_feature_of_stride_r_has_ceil_size(size, stride):
    with torch.no_grad():
        low_level, last = build(stride).eval()(torch.randn(2, 3, *size))
    assert low_level.shape == (2, 8, *(math.ceil(side / 4) for side in size))
    assert last.shape == (2, 18, *(math.ceil(side / (stride or 16)) for side in size))


def test_dilated_features_at_every_second_position_are_the_native_ones():
    images = torch.randn(1, 3, 97, 129)
    with torch.no_grad():
        native, dilated = build().eval()(images), build(8).eval()(images)
    scale = native.last.abs().max().item()
    torch.testing.assert_close(dilated.last[..., ::2, ::2], native.last, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(dilated.low_level, native.low_level)


def test_every_parameter_learns():
    backbone = build().train()
    low_level, last = backbone(torch.randn(2, 3, 64, 64))
    (low_level.square().sum() + last.square().sum()).backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_the_published_size():
    """65 = 2 convolutions and 63 separable ones, 3 in each of 20 blocks and 3 behind them."""
    with torch.device("meta"):
        backbone = Backbone(S4MIMConfig(backbone_config={"model_type": "xception"}).backbone_config, 16)
    assert sum(isinstance(module, nn.Conv2d) and module.groups > 1 for module in backbone.modules()) == 63
    assert len(backbone.encoder.blocks) == 20
    assert (backbone.low_level_channels, backbone.channels) == (256, 2048)


def test_the_momentum_is_the_configurations():
    assert {m.momentum for m in build().modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert {m.momentum for m in build(batch_norm_momentum=0.02).modules() if isinstance(m, nn.BatchNorm2d)} == {0.02}


def test_a_saved_model_is_the_same(tmp_path):
    config = S4MIMConfig(
        backbone_config=dict(XCEPTION), decoder_channels=8, low_level_channels=4, num_labels=3, mask_token="none"
    )
    model = S4MIMForSemanticSegmentation(config).eval()
    model.save_pretrained(tmp_path)
    loaded, report = S4MIMForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert loaded.config.backbone_config.to_dict() == model.config.backbone_config.to_dict()
    images = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(images).logits, model(images).logits)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"widths": [1]}, ["'widths'", "stem_channels", "exit_channels"]),
        ({"stem_channels": [4]}, ["stem_channels [4]", "2 positive integers"]),
        ({"entry_channels": [4, 0, 4]}, ["entry_channels [4, 0, 4]", "3 positive"]),
        ({"exit_channels": [4, 4]}, ["exit_channels", "4 positive"]),
        ({"middle_blocks": -1}, ["middle_blocks -1", "at least 0"]),
        ({"batch_norm_momentum": 0.0}, ["batch_norm_momentum", "above 0"]),
    ],
)
def test_refusals_name_the_setting(fields, words):
    with pytest.raises(ValueError, match="'xception'") as caught:
        S4MIMConfig(backbone_config={**XCEPTION, **fields})
    for word in words:
        assert word in str(caught.value)


def test_stride_32_is_refused():
    with pytest.raises(ValueError, match=r"output_stride is 32.*8 and 16"):
        build(32)
