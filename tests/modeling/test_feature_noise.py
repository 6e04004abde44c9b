from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from s4mim_hf.modeling import FeatureNoise, S4MIMConfig, S4MIMForSemiSupervisedSegmentation, ViewGroup
from s4mim_hf.modeling.normalization import convert_batch_norm

BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 24],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
C_LOW, C_LAST = 8, 24
Builder = Callable[..., S4MIMForSemiSupervisedSegmentation]


@pytest.fixture
def build() -> Builder:
    def make(**fields: Any) -> S4MIMForSemiSupervisedSegmentation:
        torch.manual_seed(0)
        small = {"decoder_channels": 12, "low_level_channels": 6, "num_labels": 5, "decoder_dropout": 0.0}
        config = S4MIMConfig(backbone_config=BACKBONE, output_stride=16, mask_token="none", mim_decoder=False)
        config = S4MIMConfig.from_dict(config.to_dict() | small | fields)
        model = S4MIMForSemiSupervisedSegmentation(config)
        convert_batch_norm(model)
        return model

    return make


def images(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def noise(first_row: int, rows: int, updates: bool = False, dropout: float = 0.5, seed: int = 1) -> FeatureNoise:
    draws = torch.Generator().manual_seed(seed)
    factors = ((torch.rand(rows, channels, generator=draws) >= dropout) / (1 - dropout) for channels in (C_LOW, C_LAST))
    return FeatureNoise(first_row, tuple(factors), updates)


def statistics(model: torch.nn.Module, part: str) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name and part in name}


def test_perturbed_rows_stand_behind_the_clean_ones_with_their_factors() -> None:
    low_level, last = torch.randn(4, C_LOW, 8, 12), torch.randn(4, C_LAST, 2, 3)
    drawn = noise(first_row=1, rows=2)
    for clean, found, factors in zip((low_level, last), drawn.perturb((low_level, last)), drawn.factors, strict=True):
        assert torch.equal(found[:4], clean)
        for row in range(2):
            for channel, factor in enumerate(factors[row].tolist()):
                assert torch.equal(found[4 + row, channel], factor * clean[1 + row, channel])
        assert set(factors.unique().tolist()) == {0.0, 2.0}


