from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from s4mim_cases import NO_TERMS, TERMS, config, masked_view, masks, semantic_targets, semantics
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.errors import InputError
from s4mim_hf.methods import FixMatchConfig, StepContext, SupervisedConfig, Task
from s4mim_hf.methods.masked_view import MaskedView
from s4mim_hf.methods.s4mim import S4MIM
from s4mim_hf.methods.s4mim_config import AggregationConfig, ReconstructionConfig, SemanticConfig
from s4mim_hf.methods.unlabeled import PseudoLabels

StudentBuilder = Callable[..., torch.nn.Module]
Train = Callable[..., tuple[list[float], dict[str, Tensor]]]


@pytest.fixture
def view(batch: Batch, task: Task, context: StepContext, teacher: torch.nn.Module) -> Callable[..., MaskedView]:
    """Return a function that makes the masked view of the batch for some config fields."""

    def make(**fields: Any) -> MaskedView:
        return masked_view(S4MIM(config(**fields), task), batch, context, teacher)

    return make


def test_without_masked_terms_it_is_fixmatch_bit_for_bit(train: Train, teacher: torch.nn.Module, task: Task) -> None:
    base_losses, base = train(FixMatchConfig(threshold=0.25, consistency_weight=2), teacher)
    losses, state = train(config(**NO_TERMS), teacher)
    assert losses == base_losses
    assert state.keys() == base.keys()
    assert all(torch.equal(state[key], base[key]) for key in state)
    assert not any(S4MIM(config(**NO_TERMS), task).model_requirements())


def test_without_any_unlabelled_term_it_is_supervised_bit_for_bit(
    train: Train, refuse: torch.nn.Module, task: Task
) -> None:
    without = config(**NO_TERMS, consistency_weight=0)
    supervised_losses, supervised = train(SupervisedConfig(), refuse)
    losses, state = train(without, refuse)
    assert losses == supervised_losses
    assert all(torch.equal(state[key], supervised[key]) for key in supervised)
    assert not S4MIM(without, task).needs_unlabeled


@pytest.mark.parametrize("term", TERMS)
def test_each_term_comes_alone_and_leaves_the_others_as_they_were(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext, term: str
) -> None:
    method = S4MIM(config(**{**NO_TERMS, **TERMS[term]}), task)
    base = S4MIM(config(**NO_TERMS), task)
    losses = method.losses(build_student(method), teacher, batch, context)
    base_losses = base.losses(build_student(base), teacher, batch, context)
    assert list(losses.terms) == ["supervised", "consistency", term]
    for name, found in base_losses.terms.items():
        torch.testing.assert_close(losses.terms[name].value, found.value, atol=1e-5, rtol=1e-4)
    assert losses.terms[term].value.item() > 0
    assert ("feature_norm" in losses.metrics) == (term == "aggregation")
    assert method.model_requirements() == (True, term == "reconstruction", term != "semantic")


