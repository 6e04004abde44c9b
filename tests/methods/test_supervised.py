from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from s4mim_hf.data.loaders import Batch
from s4mim_hf.losses import cross_entropy, ohem_cross_entropy
from s4mim_hf.methods import StepContext, SupervisedConfig, Task, build_method

StudentBuilder = Callable[..., torch.nn.Module]


@pytest.mark.parametrize("kind", ["cross_entropy", "ohem"])
def test_the_loss_is_that_of_the_labelled_images(
    build_student: StudentBuilder, refuse: torch.nn.Module, batch: Batch, task: Task, context: StepContext, kind: str
) -> None:
    method = build_method(SupervisedConfig(supervised_loss=kind, ohem_threshold=0.3, ohem_min_kept=0.2), task)  # type: ignore[arg-type]
    student = build_student(method)
    images = batch.labeled_images.float() / 255
    mean, std = torch.tensor(task.image_mean).view(3, 1, 1), torch.tensor(task.image_std).view(3, 1, 1)
    logits = student((images - mean) / std).logits
    losses = method.losses(student, refuse, batch, context)
    expected = (
        cross_entropy(logits, batch.labels.long())
        if kind == "cross_entropy"
        else ohem_cross_entropy(logits, batch.labels.long(), 255, 0.3, 0.2)
    )
    assert list(losses.terms) == ["supervised"]
    torch.testing.assert_close(losses.total(), expected)


def test_its_weight_scales_the_loss(
    build_student: StudentBuilder, refuse: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    whole, half = (build_method(SupervisedConfig(supervised_weight=weight), task) for weight in (1.0, 0.5))
    student = build_student(whole)
    total = whole.losses(student, refuse, batch, context).total()
    assert half.losses(student, refuse, batch, context).total().item() == 0.5 * total.item()


def test_it_asks_for_no_heads_and_no_unlabelled_images(task: Task) -> None:
    method = build_method(SupervisedConfig(), task)
    assert not method.needs_unlabeled
    assert not any(method.model_requirements())
