"""The class-wise convolutions against a plain loop over classes: outputs, gradients, independence, unknown places."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from held_memory import held_bytes
from loop_comparison import assert_equals_the_loop, assert_float32_equals_the_loop
from torch import nn

from s4mim_hf.modeling.mim_head import ClassGatedConvolution, ConvolutionDecoder, class_gates


def decoder(masked_features: str = "keep", kernel_size: int = 3, depth: int = 3) -> ConvolutionDecoder:
    model = ConvolutionDecoder(
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


def reference(model: ConvolutionDecoder, features: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
    """Run the ungated decoder on the full map, once per class, zero outside the class after every layer."""
    total = 0
    for one in class_map.unique().tolist():
        if one == 255:
            continue
        inside = (class_map == one)[:, None].double()
        hidden = pointwise(model.embed, features * inside) * inside
        for block in model.blocks:
            size = block.depthwise.weight.shape[-1]
            channels = hidden.shape[1]
            inner = F.conv2d(hidden, block.depthwise.weight, padding=size // 2, groups=channels) * inside
            inner = norm(inner, block.layernorm) * inside
            inner = F.gelu(pointwise(block.expand, inner) * inside) * inside
            hidden = hidden + pointwise(block.contract, inner) * inside
        hidden = norm(hidden, model.layernorm) * inside
        total = total + F.pixel_shuffle(pointwise(model.predict, hidden) * inside, model.patch)
    return total


def pointwise(layer: nn.Linear, features: torch.Tensor) -> torch.Tensor:
    return F.conv2d(features, layer.weight[:, :, None, None], layer.bias)


def norm(features: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
    mean = features.mean(1, keepdim=True)
    variance = features.var(1, keepdim=True, unbiased=False)
    return (features - mean) / (variance + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_one_pass_equals_the_loop_over_classes_in_outputs_and_gradients(kernel_size):
    features = torch.randn(3, 6, 7, 9, dtype=torch.float64)
    assert_equals_the_loop(decoder(kernel_size=kernel_size), reference, features, class_maps())


def test_float32_agrees_to_1e_5_under_mean_reduction():
    assert_float32_equals_the_loop(decoder(), decoder(), reference, torch.randn(3, 6, 7, 9), class_maps())


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
    features = torch.randn(2, 8, 3, 6, dtype=torch.float64)
    found = run(layer, features, layer.weight, torch.zeros(2, 8, 3, dtype=torch.long))
    expected = F.conv2d(features.permute(0, 3, 1, 2), layer.weight, padding=2, groups=6).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(4, 5), (1, 1), (1, 6)])
def test_gradcheck_also_of_maps_smaller_than_the_kernel(size):
    layer = ClassGatedConvolution(3, 3).double()
    maps = torch.randint(0, 2, (2, *size))
    maps[:, 0, 0] = 255
    features = torch.randn(2, *size, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, w: run(layer, z, w, maps), (features, layer.weight))


def run(layer: ClassGatedConvolution, features: torch.Tensor, weight: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    gates = class_gates(maps, weight.shape[-1], features.dtype)
    return torch.func.functional_call(layer, {"weight": weight}, (features, gates))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_memory_held_for_the_backward_is_near_the_ungated_decoders(kernel_size):
    model = ConvolutionDecoder(32, channels=32, depth=4, kernel_size=kernel_size, expansion=2, patch=4)
    features, maps = torch.randn(1, 32, 20, 20), torch.randint(0, 9, (1, 20, 20))
    assert held_bytes(lambda: model(features, maps), model) < 1.3 * held_bytes(lambda: ungated(model, features), model)


def ungated(model: ConvolutionDecoder, features: torch.Tensor) -> torch.Tensor:
    """The basic decoder as one would write it, channels last."""
    hidden = model.embed(features.permute(0, 2, 3, 1))
    for block in model.blocks:
        weight, channels = block.depthwise.weight, hidden.shape[-1]
        mixed = F.conv2d(hidden.permute(0, 3, 1, 2), weight, padding=weight.shape[-1] // 2, groups=channels)
        inner = block.layernorm(mixed.permute(0, 2, 3, 1))
        hidden = hidden + block.contract(F.gelu(block.expand(inner)))
    return F.pixel_shuffle(model.predict(model.layernorm(hidden)).permute(0, 3, 1, 2), model.patch)


def test_gates_are_open_between_neighbours_of_one_known_class():
    maps = torch.randint(0, 3, (2, 6, 7))
    maps[torch.rand(2, 6, 7) < 0.2] = 255
    gates = class_gates(maps, 3, torch.float32)
    for tap in range(9):
        for row in range(6):
            for column in range(7):
                r, c = row + tap // 3 - 1, column + tap % 3 - 1
                inside = 0 <= r < 6 and 0 <= c < 7
                expected = [-1 if inside and maps[b, r, c] == maps[b, row, column] != 255 else 0 for b in range(2)]
                assert gates[tap, :, row, column, 0].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_accumulates_in_float32(dtype):
    layer = ClassGatedConvolution(3, 5)
    features, maps = torch.randn(2, 8, 8, 3), torch.randint(0, 2, (2, 8, 8))
    half = run(layer, features.to(dtype), layer.weight, maps)
    assert half.dtype == dtype
    exact = run(layer, features.to(dtype).float(), layer.weight, maps)
    torch.testing.assert_close(half, exact.to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_forward_and_backward_under_autocast(dtype):
    model = decoder().float()
    features = torch.randn(3, 6, 7, 9, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
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


def test_it_covers_known_positions_and_sees_as_far_as_its_kernels():
    maps = class_maps()
    assert torch.equal(decoder().covered(maps), maps != 255)
    model = decoder(depth=2, kernel_size=5)
    features = torch.zeros(1, 6, 1, 9, dtype=torch.float64, requires_grad=True)
    model(features, torch.zeros(1, 1, 9, dtype=torch.long))[..., :4].square().sum().backward()
    seen = features.grad.abs().sum(dim=(0, 1, 2)).nonzero().max().item()
    assert model.reach == seen * model.patch == 16


def test_no_layer_mixes_positions():
    kinds = {type(module) for module in decoder().modules()}
    assert not {k for k in kinds if issubclass(k, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d | nn.SyncBatchNorm)}


def test_a_class_map_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"class_map.*\(3, 5, 5\).*\(3, 7, 9\)"):
        decoder()(torch.randn(3, 6, 7, 9).double(), torch.zeros(3, 5, 5, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gradients_are_summed_in_float32(dtype):
    layer = ClassGatedConvolution(3, 5)
    maps, given, probe = torch.randint(0, 2, (2, 40, 40)), torch.randn(2, 40, 40, 3), torch.randn(2, 40, 40, 3)
    gradients = []
    for kind in (dtype, torch.float32):
        features = given.to(dtype).to(kind).requires_grad_()
        layer.zero_grad()
        run(layer, features, layer.weight, maps).backward(probe.to(dtype).to(kind))
        gradients.append((features.grad, layer.weight.grad.clone()))
    (of_features, of_weight), (exact, exact_weight) = gradients
    torch.testing.assert_close(of_features, exact.to(dtype))
    torch.testing.assert_close(of_weight, exact_weight, rtol=1e-5, atol=1e-4)
