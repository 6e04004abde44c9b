"""UniMatch: two strong views and perturbed features against the student's own labels of the weak view.

Yang, Qi, Feng, Zhang, Shi, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation", CVPR 2023,
arXiv 2208.09910. Its terms are those of `FixMatch`; the defaults here are the published choice of them. What differs
from the published code, none of it a term:

- CutMix takes partners from the same batch, with labels of the same pass, not from a second batch that is labelled by
  one more pass in eval mode.
- One student pass instead of two. There, labelled and weak images and the perturbed features of both share BatchNorm
  statistics, the strong views share others, and all move the running ones; here each view is a group of its own, and
  `normalization` says which move them. Features of labelled images, whose prediction is not used, are not perturbed.
- There the student itself is measured; here its moving average is, and the student beside it.
- The decoder has dropout (`model.decoder_dropout`; 0 is as published), also while it labels the weak view.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from s4mim_hf.methods.base import Task
from s4mim_hf.methods.fixmatch import FixMatch, FixMatchConfig


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class UniMatchConfig(FixMatchConfig):
    """Config of UniMatch: the fields of `FixMatchConfig`, with the published values as defaults."""

    name: Literal["unimatch"] = "unimatch"  # type: ignore[assignment]  # a discriminator, never read as the parent's
    supervised_weight: float = Field(default=0.5, gt=0)
    consistency_weight: float = Field(default=0.25, ge=0)
    strong_views: int = Field(default=2, ge=1)
    feature_weight: float = Field(default=0.25, ge=0)
    pseudo_labels_from: Literal["teacher", "student"] = "student"


class UniMatch(FixMatch):
    """L = (L_sup + (L_s1 + L_s2) / 4 + L_fp / 2) / 2."""

    name = "unimatch"
    config_class: ClassVar[type] = UniMatchConfig
    config: UniMatchConfig

    def __init__(self, config: UniMatchConfig, task: Task) -> None:
        super().__init__(config, task)
