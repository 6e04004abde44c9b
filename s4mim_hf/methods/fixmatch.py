"""Weak-to-strong consistency: the base that S4MIM and its recent peers build on.

One strong view against the student's own confident labels is FixMatch; by default they are those of a mean teacher. A
second strong view and perturbed features, each by config, are UniMatch's additions. Any of these can be the base of
S4MIM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig
from s4mim_hf.losses import consistency_loss
from s4mim_hf.methods.base import Losses, StepContext, Task, Teacher, Term, ViewName, ramped
from s4mim_hf.methods.student_views import StudentOutput, Views
from s4mim_hf.methods.supervised import Supervised, SupervisedConfig
from s4mim_hf.methods.unlabeled import (
    PseudoLabels,
    StrongView,
    draw_channel_factors,
    label_pixels,
    make_strong_view,
    unlabeled_images,
)
from s4mim_hf.transfers import to_device


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class FixMatchConfig(SupervisedConfig):
    """Config of FixMatch for segmentation; fields of `SupervisedConfig` besides these.

    Args:
        name: the method's name.
        threshold: τ; a pseudo-label teaches where its confidence reaches it.
        consistency_weight: λ_con, of the mean over strong views; with 0 no strong view is made for it.
        consistency_warmup_steps: optimizer steps over which λ_con and λ_fp grow from 0; None: half of the run.
        strong_views: how many, each with draws of its own.
        strong: the strong augmentation.
        feature_weight: λ_fp, of L_con between the weak view's labels and its own prediction from perturbed features;
            with 0 nothing is perturbed.
        feature_dropout: p, the probability with which a channel of the encoder's features is dropped there.
        pseudo_labels_from: the "teacher" (the moving average, in eval mode), or the "student" itself, whose training
            pass then takes in the weak view as well. Class maps of masked images are the teacher's with either.
    """

    name: Literal["fixmatch"] = "fixmatch"  # type: ignore[assignment]  # a discriminator, never read as the parent's
    threshold: float = Field(default=0.95, ge=0, le=1)
    consistency_weight: float = Field(default=1.0, ge=0)
    consistency_warmup_steps: int | None = Field(default=0, ge=0)
    strong_views: int = Field(default=1, ge=1)
    strong: StrongViewConfig = Field(default_factory=StrongViewConfig)
    feature_weight: float = Field(default=0.0, ge=0)
    feature_dropout: float = Field(default=0.5, ge=0, lt=1)
    pseudo_labels_from: Literal["teacher", "student"] = "teacher"


class FixMatch(Supervised):
    """L = λ_sup L_sup + λ_con L_con + λ_fp L_fp."""

    name = "fixmatch"
    config_class: ClassVar[type] = FixMatchConfig
    config: FixMatchConfig

    def __init__(self, config: FixMatchConfig, task: Task) -> None:
        super().__init__(config, task)

    @property
    def consistency_active(self) -> bool:
        """Whether L_con counts at all."""
        return self.config.consistency_weight > 0

    @property
    def features_active(self) -> bool:
        """Whether L_fp counts at all."""
        return self.config.feature_weight > 0

    @property
    def needs_unlabeled(self) -> bool:
        """Unlabelled images serve the two consistencies only."""
        return self.consistency_active or self.features_active

    @property
    def labels_by_student(self) -> bool:
        """Whether the consistencies' labels come from the student's training pass, for which no teacher is run."""
        return (self.consistency_active or self.features_active) and self.config.pseudo_labels_from == "student"

    @property
    def views(self) -> tuple[ViewName, ...]:
        """Labelled images, and of the unlabelled ones what an active term needs."""
        seen: dict[ViewName, bool] = {
            "labeled": True,
            "weak": self.labels_by_student or self.features_active,
            "strong": self.consistency_active,
            "perturbed": self.features_active,
        }
        return tuple(name for name, present in seen.items() if present)

    def losses(self, student: torch.nn.Module, teacher: Teacher, batch: Batch, context: StepContext) -> Losses:
        """Compute the active terms; with λ_con = λ_fp = 0 this is supervised training, bit for bit."""
        if not self.needs_unlabeled:
            return super().losses(student, teacher, batch, context)
        views = Views(self.config.normalization)
        views.add("labeled", self.normalize(batch.labeled_images))
        weak, valid = unlabeled_images(batch, self.name)
        unlabeled = self.normalize(weak)
        pseudo = None if self.labels_by_student else self.pseudo_labels(teacher, unlabeled, valid)
        strong = self.strong_views(weak, context)
        self.add_unlabeled(views, unlabeled, strong, context)
        output = views.forward(student)
        if pseudo is None:
            pseudo = label_pixels(output.logits["weak"], valid)
        terms = self.base_terms(output, batch.labels, pseudo, strong, context)
        return Losses(terms, {"confident_share": self.confident_share(pseudo)})

    @torch.no_grad()
    def pseudo_labels(self, teacher: Teacher, pixel_values: Tensor, valid: Tensor) -> PseudoLabels:
        """Label normalised weak images (B_u, 3, H, W) by the teacher."""
        return label_pixels(teacher(pixel_values).logits, valid)

    def strong_view(self, weak: Tensor, context: StepContext, number: int = 0) -> StrongView:
        """Return the `number`-th strong view of weak images, uint8 (B_u, 3, H, W), normalised."""
        view = make_strong_view(weak, self.config.strong, context, number)
        return StrongView(self.normalize(view.images), view.box)

    def strong_views(self, weak: Tensor, context: StepContext) -> list[StrongView]:
        """Return the strong views that L_con needs."""
        count = self.config.strong_views if self.consistency_active else 0
        return [self.strong_view(weak, context, number) for number in range(count)]

    def add_unlabeled(
        self, views: Views, unlabeled: Tensor, strong: Sequence[StrongView], context: StepContext
    ) -> None:
        """Add the unlabelled rows: the weak view, float (B_u, 3, H, W), where it is needed, and the strong ones.

        All strong views are one group of normalisation statistics: they are alike.
        """
        if "weak" in self.views:
            views.add("weak", unlabeled)
        if strong:
            views.add("strong", torch.cat([view.images for view in strong]))
        if self.features_active:
            draws, dropout = context.generator("feature-noise"), self.config.feature_dropout
            factors = [
                draw_channel_factors(len(unlabeled), count, dropout, draws) for count in self.task.feature_channels
            ]
            # Here, since the distributed wrapper would wait for what it has to move.
            views.perturb("weak", *(to_device(factor, context.device) for factor in factors))

    def base_terms(
        self,
        output: StudentOutput,
        labels: Tensor,
        pseudo: PseudoLabels,
        strong: Sequence[StrongView],
        context: StepContext,
    ) -> dict[str, Term]:
        """Return L_sup, L_con (the mean over strong views) and L_fp, those that are active."""
        config = self.config
        terms = {"supervised": self.supervised_term(output.logits["labeled"], labels)}
        if strong:
            logits = output.logits["strong"].chunk(len(strong))
            values = [
                consistency_loss(rows, *pseudo.mixed(view.box), threshold=config.threshold)
                for rows, view in zip(logits, strong, strict=True)
            ]
            weight = ramped(config.consistency_weight, config.consistency_warmup_steps, context)
            terms["consistency"] = Term(torch.stack(values).mean(), weight)
        if self.features_active:
            value = consistency_loss(output.logits["perturbed"], *pseudo, threshold=config.threshold)
            weight = ramped(config.feature_weight, config.consistency_warmup_steps, context)
            terms["feature_consistency"] = Term(value, weight)
        return terms

    def confident_share(self, pseudo: PseudoLabels) -> Tensor:
        """Return the share of valid pixels whose confidence reaches τ."""
        confident = (pseudo.confidence >= self.config.threshold) & pseudo.valid
        return confident.sum() / pseudo.valid.sum().clamp(min=1)
