"""Hooks that draw: panels of validation images, and the run's curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import torch

from s4mim_hf.data.prepared import decode_image, decode_label
from s4mim_hf.engine.hooks import Hook, MetricsFile, is_due
from s4mim_hf.engine.reconstruction import Reconstructor, cut_to_window, pick_rows, to_pixel_values
from s4mim_hf.engine.trainer import Trainer
from s4mim_hf.evaluation.inference import predict_logits
from s4mim_hf.methods import S4MIMMethodConfig
from s4mim_hf.visualization import PanelRow, draw_curves, draw_panels


class PanelHook(Hook):
    """Draws panels/step_N.png: image, truth, prediction and, with a decoder, its class map, masked image and x̂.

    Predictions are by the protocol of the run's evaluation; where that has windows the panel shows the image's centre.

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
        self._rows = pick_rows(data, count)
        self._interval = interval
        self._folder = folder
        self._id2label = id2label
        self._palette = palette
        self._ignore_index = ignore_index
        self._image_mean = image_mean
        self._image_std = image_std

    def after_step(self, trainer: Trainer) -> None:
        """Draw when it is time; the pictures have no influence on the run."""
        if is_due(trainer, self._interval) and trainer.accelerator.is_main_process:
            self._draw(trainer)

    def after_training(self, trainer: Trainer) -> None:
        """Draw the last panel of a run that was killed before it could."""
        if trainer.accelerator.is_main_process and not self._path(trainer).exists():
            self._draw(trainer)

    def _path(self, trainer: Trainer) -> Path:
        return self._folder / f"step_{trainer.step}.png"

    def _draw(self, trainer: Trainer) -> None:
        student, method = trainer.unwrapped_student, trainer.config.method
        reconstructor = None
        if isinstance(method, S4MIMMethodConfig) and student.config.mim_decoder:
            reconstructor = Reconstructor(
                method, len(self._id2label), self._ignore_index, self._image_mean, self._image_std
            )
        was_training = student.training
        student.eval()
        with torch.inference_mode(), trainer.accelerator.autocast():
            rows = [self._panel_row(trainer, reconstructor, row, number) for number, row in enumerate(self._rows)]
        student.train(was_training)
        self._folder.mkdir(exist_ok=True)
        note = reconstructor.note if reconstructor else ""
        draw_panels(rows, self._id2label, self._palette, self._path(trainer), self._ignore_index, note)

    def _panel_row(
        self, trainer: Trainer, reconstructor: Reconstructor | None, row: dict[str, dict[str, bytes]], number: int
    ) -> PanelRow:
        inference = trainer.config.evaluation.inference
        image = cut_to_window(decode_image(row["image"]["bytes"]), inference)
        pixel_values = to_pixel_values(image, self._image_mean, self._image_std).to(trainer.accelerator.device)
        prediction = predict_logits(trainer.teacher.model, pixel_values, inference).argmax(dim=1)
        panel_row = PanelRow(
            image=image,
            truth=cut_to_window(decode_label(row["label"]["bytes"]), inference),
            prediction=prediction[0].cpu().numpy().astype(np.uint8),
        )
        if reconstructor is None:
            return panel_row
        mask = reconstructor.patch_mask(prediction, trainer.config.seed, number)
        found = reconstructor.reconstruct(trainer.unwrapped_student, pixel_values, mask, prediction)
        return replace(panel_row, masked=found.masked, reconstruction=found.filled, class_map=found.class_map)


class CurveHook(Hook):
    """Draws curves.png from metrics.jsonl at the end."""

    def __init__(self, metrics: MetricsFile, path: Path) -> None:
        self._metrics = metrics
        self._path = path

    def after_training(self, trainer: Trainer) -> None:
        """Draw the losses and the mIoU over the steps."""
        if trainer.accelerator.is_main_process:
            draw_curves(self._metrics.read(), self._path)
