"""S4MIM's terms on UniMatch's base, by config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from s4mim_cases import NO_TERMS, TERMS, config
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.methods import StepContext, Task, UniMatchConfig
from s4mim_hf.methods.s4mim import S4MIM

StudentBuilder = Callable[..., torch.nn.Module]
Train = Callable[..., tuple[list[float], dict[str, Tensor]]]
BASE: dict[str, Any] = {
    "strong_views": 2,
    "feature_weight": 0.25,
    "supervised_weight": 0.5,
    "consistency_weight": 0.25,
}


@pytest.mark.parametrize("source", ["teacher", "student"])
def test_without_masked_terms_it_is_unimatch_bit_for_bit(
    train: Train, teacher: torch.nn.Module, source: str, task: Task
) -> None:
    base_losses, base = train(UniMatchConfig(threshold=0.207, pseudo_labels_from=source), teacher)  # type: ignore[arg-type]
    ours = config(**BASE, **NO_TERMS, threshold=0.207, pseudo_labels_from=source)
    losses, state = train(ours, teacher)
    assert losses == base_losses
    assert state.keys() == base.keys()
    assert all(torch.equal(state[key], base[key]) for key in state)
    S4MIM(ours, task).validate(4, 16, 96)


@pytest.mark.parametrize("source", ["teacher", "student"])
def test_all_terms_stand_together_and_leave_the_base_s_as_they_were(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    source: str,
) -> None:
    options = {**BASE, "pseudo_labels_from": source}
    method, base = S4MIM(config(**options), task), S4MIM(config(**options, **NO_TERMS), task)
    student = build_student(method, mim_projection_channels=10, masked_features="token")
    losses = method.losses(student, teacher, batch, context)
    base_losses = base.losses(build_student(base), teacher, batch, context)
    assert list(losses.terms) == ["supervised", "consistency", "feature_consistency", *TERMS]
    for name, term in base_losses.terms.items():
        assert losses.terms[name].weight == term.weight
        torch.testing.assert_close(losses.terms[name].value, term.value, atol=1e-5, rtol=1e-4)
    losses.total().backward()
    assert [name for name, parameter in student.named_parameters() if parameter.grad is None] == []


def test_class_maps_are_the_teacher_s_where_the_base_s_labels_are_the_student_s(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    found = {}
    for source in ("teacher", "student"):
        method = S4MIM(config(**BASE, pseudo_labels_from=source), task)
        found[source] = method.losses(build_student(method), teacher, batch, context)
    by_teacher, by_student = found["teacher"], found["student"]
    assert by_student.metrics["known_share"] == by_teacher.metrics["known_share"] > 0
    for name in TERMS:
        torch.testing.assert_close(by_student.terms[name].value, by_teacher.terms[name].value, atol=1e-5, rtol=1e-4)
    for name in ("consistency", "feature_consistency"):
        assert not torch.isclose(by_student.terms[name].value, by_teacher.terms[name].value, rtol=1e-3)


def test_no_weak_view_is_made_for_labels_that_nothing_reads(task: Task) -> None:
    options = {**BASE, "consistency_weight": 0.0, "feature_weight": 0.0, "pseudo_labels_from": "student"}
    assert S4MIM(config(**options), task).views == ("labeled", "masked")
    assert S4MIM(config(**options, **NO_TERMS), task).views == ("labeled",)
