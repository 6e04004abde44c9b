"""Training on the labelled images alone: the floor of every comparison, and its ceiling with all labels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.losses import cross_entropy, ohem_cross_entropy
from s4mim_hf.methods.base import Losses, Method, NormalizationConfig, StepContext, Task, Teacher, Term, ViewName
from s4mim_hf.methods.student_views import Views


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class SupervisedConfig:
    """Config of the supervised method, and what every other method has of it.

    Args:
        name: the method's name.
        supervised_weight: weight of L_sup, constant over the run.
        supervised_loss: "cross_entropy", or "ohem": over the hard pixels only, as the peers have it on Cityscapes.
        ohem_threshold: a pixel is hard where the true class has a lower probability than this.
        ohem_min_kept: share of all pixels that is kept at least, the hardest first.
        normalization: which images share BatchNorm statistics.
    """

    name: Literal["supervised"] = "supervised"
    supervised_weight: float = Field(default=1.0, gt=0)
    supervised_loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    ohem_threshold: float = Field(default=0.7, gt=0, le=1)
    ohem_min_kept: float = Field(default=1 / 16, ge=0, le=1)
    normalization: NormalizationConfig = Field(default_factory=NormalizationConfig)


class Supervised(Method):
    """L = λ_sup L_sup."""

    name = "supervised"
    config_class: ClassVar[type] = SupervisedConfig
    config: SupervisedConfig

    def __init__(self, config: SupervisedConfig, task: Task) -> None:
        super().__init__(config, task)

    @property
    def views(self) -> tuple[ViewName, ...]:
        """Only the labelled images."""
        return ("labeled",)

    def losses(self, student: torch.nn.Module, teacher: Teacher, batch: Batch, context: StepContext) -> Losses:
        """Compute L_sup; the teacher is not run."""
        views = Views(self.config.normalization)
        views.add("labeled", self.normalize(batch.labeled_images))
        output = views.forward(student)
        return Losses({"supervised": self.supervised_term(output.logits["labeled"], batch.labels)})

    def supervised_term(self, logits: Tensor, labels: Tensor) -> Term:
        """Return L_sup of the labelled rows: logits (B_l, K, H, W), labels of any integer type (B_l, H, W)."""
        config, ignore_index = self.config, self.task.ignore_index
        if config.supervised_loss == "cross_entropy":
            value = cross_entropy(logits, labels.long(), ignore_index)
        else:
            value = ohem_cross_entropy(logits, labels.long(), ignore_index, config.ohem_threshold, config.ohem_min_kept)
        return Term(value, config.supervised_weight)
