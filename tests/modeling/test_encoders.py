"""Vision transformers and encoders without AutoBackbone: which features they give, what they load, what is left out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import BACKBONES, head_of
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    Dinov2ForImageClassification,
    SegformerForImageClassification,
    SegformerModel,
)

from s4mim_hf.modeling import S4MIMConfig
from s4mim_hf.modeling.backbone_weights import load_backbone_config, load_backbone_weights
from s4mim_hf.modeling.backbones import Backbone

# Layers 1, 2, 3 and 5 of five.
LAYERS = [1, 2, 3, 5]
SMALL_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}


def config_of(name: str):
    return CONFIG_MAPPING[BACKBONES[name]["model_type"]].from_dict(dict(BACKBONES[name]))


def build(name: str, **changes: object) -> Backbone:
    fields = {"backbone_config": {**BACKBONES[name], **changes}, "decode_head": head_of(name)}
    return Backbone(S4MIMConfig(**fields).backbone_config, None, LAYERS if head_of(name) == "dpt" else None)


def shake(module: nn.Module) -> nn.Module:
    """Move every weight from where it starts, so that scales of 1 and biases of 0 are seen."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def reference_of(name: str) -> nn.Module:
    """Return the full model that transformers has for an encoder."""
    kind = {"clip": CLIPVisionModel, "segformer": SegformerModel}.get(name)
    return shake(AutoModel.from_config(config_of(name)) if kind is None else kind(config_of(name)))


