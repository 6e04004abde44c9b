"""DPT: against plain functions, its strides, and masked image modelling and feature noise on it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import BACKBONES
from torch import nn

from s4mim_hf.modeling import (
    FeatureNoise,
    S4MIMConfig,
    S4MIMForSemanticSegmentation,
    S4MIMForSemiSupervisedSegmentation,
    ViewGroup,
    convert_batch_norm,
)
from s4mim_hf.modeling.dpt_head import DPTHead


def head(**changes: object) -> DPTHead:
    arguments: dict = {"patch_size": 14, "projected_channels": (4, 6, 8, 10), "channels": 6, "dropout": 0.0}
    arguments |= {"align_corners": True, "num_labels": 3}
    return DPTHead([16] * 4, **{**arguments, **changes})


def transformer(**fields: object) -> S4MIMConfig:
    small: dict = {"decoder_channels": 16, "num_labels": 5, "mim_channels": 8, "mim_depth": 2, "decoder_dropout": 0.0}
    return S4MIMConfig(backbone_config=dict(BACKBONES["dinov2"]), decode_head="dpt", **{**small, **fields})


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("grid", [(4, 5), (3, 1)])
def test_features_and_logits_are_dpts(grid, align_corners):
    """The four maps meet from the coarsest to the finest, in plain functions of the head's weights."""
    model = head(align_corners=align_corners).eval()
    weights, maps = model.state_dict(), [torch.randn(2, 16, *grid) for _ in range(4)]

    def convolve(name: str, values: torch.Tensor, **how: int) -> torch.Tensor:
        return F.conv2d(values, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **how)

    def unit(name: str, values: torch.Tensor) -> torch.Tensor:
        inner = convolve(f"{name}.first", values.relu(), padding=1)
        return values + convolve(f"{name}.second", inner.relu(), padding=1)

    def enlarge(values: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        return F.interpolate(values, size, mode="bilinear", align_corners=align_corners)

    parts = [convolve(f"projections.{index}", one) for index, one in enumerate(maps)]
    for index, stride in ((0, 4), (1, 2)):
        both = weights[f"resizings.{index}.weight"], weights[f"resizings.{index}.bias"]
        parts[index] = F.conv_transpose2d(parts[index], *both, stride=stride)
    parts[3] = convolve("resizings.3", parts[3], stride=2, padding=1)
    parts = [convolve(f"reductions.{index}", one, padding=1) for index, one in enumerate(parts)]
    path = enlarge(unit("fusions.3.refine", parts[3]), grid)
    path = convolve("fusions.3.project", path) + unit("fusions.2.skip", parts[2])
    path = enlarge(unit("fusions.2.refine", path), tuple(2 * side for side in grid))
    path = convolve("fusions.2.project", path) + unit("fusions.1.skip", parts[1])
    path = enlarge(unit("fusions.1.refine", path), tuple(4 * side for side in grid))
    path = convolve("fusions.1.project", path) + unit("fusions.0.skip", parts[0])
    path = enlarge(unit("fusions.0.refine", path), tuple(8 * side for side in grid))
    expected = convolve("smooth", convolve("fusions.0.project", path), padding=1).relu()

    features = model.features(*maps)
    torch.testing.assert_close(features, expected)
    height, width = (14 * side for side in grid)
    logits = enlarge(convolve("classifier", expected), (height, width))
    torch.testing.assert_close(model.to_pixels(model(features), height - 3, width - 9), logits[..., :-3, :-9])


def test_positions_of_z_are_halves_of_a_patch():
    """Their mean is that of the finer features, whose position i lies in half patch i // 4."""
    model, fine = head(patch_size=16), torch.randn(1, 6, 24, 16)
    assert model.feature_stride == 8
    found = model.to_positions(fine, 3 * 16 - 9, 2 * 16)
    assert found.shape == (1, 6, 5, 4)
    for row in range(5):
        for column in range(4):
            cell = fine[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            torch.testing.assert_close(found[..., row, column], cell.mean((2, 3)))
    with pytest.raises(ValueError, match="patches of 15 pixels; the decode head 'dpt' needs an even number"):
        head(patch_size=15)


def test_channels_follow_the_encoder_where_none_are_given():
    assert [layer.out_channels for layer in head(projected_channels=None).projections] == [2, 4, 8, 16]


def test_initial_weights_are_torchs_and_the_classifiers_ours():
    torch.manual_seed(3)
    model = S4MIMForSemanticSegmentation(transformer(decoder_channels=64))
    for layer, fan_in in ((model.decode_head.smooth, 64 * 9), (model.decode_head.reductions[3], 32 * 9)):
        # Uniform up to the root of 1 / fan_in.
        assert layer.weight.abs().max().item() == pytest.approx(fan_in**-0.5, rel=0.01)
    assert (model.decode_head.smooth.bias != 0).all()
    assert model.decode_head.classifier.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_saved_model_gives_the_same_logits(transformer_name, tmp_path):
    """Also what is not saved, such as rotary frequencies and position ids, is there again."""
    config = S4MIMConfig(backbone_config=dict(BACKBONES[transformer_name]), decode_head="dpt", decoder_channels=8)
    model = S4MIMForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = S4MIMForSemanticSegmentation.from_pretrained(tmp_path).eval()
    own = getattr(config.backbone_config, "image_size", 64)
    for size in ((own, own), (50, 70)):
        images = torch.randn(1, 3, *size)
        assert torch.equal(model(images).logits, loaded(images).logits)


@pytest.mark.parametrize("decoder", ["conv", "attention"])
@pytest.mark.parametrize(("features", "stride"), [("decoder", 7), ("encoder", 14)])
def test_masked_images_are_reconstructed_at_whole_pixels(features, stride, decoder):
    config = transformer(
        mim_features=features, mim_projection_channels=6, mim_decoder_type=decoder, mim_attention_stride=14,
        masked_features="token",
    )  # fmt: skip
    model = S4MIMForSemiSupervisedSegmentation(config)
    with torch.no_grad():
        for parameter in model.segmenter.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    size = (70, 58)
    rows, columns = (-(-side // stride) for side in size)
    output = model(
        torch.randn(3, 3, *size),
        patch_mask=torch.rand(2, 1, *size) < 0.5,
        feature_mask=torch.rand(2, 1, rows, columns) < 0.5,
        class_map=torch.randint(0, 5, (2, rows, columns)),
    )
    assert (model.feature_stride, model.feature_channels) == (stride, 6)
    assert output.logits.shape == (3, 5, *size)
    assert output.features.shape == (2, 6, rows, columns)
    assert output.reconstruction.shape == (2, 3, *size)
    (output.logits.square().mean() + output.reconstruction.square().mean()).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_noise_drops_channels_of_all_four_layers():
    """Perturbed logits are the head's on perturbed maps; clean rows notice nothing."""
    model = S4MIMForSemiSupervisedSegmentation(transformer(mask_token="none", mim_decoder=False)).eval()
    convert_batch_norm(model)
    factors = tuple(2.0 * (torch.rand(2, 32) < 0.5) for _ in range(4))
    images, groups = torch.randn(3, 3, 42, 56), [ViewGroup(1, True), ViewGroup(2, False)]
    with torch.no_grad():
        output = model(images, view_groups=groups, feature_noise=FeatureNoise(1, factors, False))
        maps = model.segmenter.backbone(images[1:])
        decode_head = model.segmenter.decode_head
        perturbed = [one * factor[:, :, None, None] for one, factor in zip(maps, factors, strict=True)]
        expected = decode_head.to_pixels(decode_head(decode_head.features(*perturbed)), 42, 56)
    torch.testing.assert_close(output.perturbed_logits, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output.logits, model(images).logits, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(output.perturbed_logits, output.logits[1:], atol=1e-4)


def test_one_image_is_enough_to_train_on():
    model = S4MIMForSemanticSegmentation(transformer()).train()
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    loss = model(torch.randn(1, 3, 42, 42), labels=torch.randint(0, 5, (1, 42, 42))).loss
    assert loss.isfinite()
