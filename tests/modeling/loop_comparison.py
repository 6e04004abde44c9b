"""A decoder of all classes in one pass beside a loop over classes, in outputs and in every gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

# decoder, z (B, C, h, w), class map (B, h, w) -> x̂
Reference = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def assert_equals_the_loop(model: nn.Module, reference: Reference, features: torch.Tensor, maps: torch.Tensor) -> None:
    """Compare to 1e-10 in float64."""
    results, probe = [], torch.randn_like(model(features, maps))
    for run in (lambda z: model(z, maps), lambda z: reference(model, z, maps)):
        z = features.clone().requires_grad_()
        model.zero_grad()
        output = run(z)
        (output * probe).sum().backward()
        results.append((output, z.grad, *(p.grad.clone() for p in model.parameters())))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def assert_float32_equals_the_loop(
    model: nn.Module, exact: nn.Module, reference: Reference, features: torch.Tensor, maps: torch.Tensor
) -> None:
    """Compare `model` (made float32, with the weights of `exact`) to the loop in float64, to 1e-5 under a mean."""
    model.float().load_state_dict(exact.state_dict())
    z = features.float().clone().requires_grad_()
    exact_z = features.double().clone().requires_grad_()
    output, expected = model(z, maps), reference(exact, exact_z, maps)
    assert (output - expected).abs().mean() < 1e-5
    output.square().mean().backward()
    expected.square().mean().backward()
    for found, right in zip((z, *model.parameters()), (exact_z, *exact.parameters()), strict=True):
        torch.testing.assert_close(found.grad.double(), right.grad, rtol=1e-5, atol=1e-5)
