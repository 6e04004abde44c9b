"""What is masked: the weak or the strong view, patches at random or class by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from per_pixel import ONLY_CUTMIX
from s4mim_cases import NO_TERMS, TERMS, config, masked_view, masks, semantics
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.methods import StepContext, Task
from s4mim_hf.methods.masked_view import MaskedView, SemanticTargets
from s4mim_hf.methods.s4mim import S4MIM
from s4mim_hf.methods.unlabeled import PseudoLabels

StudentBuilder = Callable[..., torch.nn.Module]


class Spy(S4MIM):
    """S4MIM that keeps its last masked view, and what that had to predict."""

    masked: MaskedView
    targets: SemanticTargets

    def masked_view(self, *arguments: Any, **named: Any) -> MaskedView:
        self.masked = super().masked_view(*arguments, **named)
        return self.masked

    def semantic_targets(self, *arguments: Any, **named: Any) -> SemanticTargets:
        self.targets = super().semantic_targets(*arguments, **named)
        return self.targets


def spy(task: Task, **fields: Any) -> Spy:
    return Spy(config(strong=ONLY_CUTMIX, **fields), task)


@pytest.mark.parametrize("consistency_weight", [0.0, 1.0])
def test_the_strong_view_is_masked_with_its_mixed_images_and_labels(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    consistency_weight: float,
) -> None:
    fields: dict[str, Any] = {"consistency_weight": consistency_weight}
    weak, strong = (
        spy(task, masking=masks(view=view), **fields)
        for view in ("weak", "strong")  # type: ignore[arg-type]
    )
    results = [method.losses(build_student(method), teacher, batch, context) for method in (weak, strong)]
    assert batch.unlabeled_images is not None
    box = strong.strong_view(batch.unlabeled_images, context).box
    assert box.flatten(1).any(1).all()
    partner = torch.tensor([1, 0])

    def mixed(values: Tensor) -> Tensor:
        """Mix the two unlabelled rows; the three labelled ones stay."""
        inside = box if values.ndim == 4 else box[:, 0]
        return torch.cat([values[:3], torch.where(inside, values[3:][partner], values[3:])])

    # Nothing but CutMix is on, so the strong images are the weak ones, cut and mixed.
    torch.testing.assert_close(strong.masked.images, mixed(weak.masked.images))
    assert torch.equal(strong.masked.class_map, mixed(weak.masked.class_map))
    assert torch.equal(strong.targets.labels, mixed(weak.targets.labels))
    assert not torch.equal(strong.masked.class_map, weak.masked.class_map)
    # The same patches, the same base: only what is masked differs.
    assert torch.equal(strong.masked.patch_mask, weak.masked.patch_mask)
    for name in ("supervised", *(["consistency"] if consistency_weight else [])):
        ours, theirs = (result.terms[name].value for result in results)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert results[0].terms["reconstruction"].value != results[1].terms["reconstruction"].value
    assert strong.views == (("labeled", "strong", "masked") if consistency_weight else ("labeled", "masked"))


@pytest.mark.parametrize("strong_views", [1, 2, 3])
def test_an_own_view_is_none_of_the_consistencys(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    strong_views: int,
) -> None:
    fields: dict[str, Any] = {"strong_views": strong_views}
    own, shared = spy(task, masking=masks(view="own"), **fields), spy(task, masking=masks(view="strong"), **fields)
    results = [method.losses(build_student(method), teacher, batch, context) for method in (own, shared)]
    assert batch.unlabeled_images is not None
    views = [own.strong_view(batch.unlabeled_images, context, number) for number in range(4)]
    number = max(2, strong_views)
    # The three labelled rows first; the labels are cut and mixed as the images are.
    assert torch.equal(own.masked.images[3:], views[number].images)
    assert torch.equal(shared.masked.images[3:], views[0].images)
    assert not any(torch.equal(own.masked.images[3:], view.images) for view in views[:strong_views])
    plain = spy(task, masking=masks(view="weak"), **fields)
    plain.losses(build_student(plain), teacher, batch, context)
    classes = plain.masked.class_map[3:]
    assert torch.equal(own.masked.class_map[3:], torch.where(views[number].box[:, 0], classes.flip(0), classes))
    # The base does not notice.
    for name in ("supervised", "consistency"):
        ours, theirs = (result.terms[name].value for result in results)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("by", ["teacher", "student"])
@pytest.mark.parametrize("consistency_weight", [0.0, 1.0])
def test_the_masked_view_predicts_the_consistencys_labels_where_asked(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    by: Literal["teacher", "student"],
    consistency_weight: float,
) -> None:
    """The student's own of its weak view, cut and mixed as the masked images are; the class map stays the teacher's."""
    weighting = semantics(unlabeled_weighting="confidence", labels_from="consistency")
    fields: dict[str, Any] = {"consistency_weight": consistency_weight, "pseudo_labels_from": by}
    method = spy(task, masking=masks(view="own"), semantic=weighting, **fields)
    student = build_student(method)
    method.losses(student, teacher, batch, context)
    assert batch.unlabeled_images is not None
    assert batch.unlabeled_valid is not None
    unlabeled = method.normalize(batch.unlabeled_images)
    # Without a consistency there are no labels of the student's: its weak view is not seen.
    labeller = build_student(method) if by == "student" and consistency_weight else teacher
    confidence, labels = labeller(unlabeled).logits.softmax(1).max(1)
    box = method.strong_view(batch.unlabeled_images, context, 2).box[:, 0]
    expected = torch.where(batch.unlabeled_valid, labels, 255)
    assert torch.equal(method.targets.labels[3:], torch.where(box, expected.flip(0), expected))
    torch.testing.assert_close(method.targets.weights[3:], torch.where(box, confidence.flip(0), confidence))
    probabilities = teacher(unlabeled).logits.softmax(1)
    known = torch.where((probabilities.amax(1) >= 0.25) & batch.unlabeled_valid, probabilities.argmax(1), 255)
    assert torch.equal(method.masked.class_map[3:], torch.where(box, known.flip(0), known))


def test_confidence_weights_are_mixed_as_well(task: Task, batch: Batch, context: StepContext) -> None:
    method = spy(task, masking=masks(view="strong"))
    assert batch.unlabeled_images is not None
    box = method.strong_view(batch.unlabeled_images, context).box
    confidence = torch.rand(2, 48, 48, generator=torch.Generator().manual_seed(0))
    pseudo = PseudoLabels(torch.zeros(2, 48, 48, dtype=torch.int64), confidence, confidence > 0.1)
    found = pseudo.mixed(box)
    assert torch.equal(found.confidence, torch.where(box[:, 0], confidence.flip(0), confidence))
    assert torch.equal(found.valid, torch.where(box[:, 0], (confidence > 0.1).flip(0), confidence > 0.1))


@pytest.mark.parametrize("strategy", ["random", "class_balanced"])
def test_class_balanced_masks_leave_each_class_visible_and_masked_patches(
    task: Task, batch: Batch, context: StepContext, teacher: torch.nn.Module, strategy: Literal["random"]
) -> None:
    """Counted patch by patch from the class map; random masks would not pass."""
    masking = masks(ratio=0.5, strategy=strategy)
    found = masked_view(S4MIM(config(masking=masking), task), batch, context, teacher)
    as_asked = []
    for image in range(5):
        patches: dict[int, list[bool]] = {}
        for top in range(0, 48, 8):
            for left in range(0, 48, 8):
                cell = found.class_map[image, top : top + 8, left : left + 8].flatten().tolist()
                known = [label for label in cell if label != 255]
                label = max(sorted(set(known)), key=known.count) if known else 255
                mask = found.patch_mask[image, 0, top : top + 8, left : left + 8]
                assert mask.all() or not mask.any()
                patches.setdefault(label, []).append(bool(mask.all()))
        as_asked += [sum(masks) in (len(masks) // 2, -(-len(masks) // 2)) for masks in patches.values() if masks[1:]]
    assert len(as_asked) > 10
    assert all(as_asked) == (strategy == "class_balanced")


def test_class_balanced_masks_repeat_and_change_with_the_step(
    task: Task, batch: Batch, context: StepContext, teacher: torch.nn.Module
) -> None:
    method = S4MIM(config(masking=masks(strategy="class_balanced")), task)
    later = StepContext(step=4, max_steps=12, micro_step=0, seed=11, rank=0, device=torch.device("cpu"))
    drawn = [masked_view(method, batch, where, teacher).patch_mask for where in (context, context, later)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("term", TERMS)
def test_every_term_trains_with_either_option(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext, term: str
) -> None:
    masking = masks(view="strong", strategy="class_balanced")
    method = S4MIM(config(**{**NO_TERMS, **TERMS[term]}, masking=masking, consistency_weight=0), task)
    student = build_student(method)
    losses = method.losses(student, teacher, batch, context)
    losses.total().backward()
    assert list(losses.terms) == ["supervised", term]
    assert losses.terms[term].value.item() > 0
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_positions_that_were_not_reconstructed_do_not_count(
    task: Task, batch: Batch, context: StepContext, teacher: torch.nn.Module
) -> None:
    method = S4MIM(config(), task)
    masked = masked_view(method, batch, context, teacher)
    found = torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    covered = torch.rand(5, 12, 12, generator=torch.Generator().manual_seed(4)) < 0.5
    value = method.reconstruction_value(found, masked, covered)
    disturbed = torch.where(covered.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1), found, found + 9)
    assert torch.equal(value, method.reconstruction_value(disturbed, masked, covered))
    assert value != method.reconstruction_value(found, masked)
    everywhere = torch.ones_like(covered)
    assert torch.equal(
        method.reconstruction_value(found, masked, everywhere), method.reconstruction_value(found, masked)
    )
