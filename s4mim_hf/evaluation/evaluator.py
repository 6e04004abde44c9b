"""Measure a segmenter on labelled images, in one process or many.

Shapes: K classes; a confusion matrix is int64 (K, K), rows labels and columns predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn
from tqdm import tqdm

from s4mim_hf.data.prepared import decode_image, decode_label
from s4mim_hf.data.shrinking import shrink_pixels
from s4mim_hf.errors import InputError, some
from s4mim_hf.evaluation.batching import read_ahead, same_size_batches
from s4mim_hf.evaluation.inference import InferenceConfig, center_box, predict_logits, shrinking_in_words
from s4mim_hf.evaluation.mean_iou import Scores, confusion_matrix, scores
from s4mim_hf.modeling.image_processing_s4mim import class_map


class LabeledImage(NamedTuple):
    """A decoded row: its number, image uint8 (H, W, 3) as the model sees it, and label uint8 (H', W').

    The label is larger where the image was shrunk, and the centre crop's where only that counts.
    """

    row: int
    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class EvaluationResult:
    """What a model scored, under which protocol, on what.

    Attributes:
        scores: the five numbers.
        confusion: int64 (K, K) on the CPU, over all processes.
        protocol: `InferenceConfig.describe()`.
        data: the data's name and split.
        images: how many images were counted.
    """

    scores: Scores
    confusion: Tensor
    protocol: str
    data: str
    images: int

    def table(self, id2label: dict[int, str]) -> Table:
        """Return the classes' numbers and the means, in percent; no wider than 80 columns."""
        widest = max(len(self.data), len(self.protocol))
        # A title wraps at the table's width.
        table = Table(title=f"{self.data}\n{self.protocol}", min_width=min(widest + 2, 80))
        table.add_column("class", max_width=40)
        for name in ("IoU %", "accuracy %", "pixels %"):
            table.add_column(name, justify="right")
        labelled, total = self.confusion.sum(dim=1), max(1, int(self.confusion.sum()))
        for index, (iou, accuracy) in enumerate(
            zip(self.scores.per_category_iou, self.scores.per_category_accuracy, strict=True)
        ):
            share = f"{100 * int(labelled[index]) / total:.2f}"
            table.add_row(id2label.get(index, str(index)), percent(iou), percent(accuracy), share)
        table.add_section()
        table.add_row("mean", percent(self.scores.mean_iou), percent(self.scores.mean_accuracy), "")
        table.add_row("all pixels", "", percent(self.scores.overall_accuracy), "")
        return table

    def to_dict(self, id2label: dict[int, str]) -> dict[str, Any]:
        """Return everything in a form that JSON can say."""
        return {
            **self.scores.to_dict(),
            "classes": [id2label.get(index, str(index)) for index in range(len(self.confusion))],
            "confusion": self.confusion.tolist(),
            "protocol": self.protocol,
            "data": self.data,
            "images": self.images,
        }


def percent(value: float) -> str:
    """Write a share as percent with two digits, and NaN as a dash."""
    return "–" if value != value else f"{100 * value:.2f}"


