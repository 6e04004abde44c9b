from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from per_pixel import ONLY_CUTMIX
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.methods import FixMatchConfig, Losses, StepContext, Task, UniMatchConfig, build_method
from s4mim_hf.methods.unimatch import UniMatch
from s4mim_hf.modeling.modeling_s4mim import S4MIMForSemiSupervisedSegmentation

StudentBuilder = Callable[..., S4MIMForSemiSupervisedSegmentation]
Train = Callable[..., tuple[list[float], dict[str, Tensor]]]


def opinionated(student: S4MIMForSemiSupervisedSegmentation) -> S4MIMForSemiSupervisedSegmentation:
    """Spread the confidences of an untrained student over (0.2, 1), so that a threshold has two sides."""
    with torch.no_grad():
        student.segmenter.decode_head.classifier.weight.mul_(40)
    return student


def gradients(student: torch.nn.Module, losses: Losses) -> dict[str, Tensor]:
    student.zero_grad()
    losses.total().backward()
    return {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}


def loop_loss(logits: Tensor, labels: Tensor, counts: Tensor, valid: Tensor) -> float:
    """Return the sum of cross-entropies where `counts`, over the number of valid pixels, in float64."""
    total = 0.0
    for b, i, j in counts.nonzero().tolist():
        scores = logits[b, :, i, j].detach().double()
        total += float(scores.logsumexp(0) - scores[int(labels[b, i, j])])
    return total / int(valid.sum())


def test_the_total_is_the_published_one_by_hand(
    build_student: StudentBuilder, refuse: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    """(L_sup + 0.25 L_s1 + 0.25 L_s2 + 0.5 L_fp) / 2, from separate passes of the student and its parts."""
    method = UniMatch(UniMatchConfig(threshold=0.6), task)
    student = opinionated(build_student(method))
    found = method.losses(student, refuse, batch, context)

    assert batch.unlabeled_images is not None
    assert batch.unlabeled_valid is not None
    valid = batch.unlabeled_valid
    weak = method.normalize(batch.unlabeled_images)
    head = student.segmenter.decode_head
    probabilities = student(weak).logits.detach().softmax(1)
    confidence, labels = probabilities.max(1)
    views = [method.strong_view(batch.unlabeled_images, context, number) for number in (0, 1)]
    strong = student(torch.cat([view.images for view in views])).logits.split(2)
    low_level, last = student.segmenter.backbone(weak)
    draws = context.generator("feature-noise")
    low_level = low_level * 2 * (torch.rand(2, 8, generator=draws) >= 0.5)[:, :, None, None]
    last = last * 2 * (torch.rand(2, 24, generator=draws) >= 0.5)[:, :, None, None]
    coarse = head(head.features(low_level, last))
    perturbed = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)

    assert 0.1 < (confidence >= 0.6).float().mean() < 0.9
    known = batch.labels != 255
    expected = loop_loss(student(method.normalize(batch.labeled_images)).logits, batch.labels, known, known)
    for view, logits in zip(views, strong, strict=True):
        box, partner = view.box[:, 0], torch.tensor([1, 0])  # of two images, each is the other's partner
        mixed = [torch.where(box, values[partner], values) for values in (labels, confidence, valid)]
        expected += 0.25 * loop_loss(logits, mixed[0], (mixed[1] >= 0.6) & mixed[2], mixed[2])
    expected += 0.5 * loop_loss(perturbed, labels, (confidence >= 0.6) & valid, valid)
    assert list(found.terms) == ["supervised", "consistency", "feature_consistency"]
    assert found.total().item() == pytest.approx(expected / 2, rel=1e-4)


def test_its_terms_alone_make_it_another_method_bit_for_bit(train: Train, teacher: torch.nn.Module) -> None:
    fixmatch = train(FixMatchConfig(threshold=0.25), teacher)
    fields: dict[str, Any] = {"supervised_weight": 1.0, "consistency_weight": 1.0, "feature_weight": 0.0}
    reduced = UniMatchConfig(threshold=0.25, strong_views=1, pseudo_labels_from="teacher", **fields)
    losses, state = train(reduced, teacher)
    assert losses == fixmatch[0]
    assert all(torch.equal(state[key], fixmatch[1][key]) for key in fixmatch[1])


