from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from per_pixel import ONLY_CUTMIX, PerPixel
from pydantic import TypeAdapter
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig
from s4mim_hf.methods import MeanTeacherConfig, StepContext, SupervisedConfig, Task, build_method
from s4mim_hf.methods.mean_teacher import UncutStrongViewConfig
from s4mim_hf.methods.unlabeled import make_strong_view

StudentBuilder = Callable[..., torch.nn.Module]
Train = Callable[..., tuple[list[float], dict[str, Tensor]]]
CUTMIX = UncutStrongViewConfig(jitter_probability=0, grayscale_probability=0, blur_probability=0, cutmix_probability=1)


def test_without_consistency_it_is_supervised_training_bit_for_bit(
    train: Train, refuse: torch.nn.Module, task: Task
) -> None:
    without = MeanTeacherConfig(consistency_weight=0)
    supervised_losses, supervised = train(SupervisedConfig(), refuse)
    losses, state = train(without, refuse)
    assert losses == supervised_losses
    assert all(torch.equal(state[key], supervised[key]) for key in supervised)
    method = build_method(without, task)
    assert not method.needs_unlabeled
    assert method.views == ("labeled",)


@pytest.mark.parametrize("strong", [UncutStrongViewConfig(), CUTMIX])
def test_consistency_is_the_squared_difference_of_probabilities_by_hand(
    batch: Batch, task: Task, context: StepContext, strong: UncutStrongViewConfig
) -> None:
    student, teacher = PerPixel(task.num_labels), PerPixel(task.num_labels)
    torch.nn.init.normal_(teacher.layer.weight, generator=torch.Generator().manual_seed(1))
    config = MeanTeacherConfig(strong=strong, consistency_weight=3, consistency_warmup_steps=6)
    method = build_method(config, task)
    losses = method.losses(student, teacher, batch, context)
    assert list(losses.terms) == ["supervised", "consistency"]
    assert batch.unlabeled_images is not None
    assert batch.unlabeled_valid is not None
    view = make_strong_view(batch.unlabeled_images, strong, context)
    found = student(method.normalize(view.images)).logits.detach().double().softmax(1)
    target = teacher(method.normalize(batch.unlabeled_images)).logits.detach().double().softmax(1)
    total, count = 0.0, 0
    for b, i, j in torch.ones_like(batch.unlabeled_valid).nonzero().tolist():
        source = 1 - b if view.box[b, 0, i, j] else b
        if batch.unlabeled_valid[source, i, j]:
            total += float((found[b, :, i, j] - target[source, :, i, j]).square().sum())
            count += 1
    assert bool(view.box.any()) == (strong is CUTMIX)
    assert losses.terms["consistency"].value.item() == pytest.approx(total / count, rel=1e-5)
    assert losses.terms["consistency"].weight == 1.5  # step 3 of 6


def test_a_student_that_agrees_with_its_teacher_has_no_consistency_to_gain(
    batch: Batch, task: Task, context: StepContext
) -> None:
    model = PerPixel(task.num_labels)
    method = build_method(MeanTeacherConfig(strong=CUTMIX), task)
    assert method.losses(model, model, batch, context).terms["consistency"].value.item() == pytest.approx(0, abs=1e-12)


def test_padding_teaches_nothing(batch: Batch, task: Task, context: StepContext) -> None:
    model = PerPixel(task.num_labels)
    assert batch.unlabeled_valid is not None
    nowhere = replace(batch, unlabeled_valid=torch.zeros_like(batch.unlabeled_valid))
    losses = build_method(MeanTeacherConfig(), task).losses(model, model, nowhere, context)
    assert losses.terms["consistency"].value.item() == 0


def test_the_teacher_gets_no_gradient_and_the_student_does(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = build_method(MeanTeacherConfig(), task)
    student = build_student(method)
    method.losses(student, teacher, batch, context).terms["consistency"].value.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in student.parameters())


def test_cutmix_stays_off_when_something_else_of_the_augmentation_is_set() -> None:
    config = TypeAdapter(MeanTeacherConfig).validate_python({"strong": {"hue": 0.1}})
    assert config.strong.hue == 0.1
    assert config.strong.cutmix_probability == 0
    assert StrongViewConfig().cutmix_probability == 0.5
    assert ONLY_CUTMIX.cutmix_probability == 1
