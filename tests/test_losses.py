"""Each loss against a plain loop over pixels or positions in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from s4mim_hf import losses

IGNORE = 255
K = 4


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random_labels(generator: torch.Generator, *shape: int, ignored: float = 0.3) -> Tensor:
    labels = torch.randint(0, K, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < ignored, IGNORE, labels)


def pixel_cross_entropy(logits: Tensor, label: int) -> float:
    return float(torch.logsumexp(logits.double(), 0) - logits[label].double())


def known_cross_entropies(logits: Tensor, labels: Tensor) -> list[float]:
    return [
        pixel_cross_entropy(logits[b, :, i, j], int(labels[b, i, j]))
        for b, i, j in (labels != IGNORE).nonzero().tolist()
    ]


def test_cross_entropy_is_the_mean_over_known_pixels(generator: torch.Generator) -> None:
    logits, labels = torch.randn(2, K, 5, 7, generator=generator), random_labels(generator, 2, 5, 7)
    values = known_cross_entropies(logits, labels)
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(sum(values) / len(values), rel=1e-6)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 0.0), (0.2, 1 / 16), (0.05, 0.5), (1.0, 0.1), (0.01, 0.9)])
def test_ohem_keeps_hard_pixels_and_at_least_the_asked_share(
    generator: torch.Generator, threshold: float, min_kept: float
) -> None:
    logits, labels = 2 * torch.randn(2, K, 8, 8, generator=generator), random_labels(generator, 2, 8, 8)
    values = sorted(known_cross_entropies(logits, labels), reverse=True)
    count = max(1, int(min_kept * labels.numel()), sum(value >= -math.log(threshold) for value in values))
    kept = values[:count]
    found = losses.ohem_cross_entropy(logits, labels, threshold=threshold, min_kept=min_kept)
    assert found.item() == pytest.approx(sum(kept) / len(kept), rel=1e-5)


def test_consistency_counts_confident_pixels_over_all_valid_ones(generator: torch.Generator) -> None:
    logits = torch.randn(2, K, 6, 5, generator=generator)
    pseudo, confidence = torch.randint(0, K, (2, 6, 5), generator=generator), torch.rand(2, 6, 5, generator=generator)
    valid = torch.rand(2, 6, 5, generator=generator) < 0.7
    total = 0.0
    for b, i, j in valid.nonzero().tolist():
        if confidence[b, i, j] >= 0.6:
            total += pixel_cross_entropy(logits[b, :, i, j], int(pseudo[b, i, j]))
    found = losses.consistency_loss(logits, pseudo, confidence, valid, 0.6)
    assert found.item() == pytest.approx(total / int(valid.sum()), rel=1e-6)


def test_probability_consistency_is_the_mean_squared_distance_over_valid_pixels(generator: torch.Generator) -> None:
    logits = torch.randn(2, K, 6, 5, generator=generator)
    target = torch.rand(2, K, 6, 5, generator=generator)
    valid = torch.rand(2, 6, 5, generator=generator) < 0.7
    total = 0.0
    for b, i, j in valid.nonzero().tolist():
        shares = logits[b, :, i, j].double().exp()
        total += float((shares / shares.sum() - target[b, :, i, j]).square().sum())
    found = losses.probability_consistency_loss(logits, target, valid)
    assert found.item() == pytest.approx(total / int(valid.sum()), rel=1e-6)


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 8, 4), (9, 13, 4), (3, 5, 8)])
def test_patch_normalisation_equals_a_loop_over_patches(
    generator: torch.Generator, height: int, width: int, patch: int
) -> None:
    images = 3 * torch.randn(2, 3, height, width, generator=generator) + 1
    expected = torch.empty(images.shape, dtype=torch.float64)
    for b in range(2):
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                cell = images[b, :, top : top + patch, left : left + patch].double()
                scale = (cell.var(correction=0) + 1e-6).sqrt()
                expected[b, :, top : top + patch, left : left + patch] = (cell - cell.mean()) / scale
    torch.testing.assert_close(losses.normalize_per_patch(images, patch).double(), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 8, 4), (9, 13, 4), (3, 5, 8)])
def test_patch_normalisation_reads_known_pixels_only(
    generator: torch.Generator, height: int, width: int, patch: int
) -> None:
    images = 3 * torch.randn(2, 3, height, width, generator=generator) + 1
    known = torch.rand(2, height, width, generator=generator) < 0.6
    known[0, :patch, :patch] = False
    found = losses.normalize_per_patch(images, patch, known)
    assert found.isfinite().all()
    for b, i, j in known.nonzero().tolist():
        place = (
            slice(i // patch * patch, (i // patch + 1) * patch),
            slice(j // patch * patch, (j // patch + 1) * patch),
        )
        cell = images[b][:, *place][:, known[b][place]].double()
        expected = (images[b, :, i, j].double() - cell.mean()) / (cell.var(correction=0) + 1e-6).sqrt()
        torch.testing.assert_close(found[b, :, i, j].double(), expected, atol=1e-4, rtol=1e-4)


def test_a_patch_of_one_colour_becomes_zero() -> None:
    assert losses.normalize_per_patch(torch.full((1, 3, 4, 4), 0.5), 2).abs().max() == 0


@pytest.mark.parametrize("reduction", ["pixel", "class"])
def test_reconstruction_equals_a_loop_over_pixels(generator: torch.Generator, reduction: str) -> None:
    found, target = torch.randn(2, 2, 3, 6, 5, generator=generator)
    class_map = random_labels(generator, 2, 6, 5)
    class_map[class_map == 2] = 1  # one class is absent
    selected = (torch.rand(2, 6, 5, generator=generator) < 0.5) & (class_map != IGNORE)
    errors: dict[int, list[float]] = {}
    for b, i, j in selected.nonzero().tolist():
        error = (found[b, :, i, j].double() - target[b, :, i, j].double()).abs().mean()
        errors.setdefault(int(class_map[b, i, j]), []).append(float(error))
    if reduction == "pixel":
        values = [error for group in errors.values() for error in group]
    else:
        values = [sum(group) / len(group) for group in errors.values()]
    loss = losses.reconstruction_loss(found, target, selected, class_map, K, reduction)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_reconstruction_moves_selected_pixels_only(generator: torch.Generator) -> None:
    found = torch.randn(1, 3, 6, 6, generator=generator, requires_grad=True)
    selected = torch.rand(1, 6, 6, generator=generator) < 0.5
    class_map = torch.where(selected, 1, IGNORE)
    losses.reconstruction_loss(found, torch.zeros(1, 3, 6, 6), selected, class_map, K).backward()
    assert found.grad is not None
    assert torch.equal(found.grad.abs().sum(1) > 0, selected)


def loop_aggregation(
    z: Tensor,
    class_map: Tensor,
    mask: Tensor,
    *,
    distance: str,
    scope: str,
    stop_gradient: bool,
    min_positions: int,
    reduction: str,
) -> Tensor:
    """METHOD.md's L_agg, group by group, class by class, position by position."""
    images = [[b] for b in range(len(z))] if scope == "image" else [list(range(len(z)))]
    counted = []
    for group in images:
        for k in range(K):
            places = [(b, *p) for b in group for p in (class_map[b] == k).nonzero().tolist()]
            visible = [z[b, :, i, j] for b, i, j in places if not mask[b, 0, i, j]]
            hidden = [z[b, :, i, j] for b, i, j in places if mask[b, 0, i, j]]
            if min(len(visible), len(hidden)) < min_positions:
                continue
            prototype = torch.stack(visible).mean(0)
            prototype = prototype.detach() if stop_gradient else prototype
            if distance == "cosine":
                parts = [1 - (value @ prototype) / (value.norm() * prototype.norm()) for value in hidden]
            else:
                parts = [(value - prototype).square().mean() for value in hidden]
            counted.extend(parts if reduction == "position" else [torch.stack(parts).mean()])
    return torch.stack(counted).mean()


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize(("stop_gradient", "min_positions"), [(True, 1), (False, 3)])
@pytest.mark.parametrize("reduction", ["class", "position"])
def test_aggregation_and_its_gradient_equal_a_loop(
    generator: torch.Generator, distance: str, scope: str, stop_gradient: bool, min_positions: int, reduction: str
) -> None:
    z = torch.randn(3, 6, 7, 6, generator=generator)
    class_map = random_labels(generator, 3, 7, 6)
    mask = torch.rand(3, 1, 7, 6, generator=generator) < 0.6
    options = {
        "distance": distance,
        "scope": scope,
        "stop_gradient": stop_gradient,
        "min_positions": min_positions,
        "reduction": reduction,
    }
    ours, reference = z.clone().requires_grad_(), z.double().requires_grad_()
    loss, _ = losses.aggregation_loss(ours, class_map, mask, K, **options)  # type: ignore[arg-type]
    expected = loop_aggregation(reference, class_map, mask, **options)  # type: ignore[arg-type]
    loss.backward()
    expected.backward()
    assert ours.grad is not None
    assert reference.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad.double(), reference.grad, atol=1e-6, rtol=1e-4)
    # Unknown positions are no evidence, and fixed prototypes pass nothing to the visible ones.
    untouched = class_map == IGNORE if not stop_gradient else (class_map == IGNORE) | ~mask[:, 0]
    assert ours.grad.abs().sum(1)[untouched].max() == 0