def test_the_student_s_labels_carry_no_gradient(
    build_student: StudentBuilder, refuse: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    """Labels from a stranger with the same opinions give the same gradients."""
    by_student, by_teacher = (
        build_method(UniMatchConfig(threshold=0.6, pseudo_labels_from=source), task)
        for source in ("student", "teacher")  # type: ignore[arg-type]
    )
    student = opinionated(build_student(by_student))
    assert batch.unlabeled_images is not None
    opinions = student(by_student.normalize(batch.unlabeled_images)).logits.detach()
    stranger: Any = lambda pixel_values: SimpleNamespace(logits=opinions)  # noqa: E731
    own = gradients(student, by_student.losses(student, refuse, batch, context))
    strange = gradients(student, by_teacher.losses(student, stranger, batch, context))
    assert own.keys() == strange.keys() == {name for name, _ in student.named_parameters()}
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, strange[name], atol=1e-6, rtol=1e-3)


def test_a_second_strong_view_leaves_the_first_as_it_was(batch: Batch, task: Task, context: StepContext) -> None:
    assert batch.unlabeled_images is not None
    one, two = (
        UniMatch(UniMatchConfig(strong_views=count, strong=ONLY_CUTMIX), task).strong_views(
            batch.unlabeled_images, context
        )
        for count in (1, 2)  # type: ignore[arg-type]
    )
    assert (len(one), len(two)) == (1, 2)
    assert torch.equal(one[0].images, two[0].images)
    assert torch.equal(one[0].box, two[0].box)
    assert not torch.equal(two[0].box, two[1].box)


def test_each_view_is_there_only_for_its_term(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    seen = {}
    for name, fields in {
        "published": {},
        "by_teacher": {"pseudo_labels_from": "teacher"},
        "no_features": {"feature_weight": 0.0},
        "no_features_by_teacher": {"feature_weight": 0.0, "pseudo_labels_from": "teacher"},
        "features_only": {"consistency_weight": 0.0},
        "nothing": {"consistency_weight": 0.0, "feature_weight": 0.0},
    }.items():
        method = build_method(UniMatchConfig(**fields), task)  # type: ignore[arg-type]
        student = build_student(method)
        rows: list[int] = []
        student.segmenter.backbone.register_forward_pre_hook(lambda _, inputs, rows=rows: rows.append(len(inputs[0])))
        losses = method.losses(student, teacher, batch, context)
        assert method.needs_unlabeled == (name != "nothing")
        assert len(rows) == 1, "the encoder runs once"
        seen[name] = (method.views, rows[0], list(losses.terms)[1:])
    consistency, features = ["consistency"], ["feature_consistency"]
    assert seen == {
        "published": (("labeled", "weak", "strong", "perturbed"), 3 + 2 + 4, consistency + features),
        "by_teacher": (("labeled", "weak", "strong", "perturbed"), 3 + 2 + 4, consistency + features),
        "no_features": (("labeled", "weak", "strong"), 3 + 2 + 4, consistency),
        "no_features_by_teacher": (("labeled", "strong"), 3 + 4, consistency),
        "features_only": (("labeled", "weak", "perturbed"), 3 + 2, features),
        "nothing": (("labeled",), 3, []),
    }


def test_both_consistencies_warm_up(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = build_method(UniMatchConfig(consistency_weight=1.0, consistency_warmup_steps=6), task)
    terms = method.losses(build_student(method), teacher, batch, context).terms
    weights = {name: term.weight for name, term in terms.items()}
    assert weights == {"supervised": 0.5, "consistency": 0.5, "feature_consistency": 0.125}


def test_the_second_strong_view_and_the_noise_are_those_of_the_place_in_the_run(
    build_student: StudentBuilder, refuse: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> None:
    method = build_method(UniMatchConfig(threshold=0.6), task)
    student = opinionated(build_student(method))

    def value(where: StepContext) -> tuple[float, float]:
        terms = method.losses(student, refuse, batch, where).terms
        return terms["consistency"].value.item(), terms["feature_consistency"].value.item()

    later = StepContext(step=4, max_steps=12, micro_step=0, seed=11, rank=0, device=torch.device("cpu"))
    assert value(context) == value(context)
    assert all(now != then for now, then in zip(value(context), value(later), strict=True))
