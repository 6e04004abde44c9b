"""The class-wise decoder against a plain loop over classes: outputs, gradients, independence, ignored positions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from s4mim_hf.modeling.mim_head import ClassGatedConvolution, ClassWiseDecoder


def decoder(masked_features: str = "keep", kernel_size: int = 3, depth: int = 3) -> ClassWiseDecoder:
    model = ClassWiseDecoder(
        6, channels=5, depth=depth, kernel_size=kernel_size, expansion=2, patch=4, masked_features=masked_features
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases included: an ungated bias is what would leak between classes.
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def class_maps(classes: int = 4) -> torch.Tensor:
    """Return (3, 7, 9): interleaved classes with unknown positions, one class and unknown, all unknown."""
    mixed = torch.randint(0, classes, (7, 9))
    mixed[torch.rand(7, 9) < 0.2] = 255
    single = torch.full((7, 9), 2)
    single[:3] = 255
    return torch.stack([mixed, single, torch.full((7, 9), 255)])


def reference(model: ClassWiseDecoder, features: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
    """Run the ungated decoder on the full map, once per class, zero outside the class after every layer."""
    total = 0
    for one in class_map.unique().tolist():
        if one == 255:
            continue
        inside = (class_map == one)[:, None].double()
        hidden = model.embed(features * inside) * inside
        for block in model.blocks:
            size = block.depthwise.weight.shape[-1]
            channels = hidden.shape[1]
            inner = F.conv2d(hidden, block.depthwise.weight, padding=size // 2, groups=channels) * inside
            inner = norm(inner, block.layernorm) * inside
            inner = F.gelu(block.expand(inner) * inside) * inside
            hidden = hidden + block.contract(inner) * inside
        hidden = norm(hidden, model.layernorm) * inside
        total = total + F.pixel_shuffle(model.predict(hidden) * inside, model.patch)
    return total


def norm(features: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
    mean = features.mean(1, keepdim=True)
    variance = features.var(1, keepdim=True, unbiased=False)
    return (features - mean) / (variance + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_one_pass_equals_the_loop_over_classes_in_outputs_and_gradients(kernel_size):
    model = decoder(kernel_size=kernel_size)
    features, maps = torch.randn(3, 6, 7, 9, dtype=torch.float64), class_maps()
    probe = torch.randn(3, 3, 28, 36, dtype=torch.float64)
    results = []
    for run in (lambda z: model(z, maps), lambda z: reference(model, z, maps)):
        inputs = features.clone().requires_grad_()
        model.zero_grad()
        output = run(inputs)
        (output * probe).sum().backward()
        results.append((output, inputs.grad, *(p.grad.clone() for p in model.parameters())))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_float32_agrees_to_1e_5():
    model = decoder().float()
    features, maps = torch.randn(3, 6, 7, 9), class_maps()
    exact = reference(decoder_copy(model), features.double(), maps)
    assert (model(features, maps) - exact).abs().mean() < 1e-5


def decoder_copy(model: ClassWiseDecoder) -> ClassWiseDecoder:
    copy = decoder()
    copy.load_state_dict(model.state_dict())
    return copy


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_no_class_sees_another_by_exactly_nothing(value):
    model, maps = decoder(), class_maps()
    features = torch.randn(3, 6, 7, 9, dtype=torch.float64)
    before = model(features, maps)
    changed = torch.where((maps == 1)[:, None], torch.full_like(features, value), features)
    after = model(changed, maps)
    pixels = up(maps)
    for one in (0, 2, 3, 255):
        inside = (pixels == one)[:, None].expand_as(before)
        assert torch.equal(before[inside], after[inside])
    assert not torch.equal(before, after)


def test_gradients_of_one_class_are_independent_of_another_with_infinities():
    model, maps = decoder(), class_maps()
    features = torch.randn(3, 6, 7, 9, dtype=torch.float64)
    wild = torch.where((maps == 1)[:, None], torch.full_like(features, float("inf")), features)
    inside = (up(maps) == 0)[:, None]
    grads = []
    for z in (features, wild):
        z = z.clone().requires_grad_()
        model(z, maps).masked_fill(~inside, 0).sum().backward()
        grads.append(z.grad)
    where = (maps == 0)[:, None].expand_as(features)
    assert torch.equal(grads[0][where], grads[1][where])


def up(class_map: torch.Tensor, scale: int = 4) -> torch.Tensor:
    return class_map.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def test_unknown_positions_are_neither_reconstructed_nor_evidence():
    model, maps = decoder(), class_maps()
    features = torch.randn(3, 6, 7, 9, dtype=torch.float64, requires_grad=True)
    output = model(features, maps)
    assert (output.masked_fill((up(maps) != 255)[:, None], 0) == 0).all()
    output.sum().backward()
    assert (features.grad.masked_fill((maps != 255)[:, None], 0) == 0).all()


def test_an_image_without_known_positions_gives_finite_zero_gradients():
    model, maps = decoder(), torch.full((1, 7, 9), 255)
    features = torch.randn(1, 6, 7, 9, dtype=torch.float64, requires_grad=True)
    model(features, maps).square().sum().backward()
    assert (features.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_with_one_region_it_is_the_ordinary_decoder():
    """Basic masked image modelling: class 0 everywhere equals ungated, zero-padded convolutions."""
    layer = ClassGatedConvolution(6, 5).double()
    features = torch.randn(2, 6, 8, 3, dtype=torch.float64)
    found = layer(features, torch.zeros(2, 8, 3, dtype=torch.long))
    torch.testing.assert_close(found, F.conv2d(features, layer.weight, padding=2, groups=6), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(4, 5), (1, 1), (1, 6)])
def test_gradcheck_also_of_maps_smaller_than_the_kernel(size):
    layer = ClassGatedConvolution(3, 3).double()
    maps = torch.randint(0, 2, (2, *size))
    maps[:, 0, 0] = 255
    features = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, w: run(layer, z, w, maps), (features, layer.weight))


def run(layer: ClassGatedConvolution, features: torch.Tensor, weight: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    return torch.func.functional_call(layer, {"weight": weight}, (features, maps))


def test_backward_stores_no_more_than_input_weight_and_class_map():
    layer, saved = ClassGatedConvolution(3, 5), []
    features = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)) or t, lambda t: t):
        layer(features, torch.zeros(2, 8, 8, dtype=torch.long))
    assert sorted(saved) == sorted([(2, 3, 8, 8), (3, 1, 5, 5), (2, 8, 8)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_accumulates_in_float32(dtype):
    layer = ClassGatedConvolution(3, 5)
    features, maps = torch.randn(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))
    half = layer(features.to(dtype), maps)
    assert half.dtype == dtype
    exact = layer(features.to(dtype).float(), maps)
    torch.testing.assert_close(half, exact.to(dtype))


def test_runs_forward_and_backward_under_autocast():
    model = decoder().float()
    features = torch.randn(3, 6, 7, 9, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(features, class_maps())
    output.float().square().mean().backward()
    assert features.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_token_hides_masked_features():
    model, maps = decoder("token"), class_maps()
    features = torch.randn(3, 6, 7, 9, dtype=torch.float64)
    mask = torch.rand(3, 1, 7, 9) < 0.5
    changed = torch.where(mask, torch.randn_like(features), features)
    assert torch.equal(model(features, maps, mask), model(changed, maps, mask))
    explicit = torch.where(mask, model.feature_token[None, :, None, None], features)
    torch.testing.assert_close(model(features, maps, mask), reference(model, explicit, maps), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="feature_mask"):
        model(features, maps)


def test_no_layer_mixes_positions():
    kinds = {type(module) for module in decoder().modules()}
    assert not {k for k in kinds if issubclass(k, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d | nn.SyncBatchNorm)}


def test_a_class_map_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"class_map.*\(3, 5, 5\).*\(3, 7, 9\)"):
        decoder()(torch.randn(3, 6, 7, 9).double(), torch.zeros(3, 5, 5, dtype=torch.long))