def test_every_head_that_is_asked_for_gets_a_gradient(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    """Several processes wait for the gradient of every parameter."""
    method = S4MIM(config(), task)
    student = build_student(method, mim_projection_channels=10, masked_features="token")
    losses = method.losses(student, teacher, batch, context)
    losses.total().backward()
    assert list(losses.terms) == ["supervised", "consistency", "reconstruction", "aggregation", "semantic"]
    assert [name for name, parameter in student.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for value in (*losses.metrics.values(), *(term.value for term in losses.terms.values())):
        assert value.shape == ()
        assert value.isfinite()


def test_weights_are_ramped_by_the_step(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = S4MIM(
        config(
            reconstruction=ReconstructionConfig(weight=1, warmup_steps=6),
            aggregation=AggregationConfig(weight=1, warmup_steps=12),
            semantic=semantics(weight=1, warmup_steps=3),
        ),
        task,
    )
    student = build_student(method)
    losses = method.losses(student, teacher, batch, context)
    weights = [losses.terms[name].weight for name in ("reconstruction", "aggregation", "semantic")]
    assert weights == [0.5, 0.25, 1.0]
    # A term at the start of its ramp is there with weight 0: the student's pass is the same at every step.
    assert method.losses(student, teacher, batch, replace(context, step=0)).terms["semantic"].weight == 0


def test_masked_view_holds_what_is_known(
    view: Callable[..., MaskedView], batch: Batch, task: Task, teacher: torch.nn.Module, context: StepContext
) -> None:
    masked = view(class_map_threshold=0.25)
    assert batch.unlabeled_images is not None
    assert batch.unlabeled_valid is not None
    mean, std = torch.tensor(task.image_mean).view(3, 1, 1), torch.tensor(task.image_std).view(3, 1, 1)
    clean = (torch.cat([batch.labeled_images, batch.unlabeled_images]).float() / 255 - mean) / std
    assert torch.equal(masked.images, clean)
    assert torch.equal(masked.class_map[:3], batch.labels.long())
    probabilities = teacher(clean[3:]).logits.softmax(1)
    confidence, labels = probabilities.max(1)
    expected = torch.where((confidence >= 0.25) & batch.unlabeled_valid, labels, 255)
    assert torch.equal(masked.class_map[3:], expected)
    targets = semantic_targets(S4MIM(config(class_map_threshold=0.25), task), batch, context, teacher)
    assert torch.equal(targets.labels, masked.class_map)
    assert torch.equal(targets.weights, torch.ones(5, 48, 48))
    assert masked.patch_mask.shape == (5, 1, 48, 48)
    assert masked.feature_mask.shape == (5, 1, 12, 12)
    assert masked.position_classes.shape == (5, 12, 12)
    assert (masked.patch_mask.float().mean((1, 2, 3)) - 0.6).abs().max() < 0.5 * 64 / 48**2


@pytest.mark.parametrize("term", TERMS)
def test_only_terms_on_features_make_a_view_at_their_resolution(view: Callable[..., MaskedView], term: str) -> None:
    masked = view(**{**NO_TERMS, **TERMS[term]})
    assert (masked.position_classes is None) == (masked.feature_mask is None) == (term == "semantic")


def test_masks_can_leave_the_labelled_images_out(view: Callable[..., MaskedView]) -> None:
    both, unlabeled = view(), view(masking=masks(images="unlabeled"))
    assert torch.equal(unlabeled.images, both.images[3:])
    assert torch.equal(unlabeled.class_map, both.class_map[3:])
    assert unlabeled.patch_mask.shape == (2, 1, 48, 48)


def test_confidence_weighting_uses_every_valid_pseudo_label(
    batch: Batch, task: Task, context: StepContext, teacher: torch.nn.Module
) -> None:
    weighting = semantics(unlabeled_weighting="confidence", pixels="masked")
    method = S4MIM(config(class_map_threshold=0.99, semantic=weighting), task)
    masked = masked_view(method, batch, context, teacher)
    targets = semantic_targets(method, batch, context, teacher)
    assert batch.unlabeled_valid is not None
    assert torch.equal(targets.labels[3:] != 255, batch.unlabeled_valid)
    assert (masked.class_map[3:] == 255).all()
    assert torch.equal(targets.weights > 0, masked.patch_mask[:, 0])
    assert set(targets.weights[:3].unique().tolist()) == {0, 1}
    assert 0 < targets.weights[3:].max() < 1


def test_masks_do_not_depend_on_other_terms_and_change_with_the_step(
    view: Callable[..., MaskedView], batch: Batch, task: Task, context: StepContext, teacher: torch.nn.Module
) -> None:
    assert torch.equal(view().patch_mask, view(consistency_weight=0, class_map_threshold=0.9).patch_mask)
    later = masked_view(S4MIM(config(), task), batch, replace(context, step=4), teacher)
    assert not torch.equal(view().patch_mask, later.patch_mask)


@pytest.mark.parametrize("target", ["pixels", "patch_normalized"])
@pytest.mark.parametrize("reduction", ["pixel", "class"])
def test_reconstruction_loss_is_the_formula_by_hand(
    view: Callable[..., MaskedView], task: Task, target: str, reduction: str
) -> None:
    fields = {"reconstruction": ReconstructionConfig(target=target, reduction=reduction)}  # type: ignore[arg-type]
    masked, patch = view(**fields), 8
    found = torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    errors: dict[int, list[float]] = {}
    for b, i, j in masked.patch_mask[:, 0].nonzero().tolist():
        label = int(masked.class_map[b, i, j])
        if label == 255 or label != int(masked.position_classes[b, i // 4, j // 4]):
            continue
        clean = masked.images[b, :, i, j]
        if target == "patch_normalized":
            top, left = i // patch * patch, j // patch * patch
            place = (slice(top, top + patch), slice(left, left + patch))
            cell = masked.images[b][:, *place][:, masked.class_map[b][place] != 255]
            clean = (clean - cell.mean()) / (cell.var(correction=0) + 1e-6).sqrt()
        errors.setdefault(label, []).append(float((found[b, :, i, j] - clean).abs().mean()))
    groups = list(errors.values()) if reduction == "class" else [[e for group in errors.values() for e in group]]
    expected = sum(sum(group) / len(group) for group in groups) / len(groups)
    value = S4MIM(config(**fields), task).reconstruction_value(found, masked)
    assert len(errors) > 1
    assert value.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("target", ["pixels", "patch_normalized"])
@pytest.mark.parametrize("regions", ["class", "image"])
def test_unknown_pixels_are_no_target_and_move_none(
    view: Callable[..., MaskedView], task: Task, target: str, regions: str
) -> None:
    method = S4MIM(config(reconstruction=ReconstructionConfig(target=target, regions=regions)), task)  # type: ignore[arg-type]
    masked = view()
    unknown = (masked.class_map == 255).unsqueeze(1)
    assert unknown.any()
    found = torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    value = method.reconstruction_value(found, masked)
    other = masked._replace(images=torch.where(unknown, 9 - 5 * masked.images, masked.images))
    assert method.reconstruction_value(found, other) == value


@pytest.mark.parametrize("view_to_mask", ["weak", "strong", "own"])
def test_no_teacher_is_run_where_nothing_reads_its_labels(
    build_student: StudentBuilder, refuse: torch.nn.Module, batch: Batch, task: Task, context: StepContext,
    view_to_mask: str,
) -> None:  # fmt: skip
    semantic = SemanticConfig(labels_from="consistency")
    fields = {**NO_TERMS, "semantic": semantic, "pseudo_labels_from": "student", "masking": masks(view=view_to_mask)}
    method = S4MIM(config(**fields), task)
    losses = method.losses(build_student(method), refuse, batch, context)
    assert losses.terms["semantic"].value > 0
    assert "known_share" not in losses.metrics
    readers: list[dict[str, Any]] = [
        TERMS["reconstruction"],
        TERMS["aggregation"],
        {"semantic": replace(semantic, labels_from="teacher")},
        {"pseudo_labels_from": "teacher"},
        {"masking": masks(view=view_to_mask, strategy="class_balanced")},
        {"consistency_weight": 0},
    ]
    for fields_that_read in readers:
        reader = S4MIM(config(**{**fields, **fields_that_read}), task)
        with pytest.raises(AssertionError, match="the teacher was run"):
            reader.losses(build_student(reader), refuse, batch, context)


def test_the_student_sees_masked_pixels_through_the_mask_only(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    """L_sem by hand: mask the pixels here, run the segmenter, average the cross-entropy of known pixels."""
    method = S4MIM(config(**{**NO_TERMS, **TERMS["semantic"]}), task)
    student = build_student(method)
    torch.nn.init.constant_(student.pixel_token, 0.3)  # type: ignore[arg-type]
    masked = masked_view(method, batch, context, teacher)
    hidden = torch.where(masked.patch_mask, 0.3, masked.images)
    logits = student.segmenter(hidden).logits  # type: ignore[operator]
    expected = torch.nn.functional.cross_entropy(logits, masked.class_map, ignore_index=255)
    found = method.losses(student, teacher, batch, context).terms["semantic"]
    torch.testing.assert_close(found.value, expected, atol=1e-5, rtol=1e-4)


def test_basic_masked_image_modelling_differs_in_regions_only(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    values = {}
    for regions in ("class", "image"):
        method = S4MIM(config(reconstruction=ReconstructionConfig(regions=regions)), task)  # type: ignore[arg-type]
        student = build_student(method)
        values[regions] = method.losses(student, teacher, batch, context).terms
        masked = masked_view(method, batch, context, teacher)
        regions_seen = torch.zeros_like(masked.position_classes) if regions == "image" else masked.position_classes
        output = student(masked.images, masked.patch_mask, masked.feature_mask, regions_seen)
        expected = method.reconstruction_value(output.reconstruction, masked)
        torch.testing.assert_close(values[regions]["reconstruction"].value, expected, atol=1e-5, rtol=1e-4)
    assert values["class"]["reconstruction"].value != values["image"]["reconstruction"].value
    assert values["class"]["semantic"].value == values["image"]["semantic"].value


def test_nothing_known_contributes_exactly_nothing(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = S4MIM(config(class_map_threshold=1.0), task)
    student = build_student(method, mim_projection_channels=10)
    unknown = replace(batch, labels=torch.full_like(batch.labels, 255))
    losses = method.losses(student, teacher, unknown, context)
    names = ("supervised", "reconstruction", "aggregation", "semantic")
    assert [losses.terms[name].value.item() for name in names] == [0, 0, 0, 0]
    torch.stack([losses.terms[name].value for name in names]).sum().backward()
    for parameter in student.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.zeros_like(parameter.grad))
    assert losses.metrics["known_share"].item() == 0


def test_masked_images_leave_the_running_statistics_alone(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    buffers = []
    for fields in ({}, NO_TERMS, {"normalization": {"statistics": "together"}}):
        method = S4MIM(config(**fields), task)
        student = build_student(method)
        method.losses(student, teacher, batch, context)
        buffers.append({name: buffer for name, buffer in student.named_buffers() if "running" in name})
    with_masks, without_masks, together = buffers
    for name, buffer in with_masks.items():
        torch.testing.assert_close(buffer, without_masks[name], atol=1e-5, rtol=1e-4)
    assert any(not torch.allclose(buffer, together[name], rtol=1e-2) for name, buffer in with_masks.items())


def test_labelled_pixels_count_fully_whatever_the_teacher_says(task: Task, context: StepContext) -> None:
    method = S4MIM(config(semantic=semantics(unlabeled_weighting="confidence")), task)
    images, labels = torch.zeros(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.int64)
    pseudo = PseudoLabels(labels * 2, torch.full((1, 16, 16), 0.2), torch.ones(1, 16, 16, dtype=torch.bool))
    masked = method.masked_view(images, labels, images, pseudo, context)
    targets = method.semantic_targets(labels, pseudo, masked.patch_mask)
    assert targets.weights[0].unique().tolist() == [1]
    assert targets.weights[1].unique().tolist() == pytest.approx([0.2])
    assert targets.labels[1].unique().tolist() == [2]
    assert masked.class_map[1].unique().tolist() == [255]


@pytest.mark.parametrize(
    ("fields", "model", "sentence"),
    [
        (
            {"masking": masks(patch_size=96)},
            (4, 16, 96),
            r"patch_size is 96, not smaller than the crop",
        ),
        ({}, (16, 64, 96), r"patch_size is 8, smaller than one position of the features \(16 pixels\)"),
        ({"masking": masks(patch_size=40)}, (4, 16, 96), r"reaches 16 pixels .* less than half of .* 40"),
        ({"masking": masks()}, (4, 0, 96), r"reaches 0 pixels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    task: Task, fields: dict[str, Any], model: tuple[int, int, int], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        S4MIM(config(**fields), task).validate(*model)
    S4MIM(config(**fields, **NO_TERMS), task).validate(*model)
    S4MIM(config(masking=masks(patch_size=32)), task).validate(4, 16, 96)  # reaches just half a patch
    S4MIM(config(masking=masks(patch_size=64)), task).validate(4, None, 96)  # sees the whole image


def test_a_projection_that_only_aggregation_trains_is_warned_of(task: Task) -> None:
    alone = S4MIM(config(**{**NO_TERMS, **TERMS["aggregation"]}), task)
    assert "can collapse" in alone.warnings(64)[0]
    assert alone.warnings(None) == []
    assert S4MIM(config(), task).warnings(64) == []


def test_masked_features_are_what_the_decoder_does_not_see(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = S4MIM(config(), task)
    student = build_student(method, masked_features="token")
    torch.nn.init.constant_(student.mim_decoder.feature_token, 2.0)  # type: ignore[union-attr, arg-type]
    masked = masked_view(method, batch, context, teacher)
    found = method.losses(student, teacher, batch, context).terms["reconstruction"].value
    hidden = torch.nn.functional.avg_pool2d(masked.patch_mask.float(), 4) == 1  # patches are two positions wide
    output = student(masked.images, masked.patch_mask, hidden, masked.position_classes)
    torch.testing.assert_close(found, method.reconstruction_value(output.reconstruction, masked), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("regions", ["class", "image"])
def test_a_step_counts_only_what_attention_covers(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    regions: str,
) -> None:
    method = S4MIM(config(reconstruction=ReconstructionConfig(regions=regions)), task)  # type: ignore[arg-type]
    student = build_student(method, mim_decoder_type="attention", mim_attention_stride=16, mim_num_heads=2)
    masked = masked_view(method, batch, context, teacher)
    found = method.losses(student, teacher, batch, context).terms["reconstruction"].value
    rows = (masked.patch_mask, masked.feature_mask, masked.position_classes, regions == "image")
    output = student(masked.images, *rows)
    covered = method.reconstruction_value(output.reconstruction, masked, output.reconstructed)
    torch.testing.assert_close(found, covered, atol=1e-5, rtol=1e-4)
    assert not torch.isclose(found, method.reconstruction_value(output.reconstruction, masked), rtol=1e-3)