def test_aggregation_ignores_an_image_with_no_known_position(generator: torch.Generator) -> None:
    z, class_map = torch.randn(1, 6, 5, 4, generator=generator), random_labels(generator, 1, 5, 4)
    mask = torch.rand(1, 1, 5, 4, generator=generator) < 0.5
    alone, _ = losses.aggregation_loss(z, class_map, mask, K)
    unknown = torch.full_like(class_map, IGNORE)
    for scope in ("image", "batch"):
        both, _ = losses.aggregation_loss(
            torch.cat([z, 100 * z]), torch.cat([class_map, unknown]), torch.cat([mask, mask]), K, scope=scope
        )  # type: ignore[arg-type]
        assert both.item() == pytest.approx(alone.item(), rel=1e-6)


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_a_feature_of_length_zero_has_no_direction_to_be_drawn_in(generator: torch.Generator, scope: str) -> None:
    z, class_map = torch.randn(2, 6, 4, 4, generator=generator), torch.zeros(2, 4, 4, dtype=torch.int64)
    class_map[1, :, 2:] = 1
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[..., ::2, :] = True
    # One masked feature, and all visible ones of class 1, so its prototype.
    z[0, :, 0, 0] = 0
    z[1, :, 1::2, 2:] = 0
    z.requires_grad_()
    loss, _ = losses.aggregation_loss(z, class_map, mask, K, scope=scope, stop_gradient=False)  # type: ignore[arg-type]
    loss.backward()
    assert z.grad is not None
    assert z.grad[0, :, 0, 0].abs().max() == 0
    assert z.grad[1, :, 1::2, 2:].abs().max() == 0
    assert 0 < z.grad.abs().max() < 1