class Evaluator:
    """Evaluates models on one labelled data set.

    Images of one size share a batch; none is padded or resized for that. Each image is counted once: process `rank`
    takes the rows rank, rank + world_size, ..., and only the counts are summed.

    Args:
        data: rows `{"id": str, "image": {"bytes": ...}, "label": {"bytes": ...}}`.
        id2label: class names of the ids 0 .. K-1.
        ignore_index: the label id that does not count.
        image_mean: per channel, of images in [0, 1].
        image_std: per channel.
        inference: the protocol.
        max_side: larger images are shrunk to this longest side, which the model was trained with, and scored at their
            labels' size; None: none are.
        batch_size: images in a batch; at least 1.
        data_name: what the data and split are called in results, such as "camvid validation, 101 images".
        device: where the model runs.
        rank: this process's number.
        world_size: how many processes there are.
        reduce: sums an int64 tensor over processes, such as `accelerator.reduce`; needed where there are several.
        progress: whether this process shows a bar.
        on_prediction: called with a row's index, prediction and label, both uint8 (H, W), after each image.

    Raises:
        InputError: there is no row; while evaluating: an unreadable image, an image and label of two sizes, or a label
            id that is no class.
    """

    def __init__(
        self,
        data: Any,
        *,
        id2label: dict[int, str],
        image_mean: Sequence[float],
        image_std: Sequence[float],
        ignore_index: int = 255,
        inference: InferenceConfig | None = None,
        max_side: int | None = None,
        batch_size: int = 4,
        data_name: str = "data",
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        reduce: Callable[[Tensor], Tensor] | None = None,
        progress: bool = False,
        on_prediction: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
    ) -> None:
        if data is None or len(data) == 0:
            raise InputError(f"{data_name} has no labelled image to evaluate on; name a split that has some")
        if batch_size < 1:
            raise InputError(f"the evaluation batch size is {batch_size}; it must be at least 1")
        assert world_size == 1 or reduce is not None, "several processes need a way to sum their counts"
        self.data, self.id2label, self.ignore_index = data, id2label, ignore_index
        self.inference, self.max_side = inference or InferenceConfig(), max_side
        self.batch_size, self.data_name, self.device = batch_size, data_name, torch.device(device)
        self.rank, self.world_size, self.reduce = rank, world_size, reduce
        self.progress, self.on_prediction = progress, on_prediction
        self._mean = torch.tensor(list(image_mean), device=self.device).view(1, -1, 1, 1)
        self._std = torch.tensor(list(image_std), device=self.device).view(1, -1, 1, 1)

    def evaluate(self, model: nn.Module) -> EvaluationResult:
        """Score `model`; every module's training mode is afterwards what it was."""
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            with torch.inference_mode():
                counts = self._count(model)
        finally:
            # Not model.train(): a part that was frozen on its own must stay so.
            for module, training in modes.items():
                module.training = training
        if self.reduce is not None:
            counts = self.reduce(counts)
        counts = counts.cpu()
        confusion, images = counts[:-1].view(len(self.id2label), -1), int(counts[-1])
        protocol = self.inference.describe() + shrinking_in_words(self.max_side)
        return EvaluationResult(scores(confusion), confusion, protocol, self.data_name, images)

    def _count(self, model: nn.Module) -> Tensor:
        """Return this process's confusion matrix, flattened, and then its number of images: int64 (K * K + 1,)."""
        classes = len(self.id2label)
        counts = torch.zeros(classes * classes + 1, dtype=torch.int64, device=self.device)
        rows = range(self.rank, len(self.data), self.world_size)
        with tqdm(total=len(rows), desc="evaluate", unit="image", disable=not self.progress, leave=False) as bar:
            read = read_ahead(self._read, rows, ahead=2 * self.batch_size)
            for batch in same_size_batches(read, lambda item: (item.image.shape, item.label.shape), self.batch_size):
                labels = torch.from_numpy(np.stack([item.label for item in batch])).to(self.device)
                predictions = self._predict(model, np.stack([item.image for item in batch]), batch[0].label.shape)
                counts[:-1] += confusion_matrix(predictions, labels, classes, self.ignore_index).view(-1)
                counts[-1] += len(batch)
                self._report(batch, predictions)
                bar.update(len(batch))
        return counts

    def _report(self, batch: list[LabeledImage], predictions: Tensor) -> None:
        if self.on_prediction is not None:
            maps = predictions.to(torch.uint8).cpu().numpy()
            for item, prediction in zip(batch, maps, strict=True):
                self.on_prediction(item.row, prediction, item.label)

    def _predict(self, model: nn.Module, images: np.ndarray, size: tuple[int, ...]) -> Tensor:
        """Return int64 (B, H', W') class maps of their labels' `size` for uint8 (B, H, W, 3) images."""
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        logits = predict_logits(model, (pixels - self._mean) / self._std, self.inference)
        return torch.stack([class_map(one, (size[0], size[1])) for one in logits])

    def _read(self, index: int) -> LabeledImage:
        """Decode a row; the label is cut to what counts."""
        row = self.data[index]
        name = f"{self.data_name}: image {row.get('id', '?')!r}"
        try:
            image, label = decode_image(row["image"]["bytes"]), decode_label(row["label"]["bytes"])
        except (OSError, ValueError) as error:
            raise InputError(f"{name} or its label cannot be read: {error}; prepare the data again") from None
        if image.shape[:2] != label.shape:
            sizes = f"{image.shape[1]}x{image.shape[0]} pixels and its label {label.shape[1]}x{label.shape[0]}"
            raise InputError(f"{name} has {sizes}; prepare the data again, with labels of their images' size")
        wrong = [int(i) for i in np.unique(label) if i >= len(self.id2label) and i != self.ignore_index]
        if wrong:
            expected = f"0 to {len(self.id2label) - 1}, or {self.ignore_index} to ignore a pixel"
            raise InputError(f"{name} has the label ids {some(map(str, wrong))}; expected {expected}")
        return self._as_shown(index, image, label, name)

    def _as_shown(self, index: int, image: np.ndarray, label: np.ndarray, name: str) -> LabeledImage:
        """Shrink the image where it is too large for the model, or else cut the label to what counts."""
        shown = image if self.max_side is None else shrink_pixels(image, self.max_side)
        if shown.shape == image.shape:
            return LabeledImage(index, image, label[center_box(label.shape[0], label.shape[1], self.inference)])
        if self.inference.protocol == "center_crop":
            raise InputError(
                f"{name} is {image.shape[1]}x{image.shape[0]}, but the model takes at most {self.max_side} pixels a "
                "side: a centre crop of what it sees is none of the label; use the whole image or --sliding-window"
            )
        return LabeledImage(index, shown, label)
