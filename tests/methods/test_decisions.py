"""What the abstract leaves open is a setting; here each does what it says, against loops and formulas by hand.

Reconstruction's target, reduction and regions, which images are masked and how, and the base's settings are tested with
their methods; that no setting is dead, in `test_settings_count`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from s4mim_cases import NO_TERMS, config, masked_view, masks, semantics
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig
from s4mim_hf.methods import NormalizationConfig, StepContext, Task
from s4mim_hf.methods.masked_view import MaskedView
from s4mim_hf.methods.s4mim import S4MIM
from s4mim_hf.methods.s4mim_config import AggregationConfig
from s4mim_hf.methods.unlabeled import unlabeled_images

StudentBuilder = Callable[..., torch.nn.Module]


@pytest.fixture
def view(batch: Batch, task: Task, context: StepContext, teacher: torch.nn.Module) -> Callable[..., MaskedView]:
    """Return a function that makes the masked view of the batch for some config fields."""

    def make(**fields: Any) -> MaskedView:
        return masked_view(S4MIM(config(**fields), task), batch, context, teacher)

    return make


def aggregation_by_loop(z: Tensor, masked: MaskedView, settings: AggregationConfig) -> Tensor:
    """L_agg, position by position: z (B, C, h, w) in float64."""
    per_image = [[image] for image in range(len(z))]
    groups = per_image if settings.prototypes == "image" else [list(range(len(z)))]
    values = []
    for group in groups:
        for label in range(5):
            seen: dict[bool, list[Tensor]] = {True: [], False: []}
            for image in group:
                for row, column in (masked.position_classes[image] == label).nonzero().tolist():
                    hidden = bool(masked.feature_mask[image, 0, row, column])
                    seen[hidden].append(z[image, :, row, column])
            if min(len(seen[True]), len(seen[False])) < settings.min_positions:
                continue
            prototype = sum(seen[False], torch.zeros(())) / len(seen[False])
            if settings.stop_gradient:
                prototype = prototype.detach()
            if settings.distance == "cosine":
                distances = [1 - one @ prototype / (one.norm() * prototype.norm()) for one in seen[True]]
            else:
                distances = [(one - prototype).square().mean() for one in seen[True]]
            mean = sum(distances, torch.zeros(())) / len(distances)
            values.extend(distances if settings.reduction == "position" else [mean])
    return sum(values, torch.zeros(())) / len(values)


@pytest.mark.parametrize(
    "settings",
    [
        AggregationConfig(distance="l2"),
        AggregationConfig(distance="cosine"),
        AggregationConfig(distance="cosine", prototypes="batch"),
        AggregationConfig(distance="cosine", stop_gradient=False),
        AggregationConfig(distance="cosine", min_positions=8),
        AggregationConfig(distance="l2", prototypes="batch", stop_gradient=False, min_positions=3),
        AggregationConfig(distance="l2", min_positions=3, reduction="position"),
        AggregationConfig(distance="cosine", prototypes="batch", reduction="position"),
    ],
)
def test_aggregation_is_the_asked_one_in_value_and_gradient(
    view: Callable[..., MaskedView], task: Task, settings: AggregationConfig
) -> None:
    masked = view(aggregation=settings)
    features = torch.randn(5, 6, 12, 12, generator=torch.Generator().manual_seed(4))
    found, exact = features.clone().requires_grad_(), features.double().requires_grad_()
    value, _ = S4MIM(config(aggregation=settings), task).aggregation_value(found, masked)
    expected = aggregation_by_loop(exact, masked, settings)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    assert found.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(found.grad.double(), exact.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pixels", ["known", "masked"])
@pytest.mark.parametrize("weighting", ["threshold", "confidence"])
@pytest.mark.parametrize("average_over", ["known", "valid"])
def test_semantic_space_counts_the_asked_pixels_with_the_asked_weights(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    view: Callable[..., MaskedView],
    pixels: str,
    weighting: str,
    average_over: str,
) -> None:
    settings = semantics(pixels=pixels, unlabeled_weighting=weighting, average_over=average_over)  # type: ignore[arg-type]
    only = {**NO_TERMS, "semantic": settings}
    method, masked = S4MIM(config(**only), task), view(**only)
    student = build_student(method)
    found = method.losses(student, teacher, batch, context).terms["semantic"].value
    logits = student(masked.images, masked.patch_mask).logits.detach().double()
    confidence, pseudo = teacher(masked.images[3:]).logits.detach().double().softmax(1).max(1)
    labels = torch.cat([batch.labels.long(), pseudo])
    per_pixel = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    assert batch.unlabeled_valid is not None
    total, count = 0.0, 0
    for image in range(5):
        for row in range(48):
            for column in range(48):
                if pixels == "masked" and not masked.patch_mask[image, 0, row, column]:
                    continue
                if image < 3:
                    known = valid = bool(batch.labels[image, row, column] != 255)
                    weight = 1.0
                else:
                    sure = float(confidence[image - 3, row, column])
                    valid = bool(batch.unlabeled_valid[image - 3, row, column])
                    known = valid and (weighting == "confidence" or sure >= 0.25)
                    weight = sure if weighting == "confidence" else 1.0
                count += known if average_over == "known" else valid
                if known:
                    total += weight * float(per_pixel[image, row, column])
    assert found.item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("mode", ["majority", "nearest"])
def test_positions_get_their_class_as_asked(view: Callable[..., MaskedView], mode: str) -> None:
    masked = view(class_map_downsampling=mode)
    for image, row, column in torch.ones_like(masked.position_classes).nonzero().tolist():
        cell = masked.class_map[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        known = cell[cell != 255].tolist()
        majority = max(range(5), key=known.count) if known else 255
        expected = majority if mode == "majority" else int(cell[2, 2])
        assert int(masked.position_classes[image, row, column]) == expected


def test_each_threshold_acts_on_its_own_term(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    def step(**fields: Any) -> dict[str, float]:
        method = S4MIM(config(masking=masks(images="unlabeled"), **fields), task)
        losses = method.losses(build_student(method), teacher, batch, context)
        return {name: term.value.item() for name, term in losses.terms.items()}

    strict_labels, strict_map = step(threshold=1), step(class_map_threshold=1)
    masked_terms = ("reconstruction", "aggregation", "semantic")
    assert strict_labels["consistency"] == 0
    assert all(strict_labels[name] > 0 for name in masked_terms)
    assert strict_map["consistency"] > 0
    assert all(strict_map[name] == 0 for name in masked_terms)


@pytest.mark.parametrize(("patch", "ratio"), [(8, 0.3), (16, 0.6), (12, 0.5)])
def test_patches_have_the_asked_size_and_share(view: Callable[..., MaskedView], patch: int, ratio: float) -> None:
    mask = view(masking=masks(patch_size=patch, ratio=ratio)).patch_mask
    cells = mask.view(5, 48 // patch, patch, 48 // patch, patch).float().mean((2, 4))
    assert set(cells.unique().tolist()) == {0, 1}
    assert (cells.mean((1, 2)) - ratio).abs().max() <= 0.5 * (patch / 48) ** 2


def test_without_any_strong_operation_the_strong_view_is_the_weak_one(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    """The base's strong view, and the masked view that is made of it."""
    none = StrongViewConfig(jitter_probability=0, grayscale_probability=0, blur_probability=0, cutmix_probability=0)
    method = S4MIM(config(strong=none), task)
    weak, _ = unlabeled_images(batch, method.name)
    torch.testing.assert_close(method.strong_view(weak, context).images, method.normalize(weak), rtol=0, atol=1e-5)
    values = []
    for seen in ("weak", "strong", "own"):
        masking = masks(view=seen)  # type: ignore[arg-type]
        method = S4MIM(config(strong=none, masking=masking), task)
        losses = method.losses(build_student(method), teacher, batch, context)
        values.append([term.value.item() for term in losses.terms.values()])
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert values[0] == pytest.approx(values[2], rel=1e-4)


@pytest.mark.parametrize("name", ["labeled", "masked", "weak"])
def test_running_statistics_are_those_of_the_named_view(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    view: Callable[..., MaskedView],
    name: Any,
) -> None:
    normalization = NormalizationConfig(running_from=(name,))
    method = S4MIM(config(normalization=normalization, feature_weight=1), task)
    student = build_student(method)
    method.losses(student, teacher, batch, context)
    masked, alone = view(), build_student(method)
    assert batch.unlabeled_images is not None
    images = {
        "labeled": method.normalize(batch.labeled_images),
        "weak": method.normalize(batch.unlabeled_images),
        "masked": torch.where(masked.patch_mask, 0.0, masked.images),
    }
    alone.segmenter(images[name])  # type: ignore[operator]
    expected = dict(alone.named_buffers())
    for key, buffer in student.named_buffers():
        torch.testing.assert_close(buffer, expected[key], rtol=1e-4, atol=1e-5)
