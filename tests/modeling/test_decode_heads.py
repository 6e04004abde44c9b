"""DeepLabV3+: shapes, alignment of the upsampling, batch statistics of pooled features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from s4mim_hf.modeling.decode_heads import DeepLabV3PlusHead, upsample


def head(**changed: object) -> DeepLabV3PlusHead:
    arguments: dict = {"output_stride": 16, "channels": 8, "low_level_channels": 4, "rates": None, "dropout": 0.1}
    arguments["separable"] = False
    return DeepLabV3PlusHead(6, 5, num_labels=3, **{**arguments, **changed})


@pytest.mark.parametrize(("stride", "expected"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [6, 12, 18])])
def test_default_rates_double_at_stride_8(stride, expected):
    rates = [branch[0].dilation[0] for branch in head(output_stride=stride).pyramid.branches[1:-1]]
    assert rates == expected


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_upsampling_keeps_positions(scale):
    """A ramp of position centres stays the ramp of pixel centres, away from the border, also when cut to odd sizes."""
    centres = (torch.arange(9) * scale + (scale - 1) / 2)[None, None, None].expand(1, 1, 9, 9)
    pixels = upsample(centres, scale, 9 * scale - 3, 9 * scale - 1)
    assert pixels.shape[-2:] == (9 * scale - 3, 9 * scale - 1)
    inner = pixels[0, 0, 0, scale : 8 * scale]
    torch.testing.assert_close(inner, torch.arange(scale, 8 * scale).float())


def test_aligned_corners_keep_the_corners_at_any_size():
    features = torch.randn(2, 3, 4, 5)
    pixels = upsample(features, 4, 15, 18, align_corners=True)
    assert pixels.shape[-2:] == (15, 18)
    torch.testing.assert_close(pixels[..., ::14, ::17], features[..., ::3, ::4])
    # In between everything is linear in the position.
    column = features[..., 0, 0] + (features[..., 0, 1] - features[..., 0, 0]) * (3 * 4 / 17)
    torch.testing.assert_close(pixels[..., 0, 3], column)


def test_the_order_of_the_joined_features_is_a_permutation_of_weights():
    usual, theirs = head().eval(), head(low_level_first=True).eval()
    state = usual.state_dict()
    state["fuse.0.0.weight"] = torch.cat([state["fuse.0.0.weight"][:, 8:], state["fuse.0.0.weight"][:, :8]], dim=1)
    theirs.load_state_dict(state)
    maps = torch.randn(2, 5, 25, 33), torch.randn(2, 6, 7, 9)
    torch.testing.assert_close(theirs.features(*maps), usual.features(*maps))


def test_features_have_the_low_level_size():
    model = head().eval()
    features = model.features(torch.randn(2, 5, 25, 33), torch.randn(2, 6, 7, 9))
    assert features.shape == (2, 8, 25, 33)
    assert model(features).shape == (2, 3, 25, 33)


def test_separable_convolutions_have_fewer_weights_and_the_same_shapes():
    full, separable = head(), head(separable=True)
    assert sum(p.numel() for p in separable.parameters()) < 0.6 * sum(p.numel() for p in full.parameters())
    depthwise = [m for m in separable.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(depthwise) == 5
    assert separable.eval().features(torch.randn(1, 5, 8, 8), torch.randn(1, 6, 2, 2)).shape == (1, 8, 8, 8)


def test_one_image_while_training_is_one_sentence():
    with pytest.raises(ValueError, match=r"single image.*at least 2 images"):
        head().train().features(torch.randn(1, 5, 8, 8), torch.randn(1, 6, 2, 2))