def test_diagnostics_tell_collapse_from_separation() -> None:
    class_map = torch.tensor([[[0, 0, 1, 1]]])
    mask = torch.tensor([[[[False, True, False, True]]]])
    apart = torch.tensor([[3.0, 3, 0, 0], [0, 0, 4, 4]]).view(1, 2, 1, 4)
    _, diagnostics = losses.aggregation_loss(apart, class_map, mask, K)
    assert diagnostics["between_class_similarity"].item() == 0
    assert diagnostics["feature_norm"].item() == pytest.approx(3.5)
    _, collapsed = losses.aggregation_loss(torch.ones(1, 2, 1, 4), class_map, mask, K)
    assert collapsed["between_class_similarity"].item() == pytest.approx(1)


def test_semantic_loss_equals_a_loop(generator: torch.Generator) -> None:
    logits, class_map = torch.randn(2, K, 6, 5, generator=generator), random_labels(generator, 2, 6, 5)
    weights = torch.rand(2, 6, 5, generator=generator)
    weights = torch.where(torch.rand(2, 6, 5, generator=generator) < 0.3, 0.0, weights)
    counted = ((class_map != IGNORE) & (weights > 0)).nonzero().tolist()
    total = sum(
        float(weights[b, i, j]) * pixel_cross_entropy(logits[b, :, i, j], int(class_map[b, i, j]))
        for b, i, j in counted
    )
    assert losses.semantic_loss(logits, class_map, weights).item() == pytest.approx(total / len(counted), rel=1e-6)


