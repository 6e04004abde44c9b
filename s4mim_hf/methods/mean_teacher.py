"""Mean teacher: the student's probabilities of a strong view against the teacher's of the weak one.

Tarvainen, Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import Probability, StrongViewConfig, cutmix
from s4mim_hf.losses import probability_consistency_loss
from s4mim_hf.methods.base import Losses, StepContext, Task, Teacher, Term, ViewName, ramped
from s4mim_hf.methods.student_views import Views
from s4mim_hf.methods.supervised import Supervised, SupervisedConfig
from s4mim_hf.methods.unlabeled import make_strong_view, unlabeled_images


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class UncutStrongViewConfig(StrongViewConfig):
    """The strong augmentation without CutMix, unless a probability is given."""

    cutmix_probability: Probability = 0.0


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class MeanTeacherConfig(SupervisedConfig):
    """Config of the mean teacher; fields of `SupervisedConfig` besides these.

    Args:
        name: the method's name.
        consistency_weight: λ_con; with 0 the strong view is neither made nor seen, and the teacher is not run.
        consistency_warmup_steps: optimizer steps over which λ_con grows from 0; None: half of the run.
        strong: the strong augmentation, by default without CutMix.
    """

    name: Literal["mean_teacher"] = "mean_teacher"  # type: ignore[assignment]  # never read as the parent's
    consistency_weight: float = Field(default=1.0, ge=0)
    consistency_warmup_steps: int | None = Field(default=0, ge=0)
    strong: UncutStrongViewConfig = Field(default_factory=UncutStrongViewConfig)


class MeanTeacher(Supervised):
    """L = λ_sup L_sup + λ_con L_mse."""

    name = "mean_teacher"
    config_class: ClassVar[type] = MeanTeacherConfig
    config: MeanTeacherConfig

    def __init__(self, config: MeanTeacherConfig, task: Task) -> None:
        super().__init__(config, task)

    @property
    def needs_unlabeled(self) -> bool:
        """Unlabelled images serve the consistency only."""
        return self.config.consistency_weight > 0

    @property
    def views(self) -> tuple[ViewName, ...]:
        """Labelled images, and strong views while the consistency is active."""
        return ("labeled", "strong") if self.needs_unlabeled else ("labeled",)

    def losses(self, student: torch.nn.Module, teacher: Teacher, batch: Batch, context: StepContext) -> Losses:
        """Compute L_sup and the consistency; with λ_con = 0 this is supervised training, bit for bit."""
        if not self.needs_unlabeled:
            return super().losses(student, teacher, batch, context)
        weak, valid = unlabeled_images(batch, self.name)
        view = make_strong_view(weak, self.config.strong, context)
        views = Views(self.config.normalization)
        views.add("labeled", self.normalize(batch.labeled_images))
        views.add("strong", self.normalize(view.images))
        probabilities = self.probabilities(teacher, self.normalize(weak))
        output = views.forward(student)
        value = probability_consistency_loss(
            output.logits["strong"], cutmix(probabilities, view.box), cutmix(valid, view.box)
        )
        weight = ramped(self.config.consistency_weight, self.config.consistency_warmup_steps, context)
        supervised = self.supervised_term(output.logits["labeled"], batch.labels)
        return Losses({"supervised": supervised, "consistency": Term(value, weight)})

    @torch.no_grad()
    def probabilities(self, teacher: Teacher, pixel_values: Tensor) -> Tensor:
        """Return p, float32 (B_u, K, H, W), of normalised weak images (B_u, 3, H, W)."""
        return teacher(pixel_values).logits.float().softmax(dim=1)
