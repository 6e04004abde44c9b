"""The part of a training model that fills in masked images, wherever it is kept, and what it makes of one image.

H, W: pixels of one image. Pictures are uint8 (H, W, 3) RGB.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from transformers import PreTrainedModel

from s4mim_hf.data.shrinking import shrink_label
from s4mim_hf.engine.build_model import add_training_heads
from s4mim_hf.engine.checkpoint import latest_checkpoint
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.finished_run import load_student
from s4mim_hf.engine.reconstruction import PATCH_NORMALIZED_NOTE, Reconstructor, to_pixel_values
from s4mim_hf.engine.run import CONFIG_FILE
from s4mim_hf.errors import InputError
from s4mim_hf.hub.load import LOADING_FAILURES
from s4mim_hf.methods import S4MIMMethodConfig, Task, build_method
from s4mim_hf.modeling import S4MIMForSemanticSegmentation, S4MIMForSemiSupervisedSegmentation

HEAD_SETTINGS_FILE = "reconstruction.json"
"""Beside a training model's weights: how its decoder learned, which the weights do not say."""

_UNKNOWN_TARGET_NOTE = (
    f"The folder holds no {HEAD_SETTINGS_FILE} that says how the decoder learned; it is shown as one of the default "
    "settings."
)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ReconstructionHead:
    """A training model that can reconstruct, in evaluation mode.

    Attributes:
        student: with its mask token and reconstruction decoder.
        method: how it learned: patches, ratio, and what it reconstructs.
        is_default: whether `method` is today's default because nothing else is known.
        mean, std: per channel, of images in [0, 1].
    """

    student: S4MIMForSemiSupervisedSegmentation
    method: S4MIMMethodConfig
    is_default: bool
    mean: Triple
    std: Triple

    def to(self, device: torch.device | str) -> ReconstructionHead:
        """Return the same on a device."""
        return replace(self, student=self.student.to(device))

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside its pictures."""
        normalized = self.method.reconstruction.target == "patch_normalized"
        return (PATCH_NORMALIZED_NOTE,) * normalized + (_UNKNOWN_TARGET_NOTE,) * self.is_default


@dataclass(frozen=True)
class Filled:
    """One image masked and filled in: pictures uint8 (H, W, 3), and the classes that were kept apart, integer (H, W).

    `class_map` is what the decoder was given, in squares of its stride; where it reconstructs all classes together, the
    classes of the pixels.
    """

    image: np.ndarray
    class_map: np.ndarray
    masked: np.ndarray
    filled: np.ndarray


def fill_in(
    head: ReconstructionHead, image: np.ndarray, ids: np.ndarray, *, ratio: float, patch_size: int, seed: int
) -> Filled:
    """Mask patches of an image and let the head fill them in.

    Args:
        head: on any device.
        image: uint8 (H, W, 3).
        ids: class ids, uint8, of the same or a larger size; the pixel at each centre counts.
        ratio: masked share of the pixels, above 0 and below 1.
        patch_size: edge of a masked patch in pixels, at least 1.
        seed: of the mask.
    """
    method, config = head.method, head.student.config
    learned = Reconstructor(method, config.num_labels, config.semantic_loss_ignore_index, head.mean, head.std)
    # The mask is the visitor's; what the decoder's numbers mean (normalised over which patches) is what it learned.
    asked = replace(
        learned, method=replace(method, masking=replace(method.masking, ratio=ratio, patch_size=patch_size))
    )
    device = next(head.student.parameters()).device
    small = shrink_label(ids, (image.shape[0], image.shape[1]))
    prediction = torch.from_numpy(small.astype(np.int64))[None].to(device)
    # A copy: torch warns of Pillow's pixels, which cannot be written to.
    pixels = to_pixel_values(image.copy(), head.mean, head.std).to(device)
    found = learned.reconstruct(head.student, pixels, asked.patch_mask(prediction, seed, 0), prediction)
    return Filled(image, small if found.class_map is None else found.class_map, found.masked, found.filled)


def head_of_run(folder: Path, segmenter: PreTrainedModel, processor: Any) -> ReconstructionHead | None:
    """Return the student of a run's last checkpoint, or None where it has no decoder or no checkpoint is kept.

    Neither the run's data nor its pretrained backbone is needed: `segmenter` says what the student is built like.

    Raises:
        InputError: the run's configuration or the checkpoint is damaged.
    """
    config, checkpoint = load_run_config(folder / CONFIG_FILE), latest_checkpoint(folder)
    method = config.method
    if checkpoint is None or not isinstance(method, S4MIMMethodConfig) or method.reconstruction.weight == 0:
        return None
    assert isinstance(segmenter, S4MIMForSemanticSegmentation), "a run saves no other"
    mean, std = _statistics(processor)
    task = Task(
        num_labels=segmenter.config.num_labels,
        ignore_index=segmenter.config.semantic_loss_ignore_index,
        image_mean=mean,
        image_std=std,
        feature_stride=segmenter.feature_stride,
        feature_channels=segmenter.backbone.map_channels,
    )
    # How it was run: the weights are the same without, and this machine may have no GPU.
    anywhere = replace(config.model, sync_batch_norm=False, mim_attention="auto")
    # The saved model is the teacher's and stays so: the student's weights go into a copy.
    student = add_training_heads(copy.deepcopy(segmenter), anywhere, build_method(method, task))
    load_student(student, checkpoint)
    return ReconstructionHead(student.eval(), method, False, mean, std)


def head_of_saved(source: Path | str, processor: Any) -> ReconstructionHead | None:
    """Return the training model that `save_pretrained` wrote into a folder or a Hub repository, if it has a decoder.

    Raises:
        InputError: its weights are not whole, or the file of its settings is damaged.
    """
    try:
        student, report = S4MIMForSemiSupervisedSegmentation.from_pretrained(source, output_loading_info=True)
    except LOADING_FAILURES as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"no training model can be loaded from {source}: {reason}; save it again") from None
    if student.mim_decoder is None or student.config.mask_token == "none":
        return None
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{source} lacks {len(missing)} of its weights, such as {missing[0]}; save the model again")
    settings = Path(source) / HEAD_SETTINGS_FILE
    method = _read_settings(settings) if settings.is_file() else S4MIMMethodConfig()
    return ReconstructionHead(student.eval(), method, not settings.is_file(), *_statistics(processor))


def save_head(head: ReconstructionHead, folder: Path) -> None:
    """Write the training model and how it learned, from which `head_of_saved` loads the same."""
    head.student.save_pretrained(folder)
    if not head.is_default:
        text = json.dumps(dataclasses.asdict(head.method), indent=2)
        (folder / HEAD_SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def _read_settings(path: Path) -> S4MIMMethodConfig:
    try:
        return S4MIMMethodConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged ({reason}); write it again, or delete it") from None


def _statistics(processor: Any) -> tuple[Triple, Triple]:
    mean, std = (tuple(float(value) for value in values) for values in (processor.image_mean, processor.image_std))
    return mean, std  # type: ignore[return-value]  # three channels each