def test_perturbed_logits_are_the_decoder_s_answer_to_perturbed_features(build: Builder) -> None:
    model, pixel_values, drawn = build().eval(), images(4), noise(1, 2)
    with torch.no_grad():
        output = model(pixel_values, feature_noise=drawn)
        low_level, last = model.segmenter.backbone(pixel_values[1:3])
        head = model.segmenter.decode_head
        low_level, last = low_level * drawn.factors[0][:, :, None, None], last * drawn.factors[1][:, :, None, None]
        coarse = head(head.features(low_level, last))
        expected = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)
    assert output.perturbed_logits.shape == (2, 5, 32, 48)
    torch.testing.assert_close(output.perturbed_logits, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(output.perturbed_logits, output.logits[1:3], atol=1e-3)


def test_dropped_channels_contribute_exactly_nothing(build: Builder) -> None:
    model, drawn = build().eval(), noise(0, 2)

    def disturb(_: torch.nn.Module, __: Any, features: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        # Far-away values wherever a channel is dropped.
        return tuple(
            feature + 100 * (factors == 0)[:, :, None, None]
            for feature, factors in zip(features, drawn.factors, strict=True)
        )

    with torch.no_grad():
        before = model(images(2), feature_noise=drawn)
        model.segmenter.backbone.register_forward_hook(disturb)
        after = model(images(2), feature_noise=drawn)
    assert torch.equal(before.perturbed_logits, after.perturbed_logits)
    assert not torch.allclose(before.logits, after.logits)


@pytest.mark.parametrize("training", [False, True])
def test_clean_rows_do_not_notice(build: Builder, training: bool) -> None:
    groups = [ViewGroup(2, True), ViewGroup(2, True)]
    plain, noisy = build().train(training), build().train(training)
    clean = plain(images(4), view_groups=groups)
    found = noisy(images(4), view_groups=groups, feature_noise=noise(2, 2))
    assert clean.perturbed_logits is None
    torch.testing.assert_close(found.logits, clean.logits, atol=1e-6, rtol=1e-5)
    for name, buffer in statistics(noisy, "").items():
        torch.testing.assert_close(buffer, plain.get_buffer(name), atol=1e-6, rtol=1e-5)


def test_no_dropout_perturbs_nothing(build: Builder) -> None:
    with torch.no_grad():
        output = build().eval()(images(3), feature_noise=noise(1, 2, dropout=0.0))
    torch.testing.assert_close(output.perturbed_logits, output.logits[1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("updates", [False, True])
def test_perturbed_rows_move_only_the_decoder_s_statistics_and_only_when_asked(build: Builder, updates: bool) -> None:
    model = build().train()
    before = {part: statistics(model, part) for part in ("backbone", "decode_head")}
    model(images(4), view_groups=[ViewGroup(4, False)], feature_noise=noise(0, 4, updates))
    moved = {
        part: any(not torch.equal(buffer, model.get_buffer(name)) for name, buffer in buffers.items())
        for part, buffers in before.items()
    }
    assert moved == {"backbone": False, "decode_head": updates}


def test_without_groups_perturbed_rows_share_the_decoder_s_statistics(build: Builder) -> None:
    """As published: one BatchNorm batch of clean and perturbed rows."""
    model = build().train()
    low_level, last = model.segmenter.backbone(images(4))
    drawn = noise(2, 2)
    head = model.segmenter.decode_head
    coarse = head(
        head.features(
            torch.cat([low_level, low_level[2:] * drawn.factors[0][:, :, None, None]]),
            torch.cat([last, last[2:] * drawn.factors[1][:, :, None, None]]),
        )
    )
    expected = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)
    found = model(images(4), feature_noise=drawn)
    torch.testing.assert_close(torch.cat([found.logits, found.perturbed_logits]), expected, atol=1e-5, rtol=1e-4)


def test_the_encoder_runs_once_and_gets_both_gradients(build: Builder) -> None:
    model, pixel_values = build().double().eval(), images(3).double()
    calls: list[int] = []
    hook = model.segmenter.backbone.register_forward_hook(lambda *_: calls.append(1))
    drawn = noise(1, 2)
    output = model(pixel_values, feature_noise=drawn)
    (output.logits.square().mean() + output.perturbed_logits.square().mean()).backward()
    hook.remove()
    assert len(calls) == 1
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}  # type: ignore[union-attr]

    # The same from two passes through everything.
    model.zero_grad()
    head = model.segmenter.decode_head
    low_level, last = model.segmenter.backbone(pixel_values[1:])
    low_level, last = low_level * drawn.factors[0][:, :, None, None], last * drawn.factors[1][:, :, None, None]
    coarse = head(head.features(low_level, last))
    perturbed = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)
    (model(pixel_values).logits.square().mean() + perturbed.square().mean()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-10, rtol=1e-8)


def test_masked_rows_stay_the_last_of_the_clean_ones(build: Builder) -> None:
    model = build(mask_token="zero").eval()
    mask = torch.zeros(1, 1, 32, 48, dtype=torch.bool)
    with torch.no_grad():
        output = model(images(3), patch_mask=mask, feature_noise=noise(1, 1))
        expected = model.segmenter.segment(images(3)).decoder_features[2:]
    torch.testing.assert_close(output.features, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("drawn", "sentence"),
    [
        (noise(2, 2), r"factors\[0\] has the shape \(2, 8\) from row 2 on; the features have 3 rows of 8 channels"),
        (noise(-1, 2), "from row -1 on"),
        (FeatureNoise(0, (torch.ones(2, C_LOW), torch.ones(2, 7)), False), r"factors\[1\] has the shape \(2, 7\)"),
        (FeatureNoise(0, (torch.ones(2, C_LOW, 1, 1), torch.ones(2, C_LAST)), False), r"factors\[0\] has the shape"),
        (FeatureNoise(0, (torch.ones(2, C_LOW),), False), "for 1 maps; the encoder gives 2"),
    ],
)
def test_noise_that_does_not_fit_is_refused(build: Builder, drawn: FeatureNoise, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build().eval()(images(3), feature_noise=drawn)