def test_semantic_loss_averaged_over_all_valid_pixels_is_the_consistency_of_the_confident(
    generator: torch.Generator,
) -> None:
    logits, confidence = torch.randn(2, K, 6, 5, generator=generator), torch.rand(2, 6, 5, generator=generator)
    labels, valid = torch.randint(0, K, (2, 6, 5), generator=generator), torch.rand(2, 6, 5, generator=generator) < 0.7
    confident = torch.where((confidence >= 0.6) & valid, labels, IGNORE)
    found = losses.semantic_loss(logits, confident, torch.ones(2, 6, 5), averaged_over=valid)
    torch.testing.assert_close(found, losses.consistency_loss(logits, labels, confidence, valid, 0.6))


def test_semantic_loss_of_unit_weights_is_cross_entropy(generator: torch.Generator) -> None:
    logits, class_map = torch.randn(2, K, 6, 5, generator=generator), random_labels(generator, 2, 6, 5)
    found = losses.semantic_loss(logits, class_map, torch.ones(2, 6, 5))
    torch.testing.assert_close(found, losses.cross_entropy(logits, class_map))


def test_where_nothing_counts_every_loss_is_zero_with_a_zero_gradient(generator: torch.Generator) -> None:
    logits = torch.randn(1, K, 4, 4, generator=generator, requires_grad=True)
    image = torch.randn(1, 3, 4, 4, generator=generator, requires_grad=True)
    z = torch.zeros(1, 6, 4, 4, requires_grad=True)
    unknown, nowhere = torch.full((1, 4, 4), IGNORE), torch.zeros(1, 4, 4, dtype=torch.bool)
    zeros = torch.zeros(1, 4, 4)
    mask = torch.rand(1, 1, 4, 4, generator=generator) < 0.5
    values = [
        losses.cross_entropy(logits, unknown),
        losses.ohem_cross_entropy(logits, unknown),
        losses.consistency_loss(logits, unknown * 0, zeros, nowhere, 0.5),
        losses.consistency_loss(logits, unknown * 0, zeros, ~nowhere, 0.5),
        losses.probability_consistency_loss(logits, torch.rand(1, K, 4, 4, generator=generator), nowhere),
        losses.reconstruction_loss(image, torch.zeros(1, 3, 4, 4), nowhere, unknown, K),
        losses.reconstruction_loss(image, torch.zeros(1, 3, 4, 4), nowhere, unknown, K, "class"),
        losses.aggregation_loss(z, unknown, mask, K)[0],
        losses.aggregation_loss(z, unknown, mask, K, distance="l2", scope="batch", stop_gradient=False)[0],
        losses.semantic_loss(logits, unknown, torch.ones(1, 4, 4)),
        losses.semantic_loss(logits, unknown * 0, zeros),
    ]
    assert [value.item() for value in values] == [0] * len(values)
    torch.stack(values).sum().backward()
    for tensor in (logits, image, z):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad, torch.zeros_like(tensor))


def test_autocast_changes_no_loss(generator: torch.Generator) -> None:
    """Sums over thousands of pixels must not run in half precision."""
    found, target = torch.randn(2, 2, 3, 40, 40, generator=generator)
    class_map, z = random_labels(generator, 2, 40, 40), torch.randn(2, 8, 40, 40, generator=generator)
    mask = torch.rand(2, 1, 40, 40, generator=generator) < 0.6
    selected = class_map != IGNORE

    def both() -> Tensor:
        reconstruction = losses.reconstruction_loss(found, target, selected, class_map, K, "class")
        return torch.stack([reconstruction, losses.aggregation_loss(z, class_map, mask, K)[0]])

    with torch.autocast("cpu", torch.bfloat16):
        lowered = both()
    assert lowered.dtype == torch.float32
    assert torch.equal(lowered, both())


def test_half_precision_features_are_aggregated_in_float32(generator: torch.Generator) -> None:
    z = torch.randn(2, 8, 40, 40, generator=generator).bfloat16()
    class_map = random_labels(generator, 2, 40, 40)
    mask = torch.rand(2, 1, 40, 40, generator=generator) < 0.6
    for distance in ("cosine", "l2"):
        found, diagnostics = losses.aggregation_loss(z, class_map, mask, K, distance=distance)  # type: ignore[arg-type]
        exact, _ = losses.aggregation_loss(z.float(), class_map, mask, K, distance=distance)  # type: ignore[arg-type]
        assert found.dtype == diagnostics["feature_norm"].dtype == torch.float32
        assert torch.equal(found, exact)
