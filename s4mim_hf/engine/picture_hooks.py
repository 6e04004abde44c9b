"""Hooks that draw: panels of validation images, and the run's curves."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor

from s4mim_hf.data.prepared import decode_image, decode_label
from s4mim_hf.engine.hooks import Hook, MetricsFile, is_due
from s4mim_hf.engine.trainer import Trainer
from s4mim_hf.losses import patch_statistics
from s4mim_hf.masking import downsample_class_map, downsample_mask, draw_patch_grid, expand_grid
from s4mim_hf.methods import S4MIMMethodConfig
from s4mim_hf.randomness import generator
from s4mim_hf.visualization import PanelRow, draw_curves, draw_panels


class PanelHook(Hook):
    """Draws panels/step_N.png: image, truth, prediction and, with a reconstruction head, masked image and x̂.

    Args:
        data: the validation split, from which `count` images are taken at even distances.
        count: rows of a panel.
        interval: steps between panels.
        folder: where they go.
        id2label: class names.
        palette: class colours.
        ignore_index: the id of unknown pixels.
        image_mean: per channel, of images in [0, 1].
        image_std: per channel.
    """

    def __init__(
        self,
        data: datasets.Dataset,
        *,
        count: int,
        interval: int,
        folder: Path,
        id2label: dict[int, str],
        palette: list[tuple[int, int, int]],
        ignore_index: int,
        image_mean: tuple[float, float, float],
        image_std: tuple[float, float, float],
    ) -> None:
        picked = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
        self._rows = [data[int(index)] for index in picked]
        self._interval = interval
        self._folder = folder
        self._id2label = id2label
        self._palette = palette
        self._ignore_index = ignore_index
        self._mean = torch.tensor(image_mean).view(1, 3, 1, 1)
        self._std = torch.tensor(image_std).view(1, 3, 1, 1)

    def after_step(self, trainer: Trainer) -> None:
        """Draw when it is time; the pictures have no influence on the run."""
        if not is_due(trainer, self._interval) or not trainer.accelerator.is_main_process:
            return
        student = trainer.unwrapped_student
        was_training = student.training
        student.eval()
        with torch.inference_mode(), trainer.accelerator.autocast():
            rows = [self._panel_row(trainer, row, number) for number, row in enumerate(self._rows)]
        student.train(was_training)
        self._folder.mkdir(exist_ok=True)
        draw_panels(rows, self._id2label, self._palette, self._folder / f"step_{trainer.step}.png")

    def _panel_row(self, trainer: Trainer, row: dict[str, dict[str, bytes]], number: int) -> PanelRow:
        image = decode_image(row["image"]["bytes"])
        pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).float() / 255
        pixel_values = ((pixels - self._mean) / self._std).to(trainer.accelerator.device)
        prediction = trainer.teacher.model(pixel_values).logits.argmax(dim=1)
        masked, reconstruction = self._reconstruct(trainer, pixel_values, prediction, number)
        return PanelRow(
            image=image,
            truth=decode_label(row["label"]["bytes"]),
            prediction=prediction[0].cpu().numpy().astype(np.uint8),
            masked=masked,
            reconstruction=reconstruction,
        )

    def _reconstruct(
        self, trainer: Trainer, pixel_values: Tensor, prediction: Tensor, number: int
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the masked image and the image with its masked pixels reconstructed, (H, W, 3) uint8, or None."""
        student, method = trainer.unwrapped_student, trainer.config.method
        if not isinstance(method, S4MIMMethodConfig) or not student.config.mim_decoder:
            return None, None
        height, width = pixel_values.shape[-2:]
        draws = generator(trainer.config.seed, "panels", number)
        patch = method.masking.patch_size
        grid = draw_patch_grid(1, height, width, patch, method.masking.ratio, draws)
        mask = expand_grid(grid, patch, height, width).unsqueeze(1).to(pixel_values.device)
        stride = student.feature_stride
        class_map = downsample_class_map(prediction, stride, len(self._id2label), self._ignore_index)
        if method.reconstruction.regions == "image":
            class_map = torch.zeros_like(class_map)
        output = student(pixel_values, patch_mask=mask, feature_mask=downsample_mask(mask, stride), class_map=class_map)
        filled = output.reconstruction.float()
        if method.reconstruction.target == "patch_normalized":
            # For looking at only: each patch gets the clean image's mean and spread, which the target left out.
            mean, deviation = patch_statistics(pixel_values, patch)
            filled = filled * deviation + mean
        seen = pixel_values.masked_fill(mask, 0.0)
        return self._to_image(seen), self._to_image(torch.where(mask, filled, pixel_values))

    def _to_image(self, pixel_values: Tensor) -> np.ndarray:
        pixels = (pixel_values.cpu() * self._std + self._mean).clamp(0, 1)[0]
        return (pixels.permute(1, 2, 0) * 255).round().byte().numpy()


class CurveHook(Hook):
    """Draws curves.png from metrics.jsonl at the end."""

    def __init__(self, metrics: MetricsFile, path: Path) -> None:
        self._metrics = metrics
        self._path = path

    def after_training(self, trainer: Trainer) -> None:
        """Draw the losses and the mIoU over the steps."""
        if trainer.accelerator.is_main_process:
            draw_curves(self._metrics.read(), self._path)
