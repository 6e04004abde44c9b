"""Weak-to-strong consistency with a mean teacher: the base that S4MIM and its recent peers build on."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig, cutmix, draw_cutmix_mask, draw_strong_parameters, strong_view
from s4mim_hf.errors import InputError
from s4mim_hf.losses import consistency_loss
from s4mim_hf.methods.base import Losses, StepContext, Task, Teacher, Term, ViewName, ramped
from s4mim_hf.methods.student_views import Views
from s4mim_hf.methods.supervised import Supervised, SupervisedConfig


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class FixMatchConfig(SupervisedConfig):
    """Config of FixMatch for segmentation; fields of `SupervisedConfig` besides these.

    Args:
        name: the method's name.
        threshold: τ; a pseudo-label teaches where the teacher's confidence reaches it.
        consistency_weight: λ_con; with 0 the strong view is neither made nor seen, and the teacher is not run.
        consistency_warmup_steps: optimizer steps over which λ_con grows from 0.
        strong: the strong augmentation.
    """

    name: Literal["fixmatch"] = "fixmatch"  # type: ignore[assignment]  # a discriminator, never read as the parent's
    threshold: float = Field(default=0.95, ge=0, le=1)
    consistency_weight: float = Field(default=1.0, ge=0)
    consistency_warmup_steps: int = Field(default=0, ge=0)
    strong: StrongViewConfig = Field(default_factory=StrongViewConfig)


class PseudoLabels(NamedTuple):
    """The teacher's opinion of unlabelled images, without gradient.

    Args:
        labels: ŷ, int64, (B_u, H, W), its argmax; also on padding.
        confidence: c, float32 in [0, 1], (B_u, H, W), its maximum probability.
        valid: bool, (B_u, H, W), False on padding.
    """

    labels: Tensor
    confidence: Tensor
    valid: Tensor


class FixMatch(Supervised):
    """L = L_sup + λ_con L_con."""

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
    def needs_unlabeled(self) -> bool:
        """Unlabelled images serve the consistency only."""
        return self.consistency_active

    @property
    def views(self) -> tuple[ViewName, ...]:
        """Labelled images, and strong views while the consistency is active."""
        return ("labeled", "strong") if self.consistency_active else ("labeled",)

    def losses(self, student: torch.nn.Module, teacher: Teacher, batch: Batch, context: StepContext) -> Losses:
        """Compute L_sup and L_con; with λ_con = 0 this is supervised training, bit for bit."""
        if not self.consistency_active:
            return super().losses(student, teacher, batch, context)
        views = Views(self.config.normalization)
        views.add("labeled", self.normalize(batch.labeled_images))
        weak, valid = self.unlabeled(batch)
        pseudo = self.pseudo_labels(teacher, self.normalize(weak), valid)
        mixed = self.add_strong_view(views, batch, pseudo, context)
        output = views.forward(student)
        terms = {
            "supervised": self.supervised_term(output.logits["labeled"], batch.labels),
            "consistency": self.consistency_term(output.logits["strong"], mixed, context.step),
        }
        return Losses(terms, {"confident_share": self.confident_share(pseudo)})

    def unlabeled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the weak unlabelled images, uint8 (B_u, 3, H, W), and where they are no padding, bool (B_u, H, W).

        Raises:
            InputError: where the batch has none.
        """
        if batch.unlabeled_images is None or batch.unlabeled_valid is None:
            raise InputError(
                f"the method {self.name!r} needs unlabelled images and the data has none; prepare data with fewer "
                f"labelled images, or train with method.name=supervised"
            )
        return batch.unlabeled_images, batch.unlabeled_valid

    @torch.no_grad()
    def pseudo_labels(self, teacher: Teacher, pixel_values: Tensor, valid: Tensor) -> PseudoLabels:
        """Label normalised weak images (B_u, 3, H, W) by the teacher."""
        confidence, labels = teacher(pixel_values).logits.float().softmax(dim=1).max(dim=1)
        return PseudoLabels(labels, confidence, valid)

    @torch.no_grad()
    def add_strong_view(self, views: Views, batch: Batch, pseudo: PseudoLabels, context: StepContext) -> PseudoLabels:
        """Add the strong view of the unlabelled images, and return its pseudo-labels, cut and mixed like it."""
        weak, _ = self.unlabeled(batch)
        batch_size, _, height, width = weak.shape
        parameters = draw_strong_parameters(batch_size, self.config.strong, context.generator("strong"))
        box = draw_cutmix_mask(batch_size, height, width, self.config.strong, context.generator("cutmix"))
        box = box.to(context.device, non_blocking=True)
        images = cutmix(strong_view(weak.float() / 255, parameters), box)
        views.add("strong", self.normalize(images))
        return PseudoLabels(*(cutmix(values, box) for values in pseudo))

    def consistency_term(self, logits: Tensor, mixed: PseudoLabels, step: int) -> Term:
        """Return L_con of the strong rows: logits (B_u, K, H, W)."""
        weight = ramped(self.config.consistency_weight, self.config.consistency_warmup_steps, step)
        return Term(consistency_loss(logits, *mixed, threshold=self.config.threshold), weight)

    def confident_share(self, pseudo: PseudoLabels) -> Tensor:
        """Return the share of valid pixels whose confidence reaches τ."""
        confident = (pseudo.confidence >= self.config.threshold) & pseudo.valid
        return confident.sum() / pseudo.valid.sum().clamp(min=1)
