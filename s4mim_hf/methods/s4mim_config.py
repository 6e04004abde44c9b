"""Config of S4MIM's terms. All of it is this project's decision where the paper's abstract is silent.

The defaults are the best of the settings with all terms that were tried in 2400 steps of the demo, on tuning draws
(model_cards/experiments.md). Recipes set of S4MIM's own fields only `class_map_threshold` and `masking.patch_size`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from s4mim_hf.methods.fixmatch import FixMatchConfig

_FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_FORBID)
class MaskingConfig:
    """What is hidden from the student.

    Args:
        patch_size: edge of a patch in pixels.
        ratio: masked share of each image.
        images: which images get a masked view.
        view: what the unlabelled images are before they are masked: "weak" as the teacher labels them; "strong", the
            first strong view that L_con sees; or "own", a strong view with draws of its own, which nothing else sees.
            Strong views are cut and mixed together with their pseudo-labels. Also what L_rec reconstructs. Labelled
            images have no strong view.
        strategy: "random" patches, or "class_balanced": within each class of an image, the share `ratio` of its
            patches, so that each class has visible and masked ones.
    """

    patch_size: int = Field(default=32, ge=1)
    ratio: float = Field(default=0.3, gt=0, lt=1)
    images: Literal["unlabeled", "labeled_and_unlabeled"] = "unlabeled"
    view: Literal["weak", "strong", "own"] = "own"
    strategy: Literal["random", "class_balanced"] = "random"


@dataclass(frozen=True, kw_only=True, config=_FORBID)
class ReconstructionConfig:
    """L_rec, masked image modelling in pixel space.

    Args:
        weight: λ_rec; with 0 nothing is reconstructed and no decoder is built.
        warmup_steps: optimizer steps over which λ_rec grows from 0; None: half of the run.
        regions: "class" reconstructs each class's region apart from the others; "image" is basic masked image
            modelling: one region, on the same pixels of the loss.
        target: the clean pixels in normalised space, or those normalised per patch.
        reduction: whether every pixel, or every class, weighs alike.
    """

    weight: float = Field(default=0.1, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    regions: Literal["class", "image"] = "class"
    target: Literal["pixels", "patch_normalized"] = "patch_normalized"
    reduction: Literal["pixel", "class"] = "pixel"


@dataclass(frozen=True, kw_only=True, config=_FORBID)
class AggregationConfig:
    """L_agg, which draws masked features to the visible ones of their class.

    Args:
        weight: λ_agg.
        warmup_steps: optimizer steps over which λ_agg grows from 0; None: half of the run.
        distance: "cosine", or "l2": the squared difference averaged over channels.
        prototypes: whether visible features are averaged within an image or within the batch.
        stop_gradient: whether the averages are fixed targets.
        min_positions: visible, and masked, positions that a class needs in order to count.
        reduction: whether every class of an image (or the batch), or every masked position, weighs alike.
    """

    weight: float = Field(default=0.1, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    distance: Literal["cosine", "l2"] = "l2"
    prototypes: Literal["image", "batch"] = "image"
    stop_gradient: bool = True
    min_positions: int = Field(default=1, ge=1)
    reduction: Literal["class", "position"] = "class"


@dataclass(frozen=True, kw_only=True, config=_FORBID)
class SemanticConfig:
    """L_sem, masked modelling in semantic space.

    Args:
        weight: λ_sem.
        warmup_steps: optimizer steps over which λ_sem grows from 0; None: half of the run.
        pixels: all known pixels of the masked view, or only the masked ones.
        average_over: "known" divides by the number of pixels that count, so that few confident ones weigh as much as
            many; "valid" by all that might, padding and void aside, so that the term is small while the teacher is
            unsure, as the consistency is.
        unlabeled_weighting: "threshold" counts a pseudo-label fully where its confidence reaches
            `class_map_threshold`; "confidence" counts every one by its confidence.
        labels_from: whose labels unlabelled pixels have: the "teacher"'s, as in the class map, or "consistency": those
            that L_con has, by `pseudo_labels_from` (without a consistency: the teacher's).
    """

    weight: float = Field(default=1.0, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    pixels: Literal["known", "masked"] = "known"
    average_over: Literal["known", "valid"] = "valid"
    unlabeled_weighting: Literal["threshold", "confidence"] = "confidence"
    labels_from: Literal["teacher", "consistency"] = "consistency"


@dataclass(frozen=True, kw_only=True, config=_FORBID)
class S4MIMMethodConfig(FixMatchConfig):
    """Config of S4MIM; fields of `FixMatchConfig` besides these.

    Args:
        name: the method's name.
        masking: what is hidden.
        class_map_threshold: τ_mim; a pseudo-label is part of the class map where the confidence reaches it.
        class_map_downsampling: how a position of z gets its class: the majority of its known pixels', or the nearest.
        reconstruction: L_rec.
        aggregation: L_agg.
        semantic: L_sem.

    Three defaults of the base are others here, by two tuning draws of the demo (model_cards/experiments.md).
    `pseudo_labels_from` is the student: strong views, and L_sem, then follow the student's labels; class maps are the
    teacher's. By the teacher's alone S4MIM without aggregation, masking the strong view of L_con, ended 2.7 and 4.7
    mIoU lower. `strong_views` is 2: with one, of weight 1, S4MIM ended 2.7 and 3.4 lower. And `consistency_weight` is
    2: with 1 it ended 1.9 and 1.7 lower.
    """

    name: Literal["s4mim"] = "s4mim"  # type: ignore[assignment]  # a discriminator, never read as the parent's
    consistency_weight: float = Field(default=2.0, ge=0)
    strong_views: int = Field(default=2, ge=1)
    pseudo_labels_from: Literal["teacher", "student"] = "student"
    masking: MaskingConfig = Field(default_factory=MaskingConfig)
    class_map_threshold: float = Field(default=0.95, ge=0, le=1)
    class_map_downsampling: Literal["majority", "nearest"] = "majority"
    reconstruction: ReconstructionConfig = Field(default_factory=ReconstructionConfig)
    aggregation: AggregationConfig = Field(default_factory=AggregationConfig)
    semantic: SemanticConfig = Field(default_factory=SemanticConfig)