@pytest.mark.parametrize("size", [(64, 64), (97, 129), (5, 3)])
def test_transformers_give_normalised_patch_tokens_of_their_layers(transformer_name, size, tmp_path):
    """Against the hidden states of the whole model, on an image padded by hand; its weights come from its folder."""
    reference, backbone = reference_of(transformer_name), build(transformer_name)
    reference.save_pretrained(tmp_path)
    load_backbone_weights(backbone.eval(), str(tmp_path))
    patch, images = backbone.output_stride, torch.randn(2, 3, *size)
    padded = F.pad(images, (0, -size[1] % patch, 0, -size[0] % patch))
    resizing = {"interpolate_pos_encoding": True} if transformer_name == "clip" else {}
    with torch.no_grad():
        states = reference(padded, output_hidden_states=True, **resizing).hidden_states
        maps = backbone(images)
    grid = tuple(side // patch for side in padded.shape[-2:])
    norm = getattr(reference, "layernorm", None) or getattr(reference, "norm", None) or nn.Identity()
    assert backbone.map_channels == (32,) * 4
    for layer, found in zip(LAYERS, maps, strict=True):
        tokens = norm(states[layer])[:, -grid[0] * grid[1] :]
        torch.testing.assert_close(found, tokens.transpose(1, 2).unflatten(2, grid), rtol=1e-4, atol=1e-5)


def test_segformers_pyramid_is_its_first_and_last_stage(tmp_path):
    reference, backbone = reference_of("segformer"), build("segformer")
    reference.save_pretrained(tmp_path)
    load_backbone_weights(backbone.eval(), str(tmp_path))
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        states = reference(images, output_hidden_states=True).hidden_states
        low_level, last = backbone(images)
    torch.testing.assert_close(low_level, states[0])
    torch.testing.assert_close(last, states[-1])


def test_a_patch_is_seen_first_of_all_by_its_own_position(transformer_name):
    backbone = build(transformer_name)
    patch, images = backbone.output_stride, torch.randn(1, 3, 97, 129, requires_grad=True)
    for found in backbone(images):
        feature = found[0, :, 2, 5]
        (gradient,) = torch.autograd.grad((feature * torch.randn_like(feature)).sum(), images, retain_graph=True)
        seen = F.avg_pool2d(gradient.abs().sum(1), patch, ceil_mode=True, count_include_pad=False)[0]
        assert divmod(int(seen.argmax()), seen.shape[1]) == (2, 5)


def test_every_parameter_of_a_transformer_gets_a_gradient(transformer_name):
    backbone = build(transformer_name).train()
    sum(one.square().sum() for one in backbone(torch.randn(2, 3, 64, 64))).backward()
    # No mask token of the pretraining, and no norm that only classifiers read.
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_features_that_are_not_normalised_leave_the_norm_out():
    backbone = build("dinov2", apply_layernorm=False)
    assert not [key for key in backbone.state_dict() if "encoder.layernorm" in key]
    raw, normalised = build("dinov2", apply_layernorm=False), build("dinov2")
    raw.load_state_dict(shake(normalised).state_dict(), strict=False)
    images, norm = torch.randn(1, 3, 56, 56), normalised.encoder.layernorm
    for one, other in zip(raw.eval()(images), normalised(images), strict=True):
        torch.testing.assert_close(norm(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_position_embeddings_are_resized_as_asked(offset):
    """At the pretraining's size both ways are the same; elsewhere 0.1 is the original code's."""
    config = S4MIMConfig(backbone_config=dict(BACKBONES["dinov2"]), decode_head="dpt")
    backbone = shake(Backbone(config.backbone_config, None, LAYERS, offset))
    embeddings, positions = backbone.encoder.embeddings, backbone.encoder.embeddings.position_embeddings
    assert embeddings.interpolate_pos_encoding(torch.empty(1, 17, 32), 56, 56) is positions
    grid = positions[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    how = {"scale_factor": (5.1 / 4, 7.1 / 4)} if offset else {"size": (5, 7)}
    expected = F.interpolate(grid, **how, mode="bicubic").flatten(2).transpose(1, 2)
    found = embeddings.interpolate_pos_encoding(torch.empty(1, 36, 32), 70, 98)
    torch.testing.assert_close(found, torch.cat([positions[:, :1], expected], 1))


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("dinov2", Dinov2ForImageClassification),
        ("segformer", SegformerForImageClassification),
        ("clip", lambda config: CLIPModel(CLIPConfig(vision_config=config.to_dict(), text_config=SMALL_TEXT))),
    ],
)
def test_classifiers_and_clip_itself_give_their_encoder(name, whole, tmp_path):
    source = shake(whole(config_of(name)))
    source.save_pretrained(tmp_path)
    config = S4MIMConfig(backbone_config=load_backbone_config(str(tmp_path)), decode_head=head_of(name))
    backbone = Backbone(config.backbone_config, None)
    load_backbone_weights(backbone, str(tmp_path))
    assert backbone.model_type == BACKBONES[name]["model_type"]
    theirs = {
        key.rpartition(name if name != "clip" else "vision_model")[2]: one for key, one in source.state_dict().items()
    }
    inner = "encoder." if name == "dinov2" else "encoder.network."
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, theirs["." + key.removeprefix(inner)]), key


def test_a_checkpoint_that_lacks_a_layer_is_refused(transformer_name, tmp_path):
    source = reference_of(transformer_name)
    kept = {key: value for key, value in source.state_dict().items() if ".2." not in key}
    source.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(ValueError, match=r"lacks \d+ weights"):
        load_backbone_weights(build(transformer_name), str(tmp_path))


def test_a_frozen_encoder_keeps_no_graph_and_drops_nothing():
    backbone = build("dinov2", drop_path_rate=0.9, hidden_dropout_prob=0.5)
    # Not even where the images would want a gradient.
    images = torch.randn(2, 3, 56, 56, requires_grad=True)
    backbone.freeze()
    maps = backbone.train()(images)
    assert not backbone.training
    assert not any(module.training for module in backbone.modules())
    assert not any(one.requires_grad for one in maps)
    assert all(torch.equal(one, other) for one, other in zip(maps, backbone(images), strict=True))
    assert not [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    # One that learns does drop.
    learning = build("dinov2", drop_path_rate=0.9, hidden_dropout_prob=0.5).train()
    assert not torch.equal(learning(images)[0], learning(images)[0])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"decode_head": "deeplabv3plus"}, "'deeplabv3plus', but the backbone 'dinov2' is a plain vision transformer"),
        (
            {"backbone_config": None},
            "'dpt', but the backbone 'resnet' is a pyramid; set decode_head to 'deeplabv3plus'",
        ),
        ({"decode_head": "fpn"}, "decode_head is 'fpn'; it must be one of 'deeplabv3plus', 'dpt'"),
        ({"dpt_layers": [1, 2, 3]}, r"dpt_layers is \[1, 2, 3\]; give 4 numbers"),
        ({"dpt_layers": [1, 3, 2, 5]}, "dpt_layers is .* must rise, up to the backbone's last layer 5"),
        ({"dpt_layers": [1, 2, 3, 4]}, "would never learn"),
        ({"dpt_channels": [8, 0, 8, 8]}, "dpt_channels is 0; it must be an integer of at least 1"),
        ({"position_embedding_offset": 1.0}, "position_embedding_offset is 1.0; it must be at least 0 and below 1"),
        ({"backbone_config": dict(BACKBONES["clip"]), "position_embedding_offset": 0.1}, "0 for another backbone"),
        (
            {"backbone_config": {**BACKBONES["dinov2"], "num_hidden_layers": 3}},
            "takes 4 layers, and the backbone has 3",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_the_configuration(fields, sentence):
    given = {"backbone_config": dict(BACKBONES["dinov2"]), "decode_head": "dpt"}
    with pytest.raises(ValueError, match=sentence):
        S4MIMConfig(**{**given, **fields})


def test_patches_and_strides_that_do_not_fit_are_one_sentence():
    with pytest.raises(ValueError, match=r"output_stride is 16.*'dinov2'.*stride 14 only; set output_stride to None"):
        Backbone(S4MIMConfig(backbone_config=dict(BACKBONES["dinov2"]), decode_head="dpt").backbone_config, 16)
    config = CONFIG_MAPPING["dinov2"].from_dict({**BACKBONES["dinov2"], "patch_size": [14, 7]})
    with pytest.raises(ValueError, match=r"patches of \(14, 7\) pixels; choose square ones"):
        Backbone(config, None)
