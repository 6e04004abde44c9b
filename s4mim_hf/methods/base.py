"""What a method is: it turns one batch into named loss terms, and the training loop never knows which method runs.

Legend: B_l, B_u, B_m: labelled, unlabelled and masked images of a batch; K classes; H x W pixels; h x w positions of
the dense features. Mask polarity everywhere: True = masked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated_dataclass
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import normalize
from s4mim_hf.errors import InputError
from s4mim_hf.randomness import generator

# The rows of the student in this order; the perturbed ones pass its decoder only.
ViewName = Literal["labeled", "weak", "strong", "masked", "perturbed"]


@validated_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class NormalizationConfig:
    """Which images share BatchNorm statistics in the one forward of a step.

    Args:
        statistics: "together" is one batch of all views, as plain BatchNorm has it; "per_view" normalises each view by
            its own batch statistics; "frozen_backbone" is per view in the decoder, and the backbone keeps the
            statistics that it came with (the model's builder freezes them).
        running_from: the views whose batches move the running statistics, which the teacher and the shipped model
            use; "strong" is all strong views, "weak" the unlabelled images as they are, "perturbed" the decoder's pass
            over perturbed features. Not read with "together", where all views do.
    """

    statistics: Literal["together", "per_view", "frozen_backbone"] = "per_view"
    running_from: tuple[ViewName, ...] = Field(default=("labeled", "strong"), min_length=1)


class BaseMethodConfig(Protocol):
    """What every method's config has."""

    @property
    def name(self) -> str:
        """The method's name in `METHODS`."""

    @property
    def normalization(self) -> NormalizationConfig:
        """Which images share statistics."""


@dataclass(frozen=True)
class StepContext:
    """Where in the run a micro-batch is, from which all of its randomness follows.

    Args:
        step: optimizer steps done so far.
        max_steps: those of the whole run.
        micro_step: micro-batch within the step (gradient accumulation), from 0.
        seed: the run's seed.
        rank: this process's number.
        device: where the batch is.
    """

    step: int
    max_steps: int
    micro_step: int
    seed: int
    rank: int
    device: torch.device

    def generator(self, purpose: str) -> torch.Generator:
        """Return a new CPU generator for one purpose at this micro-batch of this process."""
        return generator(self.seed, purpose, self.step, self.micro_step, self.rank)


@dataclass(frozen=True)
class Task:
    """What a method knows of the data and the model.

    Args:
        num_labels: K.
        ignore_index: the id of unknown pixels in label maps.
        image_mean: per channel, on the scale of [0, 1].
        image_std: likewise.
        feature_stride: pixels per position of the dense features z along an edge.
        feature_channels: channels of each of the encoder's maps that the decoder takes, which feature noise drops.
    """

    num_labels: int
    ignore_index: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    feature_stride: int
    feature_channels: tuple[int, ...]


class Term(NamedTuple):
    """One term of the loss: a float32 scalar and its weight λ at this step."""

    value: Tensor
    weight: float


@dataclass(frozen=True)
class Losses:
    """What a method computed for one batch.

    Args:
        terms: by name; a term with weight 0 in the config is absent.
        metrics: scalars without gradient, on the batch's device, to be logged.
    """

    terms: Mapping[str, Term]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        """Return L = Σ λ · term."""
        first, *others = self.terms.values()
        total = first.weight * first.value
        for term in others:
            total = total + term.weight * term.value
        return total


class ModelRequirements(NamedTuple):
    """The heads that a method's active terms need; others are not built.

    `mask_token`: images are masked; `mim_decoder`: masked images are reconstructed; `mim_features`: a term reads z
    (a projection that no term reads must not be built).
    """

    mask_token: bool = False
    mim_decoder: bool = False
    mim_features: bool = False


class Teacher(Protocol):
    """The teacher as methods use it: images (B, 3, H, W), normalised, to an output with `.logits` (B, K, H, W)."""

    def __call__(self, pixel_values: Tensor) -> SegmentationOutput:
        """Label images."""


class SegmentationOutput(Protocol):
    """A model's output, of which only the logits are read."""

    logits: Tensor


def ramped(weight: float, warmup_steps: int | None, context: StepContext) -> float:
    """Return λ at a step: linear from 0 at step 0 to `weight` at `warmup_steps`, constant from there.

    Args:
        weight: λ at the end.
        warmup_steps: optimizer steps; None: the first half of the run.
        context: where in the run the step is.
    """
    steps = context.max_steps / 2 if warmup_steps is None else warmup_steps
    return weight if context.step >= steps else weight * context.step / steps


class Method(ABC):
    """Base of the methods.

    Args:
        config: the method's own config class.
        task: what it knows of the data and the model.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    config: BaseMethodConfig

    def __init__(self, config: BaseMethodConfig, task: Task) -> None:
        if not isinstance(config, self.config_class):
            raise TypeError(
                f"{type(self).__name__} needs a {self.config_class.__name__}, found {type(config).__name__}"
            )
        self.config = config
        self.task = task

    @abstractmethod
    def losses(self, student: torch.nn.Module, teacher: Teacher, batch: Batch, context: StepContext) -> Losses:
        """Compute the terms of one batch with one forward of the student.

        Args:
            student: the model for semi-supervised training, possibly wrapped for several processes.
            teacher: in eval mode; called without gradient, and only where an active term needs its labels.
            batch: on the context's device.
            context: where in the run this batch is.
        """

    @property
    @abstractmethod
    def views(self) -> tuple[ViewName, ...]:
        """The views that the student sees, in the order of its rows; "perturbed" ones only its decoder sees."""

    @property
    def needs_unlabeled(self) -> bool:
        """Whether batches must hold unlabelled images."""
        return False

    @property
    def mixes_images(self) -> bool:
        """Whether CutMix gives unlabelled images boxes of others of their batch."""
        strong = getattr(self.config, "strong", None)
        return "strong" in self.views and strong is not None and strong.cutmix_probability > 0

    def model_requirements(self) -> ModelRequirements:
        """Return which heads the active terms need."""
        return ModelRequirements()

    def warnings(self, mim_projection_channels: int | None) -> list[str]:
        """Return sentences about settings that are allowed but known to go wrong.

        Args:
            mim_projection_channels: width of the model's projection of z, None where it has none.
        """
        return []

    def validate(self, feature_stride: int, mim_reach: int | None, crop_size: int) -> None:
        """Check settings that only make sense together with the model's and the data's.

        Args:
            feature_stride: pixels per position of z.
            mim_reach: pixels that a position of the reconstruction decoder sees to each side; None: all.
            crop_size: edge of the training crops in pixels.

        Raises:
            InputError: naming the key, its value, what was expected and what to do.
        """
        normalization = self.config.normalization
        # Perturbed features never pass the encoder, whose running statistics must move as well.
        moving = [view for view in self.views if view != "perturbed"]
        if normalization.statistics != "together" and not set(normalization.running_from) & set(moving):
            raise InputError(
                f"method.normalization.running_from is {list(normalization.running_from)}, but with the active terms "
                f"of method {self.name!r} the student sees only {moving}, so the running statistics would "
                f"never move; name at least one of those"
            )

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 or [0, 1] float images (B, 3, H, W) as the model takes them."""
        return normalize(images, self.task.image_mean, self.task.image_std)
