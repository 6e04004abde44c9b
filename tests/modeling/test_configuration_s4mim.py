"""S4MIMConfig: what it accepts, what it refuses, and that it survives saving."""

from __future__ import annotations

import json

import pytest
from transformers import ConvNextConfig, ResNetConfig

from s4mim_hf.modeling import S4MIMConfig


def test_default_backbone_is_a_resnet_with_stride_4_and_last_features():
    config = S4MIMConfig()
    assert isinstance(config.backbone_config, ResNetConfig)
    assert config.backbone_config.out_features == ["stage1", "stage4"]


def test_backbone_given_as_configuration_or_dictionary_is_the_same():
    backbone = ConvNextConfig(depths=[1, 1, 1, 1])
    assert S4MIMConfig(backbone_config=backbone).to_dict() == S4MIMConfig(backbone_config=backbone.to_dict()).to_dict()


def test_round_trip_through_json_keeps_every_field(tmp_path):
    given = {"output_stride": 8, "aspp_rates": [2, 4], "mask_token": "zero", "mim_projection_channels": 7}
    config = S4MIMConfig(id2label={0: "sky", 1: "road"}, palette=[[1, 2, 3], [4, 5, 6]], **given)
    config.auto_map = {"AutoConfig": "configuration_s4mim.S4MIMConfig"}
    config.save_pretrained(tmp_path)
    loaded = S4MIMConfig.from_pretrained(tmp_path)
    assert loaded.id2label == {0: "sky", 1: "road"}
    assert loaded.label2id == {"sky": 0, "road": 1}
    assert {key: getattr(loaded, key) for key in given} == given
    assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())


def test_standard_keys_are_accepted():
    config = S4MIMConfig(num_labels=7, name_or_path="x", dtype="float32", architectures=["A"], output_attentions=False)
    assert config.num_labels == 7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"decoder_chanels": 4}, ["'decoder_chanels'", "did you mean 'decoder_channels'"]),
        ({"mask_tokens": "zero"}, ["did you mean 'mask_token'"]),
        ({"qqqqqq": 1}, ["'qqqqqq'", "the fields are", "aspp_rates"]),
        ({"output_stride": 12}, ["output_stride", "12", "8, 16, 32"]),
        ({"decoder_channels": 0}, ["decoder_channels", "0", "at least 1"]),
        ({"aspp_rates": [6, 0]}, ["aspp_rates", "0", "at least 1"]),
        ({"aspp_rates": []}, ["aspp_rates", "empty"]),
        ({"multi_grid": []}, ["multi_grid", "empty"]),
        ({"multi_grid": [2, 0, 4]}, ["multi_grid", "0", "at least 1"]),
        ({"deep_stem": 1}, ["deep_stem", "1", "True, False"]),
        ({"align_corners": "yes"}, ["align_corners", "'yes'"]),
        ({"low_level_first": None}, ["low_level_first", "None"]),
        ({"decoder_dropout": 1.0}, ["decoder_dropout", "1.0", "below 1"]),
        ({"initializer_range": 0.0}, ["initializer_range", "above 0"]),
        ({"mask_token": "random"}, ["mask_token", "'random'", "'learned', 'zero', 'none'"]),
        ({"mim_kernel_size": 4}, ["mim_kernel_size", "4", "odd"]),
        ({"mim_projection_channels": 0}, ["mim_projection_channels", "at least 1"]),
        ({"mim_decoder": "yes"}, ["mim_decoder", "'yes'"]),
        ({"mim_decoder_type": "convolution"}, ["mim_decoder_type", "'convolution'", "'conv', 'attention'"]),
        ({"mim_attention": "flash"}, ["mim_attention", "'flash'", "'auto', 'sdpa', 'flex'"]),
        ({"mim_attention_stride": 0}, ["mim_attention_stride", "0", "at least 1"]),
        ({"mim_decoder_type": "attention", "mim_num_heads": 5}, ["mim_num_heads is 5", "divide mim_channels 64"]),
        (
            {"mim_decoder_type": "attention", "mim_num_heads": 8, "mim_attention": "flex"},
            ["mim_attention is 'flex'", "at least 16", "64 mim_channels in 8 mim_num_heads"],
        ),
        ({"num_labels": 5, "semantic_loss_ignore_index": 4}, ["semantic_loss_ignore_index", "4", "outside 0..4"]),
        ({"id2label": {0: "a", 2: "b"}}, ["id2label", "without a gap"]),
        ({"num_labels": 3, "palette": [[0, 0, 0]]}, ["palette", "1 colours", "3"]),
        ({"backbone_config": {"model_type": "resnt"}}, ["'resnt'", "did you mean 'resnet'"]),
        ({"backbone_config": {"model_type": "xceptoin"}}, ["'xceptoin'", "did you mean 'xception'"]),
        ({"backbone_config": {}}, ["model_type", "None"]),
    ],
)
def test_refusals_name_field_value_and_bound(fields, words):
    with pytest.raises(ValueError, match="S4MIMConfig") as caught:
        S4MIMConfig(**fields)
    for word in words:
        assert word in str(caught.value)


def test_heads_need_not_fit_where_none_attend():
    assert S4MIMConfig(mim_channels=6).mim_decoder_type == "conv"


def test_values_assigned_later_are_found_by_the_check():
    config = S4MIMConfig()
    config.mim_depth = 0
    with pytest.raises(ValueError, match=r"mim_depth is 0.*at least 1"):
        config.validate_values()
