"""S4MIM: class-wise masked image modelling, feature aggregation and semantic masked modelling on FixMatch.

Li, Hao, Shang, Jiao, "Masked Image Modeling Boosting Semi-Supervised Semantic Segmentation", arXiv 2411.08756. Its
abstract states the three ideas; what it leaves open is a field of `S4MIMMethodConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from s4mim_hf.data.loaders import Batch
from s4mim_hf.errors import InputError
from s4mim_hf.losses import aggregation_loss, normalize_per_patch, reconstruction_loss, semantic_loss
from s4mim_hf.masking import downsample_class_map, downsample_mask, expand_grid, known_class_map
from s4mim_hf.methods.base import Losses, ModelRequirements, StepContext, Task, Teacher, Term, ViewName, ramped
from s4mim_hf.methods.fixmatch import FixMatch
from s4mim_hf.methods.masked_view import MaskedView, SemanticTargets, draw_patch_mask
from s4mim_hf.methods.s4mim_config import S4MIMMethodConfig
from s4mim_hf.methods.student_views import MaskedRows, StudentOutput, Views
from s4mim_hf.methods.unlabeled import PseudoLabels, StrongView, label_pixels, unlabeled_images


def _as_seen(pseudo: PseudoLabels, view: StrongView | None) -> PseudoLabels:
    """Return the labels of weak images as those of a strong view, cut and mixed like it; None: of the weak ones."""
    return pseudo if view is None else pseudo.mixed(view.box)


class S4MIM(FixMatch):
    """L = the base's (see `FixMatch`) + λ_rec L_rec + λ_agg L_agg + λ_sem L_sem."""

    name = "s4mim"
    config_class: ClassVar[type] = S4MIMMethodConfig
    config: S4MIMMethodConfig

    def __init__(self, config: S4MIMMethodConfig, task: Task) -> None:
        super().__init__(config, task)

    @property
    def reconstruction_active(self) -> bool:
        """Whether L_rec counts at all."""
        return self.config.reconstruction.weight > 0

    @property
    def aggregation_active(self) -> bool:
        """Whether L_agg counts at all."""
        return self.config.aggregation.weight > 0

    @property
    def semantic_active(self) -> bool:
        """Whether L_sem counts at all."""
        return self.config.semantic.weight > 0

    @property
    def features_read(self) -> bool:
        """Whether any term reads features of the masked view."""
        return self.reconstruction_active or self.aggregation_active

    @property
    def masking_active(self) -> bool:
        """Whether any term reads the masked view."""
        return self.features_read or self.semantic_active

    @property
    def labels_by_teacher(self) -> bool:
        """Whether a term reads the teacher's labels, as class maps or as targets; if none does no teacher is run."""
        semantic = self.semantic_active and self.config.semantic.labels_from == "teacher"
        return self.class_maps_read or semantic or not self.labels_by_student

    @property
    def class_maps_read(self) -> bool:
        """Whether anything depends on the classes of masked images (L_sem has labels of its own)."""
        balanced = self.masking_active and self.config.masking.strategy == "class_balanced"
        return self.features_read or balanced

    @property
    def needs_unlabeled(self) -> bool:
        """Unlabelled images serve the base's consistencies and every masked term."""
        return super().needs_unlabeled or self.masking_active

    @property
    def views(self) -> tuple[ViewName, ...]:
        """The base's, and the masked view while a term reads it."""
        return (*super().views, "masked") if self.masking_active else super().views

    @property
    def mixes_images(self) -> bool:
        """A strong view that is masked is mixed, too, where the consistency is off and sees none."""
        masks_strong = self.masking_active and self.config.masking.view != "weak"
        return super().mixes_images or (masks_strong and self.config.strong.cutmix_probability > 0)

    def model_requirements(self) -> ModelRequirements:
        """Return which heads the active terms need."""
        return ModelRequirements(
            mask_token=self.masking_active,
            mim_decoder=self.reconstruction_active,
            mim_features=self.features_read,
        )

    def warnings(self, mim_projection_channels: int | None) -> list[str]:
        """Warn of the projection that only L_agg trains."""
        if mim_projection_channels is None or not self.aggregation_active or self.reconstruction_active:
            return []
        return [
            "model.mim_projection_channels is set while only the aggregation term reads the projection, which can "
            "collapse to one constant feature: watch between_class_similarity (near 1 means collapse), or set "
            "model.mim_projection_channels=null"
        ]

    def validate(self, feature_stride: int, mim_reach: int | None, crop_size: int) -> None:
        """Check the patch against the crop, the features' stride and the decoder's reach; see `Method.validate`."""
        super().validate(feature_stride, mim_reach, crop_size)
        patch_size = self.config.masking.patch_size
        if self.masking_active and patch_size >= crop_size:
            raise InputError(
                f"method.masking.patch_size is {patch_size}, not smaller than the crop of {crop_size} pixels, so "
                f"nothing or everything would be masked; use a smaller patch or a larger data.views.crop_size"
            )
        if self.model_requirements().mim_features and patch_size < feature_stride:
            raise InputError(
                f"method.masking.patch_size is {patch_size}, smaller than one position of the features "
                f"({feature_stride} pixels), so no position would be masked as a whole; use at least {feature_stride}"
            )
        if self.reconstruction_active and mim_reach is not None and 2 * mim_reach < patch_size:
            raise InputError(
                f"the reconstruction decoder reaches {mim_reach} pixels (model.mim_depth x half of "
                f"model.mim_kernel_size, in positions of {feature_stride} pixels), less than half of "
                f"method.masking.patch_size {patch_size}, so the middle of a patch sees nothing visible; use a deeper "
                f"decoder, a larger kernel, model.mim_decoder_type=attention or a smaller patch"
            )

    def losses(self, student: torch.nn.Module, teacher: Teacher, batch: Batch, context: StepContext) -> Losses:
        """Compute all active terms; with none of the masked ones this is the base alone, bit for bit.

        Class maps are the teacher's, also where the base's labels are the student's: they must be known before the
        student's one pass, whose decoder they divide.
        """
        if not self.masking_active:
            return super().losses(student, teacher, batch, context)
        views = Views(self.config.normalization)
        labeled = self.normalize(batch.labeled_images)
        views.add("labeled", labeled)
        weak, valid = unlabeled_images(batch, self.name)
        unlabeled = self.normalize(weak)
        by_teacher = self.pseudo_labels(teacher, unlabeled, valid) if self.labels_by_teacher else None
        strong = self.strong_views(weak, context)
        self.add_unlabeled(views, unlabeled, strong, context)
        view = self.view_to_mask(weak, strong, context)
        images = unlabeled if view is None else view.images
        labels = batch.labels.long()
        seen_by_teacher = None if by_teacher is None else _as_seen(by_teacher, view)
        masked = self.masked_view(labeled, labels, images, seen_by_teacher, context)
        views.add_masked(masked.images, self._student_rows(masked))
        output = views.forward(student)

        pseudo = label_pixels(output.logits["weak"], valid) if self.labels_by_student else by_teacher
        assert pseudo is not None
        terms = self.base_terms(output, batch.labels, pseudo, strong, context)
        metrics = {"confident_share": self.confident_share(pseudo)}
        if by_teacher is not None:
            metrics["known_share"] = (masked.class_map != self.task.ignore_index).float().mean()
        self._add_feature_terms(terms, metrics, output, masked, context)
        if self.semantic_active:
            by_consistency = self.labels_by_student and self.config.semantic.labels_from == "consistency"
            seen = _as_seen(pseudo, view) if by_consistency else seen_by_teacher
            assert seen is not None
            targets = self.semantic_targets(labels, seen, masked.patch_mask)
            value = semantic_loss(output.logits["masked"], *targets[:2], self.task.ignore_index, targets.averaged_over)
            weight = ramped(self.config.semantic.weight, self.config.semantic.warmup_steps, context)
            terms["semantic"] = Term(value, weight)
        return Losses(terms, metrics)

    def view_to_mask(self, weak: Tensor, strong: Sequence[StrongView], context: StepContext) -> StrongView | None:
        """Return the strong view of weak images, uint8 (B_u, 3, H, W), that is masked; None: the weak ones are.

        Args:
            weak: the weak images.
            strong: the strong views that L_con sees.
            context: where in the run this batch is.
        """
        match self.config.masking.view:
            case "weak":
                return None
            case "strong":
                return strong[0] if strong else self.strong_view(weak, context)
            case "own":
                # L_con's strong views have the numbers below; one or two of them leave this view the same.
                return self.strong_view(weak, context, max(2, self.config.strong_views))

    @torch.no_grad()
    def masked_view(
        self, labeled: Tensor, labels: Tensor, unlabeled: Tensor, pseudo: PseudoLabels | None, context: StepContext
    ) -> MaskedView:
        """Draw masks for the images and put together what is known of their pixels.

        Args:
            labeled: float, (B_l, 3, H, W), normalised.
            labels: int64, (B_l, H, W).
            unlabeled: float, (B_u, 3, H, W), normalised, the weak views or the strong ones.
            pseudo: the labels of these; None, where nothing reads class maps: they are then unknown.
            context: where in the run this batch is.
        """
        ignore_index, masking = self.task.ignore_index, self.config.masking
        if pseudo is None:
            known = labels.new_full((len(unlabeled), *unlabeled.shape[-2:]), ignore_index)
        else:
            known = known_class_map(*pseudo, self.config.class_map_threshold, ignore_index)
        images, class_map = unlabeled, known
        if masking.images == "labeled_and_unlabeled":
            images, class_map = torch.cat([labeled, images]), torch.cat([labels, class_map])
        patch_mask = draw_patch_mask(masking, class_map, self.task.num_labels, ignore_index, context.generator("masks"))
        if not self.features_read:
            return MaskedView(images, patch_mask, class_map)
        stride = self.task.feature_stride
        position_classes = downsample_class_map(
            class_map, stride, self.task.num_labels, ignore_index, self.config.class_map_downsampling
        )
        return MaskedView(images, patch_mask, class_map, downsample_mask(patch_mask, stride), position_classes)

    @torch.no_grad()
    def semantic_targets(self, labels: Tensor, pseudo: PseudoLabels, patch_mask: Tensor) -> SemanticTargets:
        """Return what the masked view has to predict.

        Args:
            labels: int64, (B_l, H, W), of the labelled images; read where those are masked too.
            pseudo: the labels of the unlabelled images as they are masked.
            patch_mask: bool, (B_m, 1, H, W), M.
        """
        ignore_index, config = self.task.ignore_index, self.config.semantic
        if config.unlabeled_weighting == "confidence":
            targets, weights = torch.where(pseudo.valid, pseudo.labels, ignore_index), pseudo.confidence
        else:
            targets = known_class_map(*pseudo, self.config.class_map_threshold, ignore_index)
            weights = torch.ones_like(pseudo.confidence)
        valid = pseudo.valid
        if self.config.masking.images == "labeled_and_unlabeled":
            targets = torch.cat([labels, targets])
            weights = torch.cat([torch.ones_like(labels, dtype=weights.dtype), weights])
            valid = torch.cat([labels != ignore_index, valid])
        if config.pixels == "masked":
            weights, valid = weights * patch_mask.squeeze(1), valid & patch_mask.squeeze(1)
        return SemanticTargets(targets, weights, valid if config.average_over == "valid" else None)

    def _student_rows(self, masked: MaskedView) -> MaskedRows:
        if not self.reconstruction_active:
            return MaskedRows(masked.patch_mask)
        one_region = self.config.reconstruction.regions == "image"
        return MaskedRows(masked.patch_mask, masked.feature_mask, masked.position_classes, one_region)

    def _add_feature_terms(
        self,
        terms: dict[str, Term],
        metrics: dict[str, Tensor],
        output: StudentOutput,
        masked: MaskedView,
        context: StepContext,
    ) -> None:
        """Add L_rec and L_agg, those that are active."""
        reconstruction, aggregation = self.config.reconstruction, self.config.aggregation
        if self.reconstruction_active:
            assert output.reconstruction is not None
            weight = ramped(reconstruction.weight, reconstruction.warmup_steps, context)
            value = self.reconstruction_value(output.reconstruction, masked, output.reconstructed)
            terms["reconstruction"] = Term(value, weight)
        if self.aggregation_active:
            assert output.features is not None
            value, diagnostics = self.aggregation_value(output.features, masked)
            terms["aggregation"] = Term(value, ramped(aggregation.weight, aggregation.warmup_steps, context))
            metrics.update(diagnostics)

    def reconstruction_value(
        self, reconstruction: Tensor, masked: MaskedView, reconstructed: Tensor | None = None
    ) -> Tensor:
        """Return L_rec of x̂ (B_m, 3, H, W), over pixels that are masked, known, and agree with the decoder's map.

        Positions (B_m, h, w) that a class-wise decoder does not reconstruct are left out, for basic MIM as well, whose
        loss is over the same pixels; None: all known ones are.
        """
        assert masked.position_classes is not None
        height, width = masked.class_map.shape[-2:]
        seen_by_decoder = expand_grid(masked.position_classes, self.task.feature_stride, height, width)
        known = masked.class_map != self.task.ignore_index
        selected = masked.patch_mask.squeeze(1) & known & (masked.class_map == seen_by_decoder)
        if reconstructed is not None:
            selected = selected & expand_grid(reconstructed, self.task.feature_stride, height, width)
        target = masked.images
        if self.config.reconstruction.target == "patch_normalized":
            target = normalize_per_patch(target, self.config.masking.patch_size, known)
        reduction = self.config.reconstruction.reduction
        return reconstruction_loss(reconstruction, target, selected, masked.class_map, self.task.num_labels, reduction)

    def aggregation_value(self, features: Tensor, masked: MaskedView) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_agg of z (B_m, C, h, w), and its diagnostics."""
        assert masked.position_classes is not None
        assert masked.feature_mask is not None
        config = self.config.aggregation
        return aggregation_loss(
            features,
            masked.position_classes,
            masked.feature_mask,
            self.task.num_labels,
            ignore_index=self.task.ignore_index,
            min_positions=config.min_positions,
            distance=config.distance,
            scope=config.prototypes,
            stop_gradient=config.stop_gradient,
            reduction=config.reduction,
        )
