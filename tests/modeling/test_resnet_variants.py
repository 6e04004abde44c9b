"""A ResNet's deep stem and multi-grid: what they compute, what they leave as it is, what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import BACKBONES
from torch import nn
from transformers import AutoBackbone, ResNetConfig

from s4mim_hf.modeling import S4MIMConfig, S4MIMForSemanticSegmentation
from s4mim_hf.modeling.backbones import Backbone

RESNET = {**BACKBONES["resnet-bottleneck"], "depths": [1, 1, 1, 3]}


def build(name: str = "resnet-bottleneck", stride: int | None = None, **variant: object) -> Backbone:
    backbone = RESNET if name == "resnet-bottleneck" else BACKBONES[name]
    return Backbone(S4MIMConfig(backbone_config=dict(backbone)).backbone_config, stride, **variant)  # type: ignore[arg-type]


def test_the_deep_stem_is_three_convolutions_and_a_pooling():
    stem = build(deep_stem=True).encoder.embedder.train()
    first, second, third = (module.weight for module in stem.modules() if isinstance(module, nn.Conv2d))
    assert [tuple(weight.shape) for weight in (first, second, third)] == [(4, 3, 3, 3), (4, 4, 3, 3), (8, 4, 3, 3)]
    images = torch.randn(2, 3, 37, 50)
    features = images
    for weight, stride in ((first, 2), (second, 1), (third, 1)):
        features = F.relu(F.batch_norm(F.conv2d(features, weight, None, stride, 1), None, None, training=True))
    torch.testing.assert_close(stem(images), F.max_pool2d(features, 3, 2, 1))
    assert stem(images).shape == (2, 8, 10, 13)


@pytest.mark.parametrize(("stride", "expected"), [(32, [2, 3, 5]), (16, [2, 6, 10]), (8, [4, 12, 20])])
def test_multi_grid_multiplies_what_the_stride_gives(stride, expected):
    stages = build(stride=stride, multi_grid=[2, 3, 5]).encoder.encoder.stages
    found = [layer.layer[1].convolution for layer in stages[-1].layers]
    assert [convolution.dilation for convolution in found] == [(step, step) for step in expected]
    assert [convolution.padding for convolution in found] == [(step, step) for step in expected]
    plain = build(stride=stride).encoder.encoder.stages
    for one, other in zip(stages[:-1].modules(), plain[:-1].modules(), strict=True):
        assert getattr(one, "dilation", None) == getattr(other, "dilation", None)
    assert build(stride=stride, multi_grid=[2, 3, 5]).eval()(torch.randn(1, 3, 65, 50)).last.shape[-2:] == (
        -(-65 // stride),
        -(-50 // stride),
    )


def test_a_variant_changes_no_other_weight_for_the_same_seed():
    def state(**fields: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        small = {"decoder_channels": 8, "low_level_channels": 4, "num_labels": 3}
        return S4MIMForSemanticSegmentation(S4MIMConfig(backbone_config=dict(RESNET), **small, **fields)).state_dict()

    plain = state()
    for fields in ({"multi_grid": [2, 2, 4]}, {"align_corners": True}, {"low_level_first": True}):
        varied = state(**fields)
        assert list(varied) == list(plain)
        assert all(torch.equal(varied[key], plain[key]) for key in plain)
    deep = state(deep_stem=True)
    assert {key for key in plain if key not in deep} == {key for key in plain if "embedder.embedder" in key}
    assert {key for key in deep if key not in plain} == {key for key in deep if "embedder.convolutions" in key}


@pytest.mark.parametrize(
    ("name", "variant", "words"),
    [
        ("convnext", {"deep_stem": True}, r"deep_stem is a choice of ResNets.*'convnext'"),
        ("convnext", {"multi_grid": [1, 1]}, r"multi_grid is a choice of ResNets"),
        ("resnet-bottleneck", {"multi_grid": [2, 4]}, r"multi_grid has 2 factors.*3 layers"),
    ],
)
def test_what_does_not_fit_is_refused(name, variant, words):
    with pytest.raises(ValueError, match=words):
        build(name, **variant)


def test_an_odd_stem_is_refused():
    config = ResNetConfig(**{**RESNET, "embedding_size": 7}, out_features=["stage1", "stage4"])
    with pytest.raises(ValueError, match=r"even embedding_size.*7"):
        Backbone(config, None, deep_stem=True)


def test_pretrained_weights_of_another_stem_are_refused(tmp_path):
    AutoBackbone.from_config(ResNetConfig(**RESNET)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"one 7x7 convolution.*deep_stem to false"):
        S4MIMForSemanticSegmentation.from_pretrained_backbone(tmp_path, deep_stem=True)
