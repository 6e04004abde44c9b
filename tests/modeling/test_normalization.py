"""BatchNorm over view groups against separate BatchNorm layers; frozen statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from s4mim_hf.modeling import ViewGroup, convert_batch_norm, freeze_batch_norm
from s4mim_hf.modeling.normalization import FrozenBatchNorm2d, use_view_groups

GROUPS = [ViewGroup(2, True), ViewGroup(3, True), ViewGroup(2, False)]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(4))).double()


def images() -> torch.Tensor:
    return (torch.randn(7, 3, 6, 5) * torch.arange(1, 8)[:, None, None, None]).double()


@pytest.mark.parametrize("sync", [False, True])
def test_without_groups_it_is_batch_norm(sync):
    plain = network()
    converted = convert_batch_norm(copy.deepcopy(plain), sync=sync)
    assert list(plain.state_dict()) == list(converted.state_dict())
    for model in (plain, converted):
        model.train()
    assert torch.equal(plain(images_ := images()), converted(images_))
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), converted.state_dict().values(), strict=True)
    )
    assert torch.equal(plain.eval()(images_), converted.eval()(images_))


@pytest.mark.parametrize("sync", [False, True])
def test_groups_are_separate_batch_norms_in_outputs_gradients_and_statistics(sync):
    reference = nn.BatchNorm2d(3).double().train()
    layer = convert_batch_norm(copy.deepcopy(reference), sync=sync)
    rows, probe = images(), torch.randn(7, 3, 6, 5).double()
    inputs = [rows.clone().requires_grad_(), rows.clone().requires_grad_()]
    with use_view_groups(layer, GROUPS):
        found = layer(inputs[0])
    parts = []
    for chunk, group in zip(inputs[1].split([2, 3, 2]), GROUPS, strict=True):
        if group.update_running_stats:
            parts.append(reference(chunk))
        else:
            normal = (chunk - chunk.mean((0, 2, 3), keepdim=True)) / (
                chunk.var((0, 2, 3), keepdim=True, unbiased=False) + reference.eps
            ).sqrt()
            parts.append(normal * reference.weight[:, None, None] + reference.bias[:, None, None])
    expected = torch.cat(parts)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.weight.grad, reference.weight.grad, rtol=0, atol=1e-11)
    torch.testing.assert_close(layer.running_mean, reference.running_mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(layer.running_var, reference.running_var, rtol=0, atol=1e-14)
    assert layer.num_batches_tracked == 2


def test_groups_hold_within_the_block_only_also_after_an_error():
    layer = convert_batch_norm(nn.BatchNorm2d(3)).train()
    with (
        pytest.raises(ValueError, match=r"\[2, 3, 2\] rows do not add up to the batch's 4"),
        use_view_groups(layer, GROUPS),
    ):
        layer(torch.randn(4, 3, 2, 2))
    assert layer.view_groups is None
    assert layer.track_running_stats
    layer(torch.randn(4, 3, 2, 2))


def test_in_evaluation_groups_change_nothing():
    layer = convert_batch_norm(nn.BatchNorm2d(3)).eval()
    rows = torch.randn(4, 3, 2, 2)
    with use_view_groups(layer, [ViewGroup(1, True), ViewGroup(3, False)]):
        assert torch.equal(layer(rows), nn.BatchNorm2d(3).eval()(rows))


def test_a_group_with_a_single_value_is_one_sentence():
    layer = convert_batch_norm(nn.BatchNorm2d(3)).train()
    with (
        pytest.raises(ValueError, match="at least 2 images"),
        use_view_groups(layer, [ViewGroup(1, True), ViewGroup(3, True)]),
    ):
        layer(torch.randn(4, 3, 1, 1))


def test_groups_on_an_unconverted_module_or_empty_groups_are_refused():
    with pytest.raises(ValueError, match="convert_batch_norm"), use_view_groups(network(), GROUPS):
        pass
    with pytest.raises(ValueError, match="at least 1 row"), use_view_groups(network(), [ViewGroup(0, True)]):
        pass


def test_conversion_keeps_the_very_parameters():
    model = network()
    before = dict(model.named_parameters())
    convert_batch_norm(model)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_frozen_statistics_survive_train_and_conversion():
    model = freeze_batch_norm(network())
    convert_batch_norm(model)
    model.train()
    before = copy.deepcopy(model.state_dict())
    rows = images()
    output = model(rows)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(output, copy.deepcopy(model).eval()(rows))
    assert sum(isinstance(m, FrozenBatchNorm2d) and not m.training for m in model.modules()) == 2
    output.sum().backward()
    assert model[1].weight.grad is not None
