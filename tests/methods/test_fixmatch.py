from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from per_pixel import ONLY_CUTMIX, PerPixel
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.errors import InputError
from s4mim_hf.methods import FixMatchConfig, StepContext, SupervisedConfig, Task, build_method
from s4mim_hf.methods.fixmatch import FixMatch
from s4mim_hf.methods.unlabeled import PseudoLabels, unlabeled_images

StudentBuilder = Callable[..., torch.nn.Module]
Train = Callable[..., tuple[list[float], dict[str, Tensor]]]


def test_without_consistency_it_is_supervised_training_bit_for_bit(
    train: Train, refuse: torch.nn.Module, task: Task
) -> None:
    without = FixMatchConfig(consistency_weight=0)
    supervised_losses, supervised = train(SupervisedConfig(), refuse)
    losses, state = train(without, refuse)
    assert losses == supervised_losses
    assert state.keys() == supervised.keys()
    assert all(torch.equal(state[key], supervised[key]) for key in state)
    assert not build_method(without, task).needs_unlabeled


def test_pseudo_labels_are_mixed_as_the_images_are(batch: Batch, task: Task, context: StepContext) -> None:
    model = PerPixel(task.num_labels)
    method = FixMatch(FixMatchConfig(strong=ONLY_CUTMIX), task)
    weak, valid = unlabeled_images(batch, "fixmatch")
    pseudo = method.pseudo_labels(model, method.normalize(weak), valid)
    view = method.strong_view(weak, context)
    mixed, probabilities = pseudo.mixed(view.box), model(view.images).logits.softmax(1)
    assert not torch.equal(mixed.labels, pseudo.labels)
    assert torch.equal(mixed.labels, probabilities.argmax(1))
    torch.testing.assert_close(mixed.confidence, probabilities.amax(1))
    # The padding of the second image moved into the first one's box, and out of the second's.
    moved = mixed.valid != valid
    assert moved.any()
    assert torch.equal(mixed.valid.sum((1, 2)) + moved.sum((1, 2)) * torch.tensor([1, -1]), valid.sum((1, 2)))


def loop_consistency(logits: Tensor, pseudo: PseudoLabels, threshold: float) -> float:
    """L_con pixel by pixel in float64."""
    total = 0.0
    for b, i, j in pseudo.valid.nonzero().tolist():
        if pseudo.confidence[b, i, j] >= threshold:
            scores = logits[b, :, i, j].detach().double()
            total += float(scores.logsumexp(0) - scores[pseudo.labels[b, i, j]])
    return total / int(pseudo.valid.sum())


@pytest.mark.parametrize("strong_views", [1, 2, 3])
def test_consistency_is_the_mean_of_the_formula_over_strong_views(
    batch: Batch, task: Task, context: StepContext, strong_views: int
) -> None:
    model = PerPixel(task.num_labels)
    config = FixMatchConfig(
        strong=ONLY_CUTMIX,
        threshold=0.6,
        consistency_weight=2,
        consistency_warmup_steps=6,
        strong_views=strong_views,
    )
    method = FixMatch(config, task)
    losses = method.losses(model, model, batch, context)
    weak, valid = unlabeled_images(batch, "fixmatch")
    pseudo = method.pseudo_labels(model, method.normalize(weak), valid)
    views = [method.strong_view(weak, context, number) for number in range(strong_views)]
    values = [loop_consistency(model(view.images).logits, pseudo.mixed(view.box), 0.6) for view in views]
    assert len(set(values)) == strong_views
    assert losses.terms["consistency"].weight == 1.0
    assert losses.terms["consistency"].value.item() == pytest.approx(sum(values) / strong_views, rel=1e-5)
    confident = ((pseudo.confidence >= 0.6) & valid).sum() / valid.sum()
    assert losses.metrics["confident_share"].item() == confident.item()


def test_padding_teaches_nothing(batch: Batch, task: Task, context: StepContext) -> None:
    model = PerPixel(task.num_labels)
    assert batch.unlabeled_valid is not None
    nowhere = replace(batch, unlabeled_valid=torch.zeros_like(batch.unlabeled_valid))
    losses = build_method(FixMatchConfig(threshold=0), task).losses(model, model, nowhere, context)
    assert losses.terms["consistency"].value.item() == 0
    assert losses.metrics["confident_share"].item() == 0


def test_the_teacher_gets_no_gradient_and_the_student_does(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = build_method(FixMatchConfig(threshold=0.2), task)
    student = build_student(method)
    losses = method.losses(student, teacher, batch, context)
    losses.terms["consistency"].value.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in student.parameters())


def test_randomness_is_that_of_the_place_in_the_run(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = build_method(FixMatchConfig(threshold=0.2), task)
    student = build_student(method)

    def value(where: StepContext) -> float:
        return method.losses(student, teacher, batch, where).terms["consistency"].value.item()

    assert value(context) == value(context)
    assert len({value(context), value(replace(context, step=4)), value(replace(context, micro_step=1))}) == 3


def test_missing_unlabelled_images_are_one_sentence(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = build_method(FixMatchConfig(), task)
    labeled_only = Batch(batch.labeled_images, batch.labels)
    with pytest.raises(InputError, match=r"'fixmatch' needs unlabelled images .* method.name=supervised"):
        method.losses(build_student(method), teacher, labeled_only, context)
