from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig
from s4mim_hf.errors import InputError
from s4mim_hf.losses import consistency_loss
from s4mim_hf.methods import FixMatchConfig, StepContext, SupervisedConfig, Task, build_method
from s4mim_hf.methods.fixmatch import FixMatch
from s4mim_hf.methods.student_views import Views

StudentBuilder = Callable[..., torch.nn.Module]
Train = Callable[..., tuple[list[float], dict[str, Tensor]]]

ONLY_CUTMIX = StrongViewConfig(jitter_probability=0, grayscale_probability=0, blur_probability=0, cutmix_probability=1)


class PerPixel(torch.nn.Module):
    """A segmenter that looks at one pixel at a time: what it says of a mixed image is the mixture of what it says."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, num_labels, 1)

    def forward(self, pixel_values: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=4 * self.layer(pixel_values), features=None, reconstruction=None)


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
    torch.manual_seed(0)
    model = PerPixel(task.num_labels)
    method = FixMatch(FixMatchConfig(strong=ONLY_CUTMIX), task)
    weak, valid = method.unlabeled(batch)
    pseudo = method.pseudo_labels(model, method.normalize(weak), valid)
    views = Views(method.config.normalization)
    mixed = method.add_strong_view(views, batch, pseudo, context)
    probabilities = views.forward(model).logits["strong"].softmax(1)
    assert not torch.equal(mixed.labels, pseudo.labels)
    assert torch.equal(mixed.labels, probabilities.argmax(1))
    torch.testing.assert_close(mixed.confidence, probabilities.amax(1))
    # The padding of the second image moved into the first one's box, and out of the second's.
    moved = mixed.valid != valid
    assert moved.any()
    assert torch.equal(mixed.valid.sum((1, 2)) + moved.sum((1, 2)) * torch.tensor([1, -1]), valid.sum((1, 2)))


def test_consistency_is_the_formula_on_the_mixed_view(batch: Batch, task: Task, context: StepContext) -> None:
    torch.manual_seed(0)
    model = PerPixel(task.num_labels)
    config = FixMatchConfig(strong=ONLY_CUTMIX, threshold=0.6, consistency_weight=2, consistency_warmup_steps=6)
    losses = build_method(config, task).losses(model, model, batch, context)
    method = FixMatch(config, task)
    weak, valid = method.unlabeled(batch)
    pseudo = method.pseudo_labels(model, method.normalize(weak), valid)
    views = Views(config.normalization)
    mixed = method.add_strong_view(views, batch, pseudo, context)
    expected = consistency_loss(views.forward(model).logits["strong"], mixed.labels, mixed.confidence, mixed.valid, 0.6)
    assert losses.terms["consistency"].weight == 1.0
    torch.testing.assert_close(losses.terms["consistency"].value, expected)
    confident = ((pseudo.confidence >= 0.6) & valid).sum() / valid.sum()
    assert losses.metrics["confident_share"].item() == confident.item()


def test_padding_teaches_nothing(batch: Batch, task: Task, context: StepContext) -> None:
    torch.manual_seed(0)
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
