"""Which model a name stands for: a model folder, a Hub id, a run's folder, or a folder of a Space.

A segmenter comes from `load_model`. A head that reconstructs masked images comes from

- a run's folder: the student of its last checkpoint, beside `model/`;
- a folder that `S4MIMForSemiSupervisedSegmentation.save_pretrained` wrote;
- `reconstruction/` beside `model/`, as `save_demo_model` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from s4mim_hf.data.catalog import Color
from s4mim_hf.demo.heads import (
    HEAD_SETTINGS_FILE,
    ReconstructionHead,
    head_of_run,
    head_of_saved,
    save_head,
)
from s4mim_hf.engine.run import CONFIG_FILE
from s4mim_hf.errors import InputError
from s4mim_hf.hub.load import load_model, model_palette

# One byte per pixel in the PNG that is offered.
MAX_CLASSES = 256
_SEGMENTER, _HEAD = "model", "reconstruction"
_TRAINING_MODEL = "S4MIMForSemiSupervisedSegmentation"


@dataclass(frozen=True)
class DemoModel:
    """One model of the page, in evaluation mode, on its device.

    Attributes:
        source: what was asked for.
        label: its short name on the page.
        segmenter: `.logits` of `pixel_values` are (B, K, h, w).
        processor: its image processor.
        classes: the names of ids 0 .. K-1.
        palette: their colours.
        head: what reconstructs masked images; None: it has none.
    """

    source: str
    label: str
    segmenter: PreTrainedModel
    processor: Any
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    head: ReconstructionHead | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.segmenter.parameters()).device


def open_model(name: str, device: torch.device | str = "cpu") -> DemoModel:
    """Load what `name` stands for; see above.

    Raises:
        InputError: there is no such model, it is no segmenter, its weights are not whole, it has more than 256 classes,
            or a run's folder has no model yet.
    """
    folder = Path(name).expanduser()
    # A published model's folder tells its run's configuration as well.
    is_run = (folder / CONFIG_FILE).is_file() and not (folder / "config.json").is_file()
    is_saved = (folder / _HEAD / "config.json").is_file()
    if is_run and not (folder / _SEGMENTER / "config.json").is_file():
        raise InputError(f"the run in {folder} has no {_SEGMENTER}/ yet; train it until its first evaluation is done")
    source = folder if folder.is_dir() else name
    # A run's folder, a Space's, or one that holds a model under that name.
    if (folder / _SEGMENTER / "config.json").is_file() and not (folder / "config.json").is_file():
        source = folder / _SEGMENTER
    segmenter, processor = load_model(source)
    count = segmenter.config.num_labels
    if count > MAX_CLASSES:
        raise InputError(f"{name} has {count} classes, and the page shows at most {MAX_CLASSES}; give another model")
    head = None
    if is_run:
        head = head_of_run(folder, segmenter, processor)
    elif is_saved:
        head = head_of_saved(folder / _HEAD, processor)
    elif _TRAINING_MODEL in (getattr(segmenter.config, "architectures", None) or ()):
        head = head_of_saved(source, processor)
    return DemoModel(
        source=str(name),
        label=_label(folder),
        segmenter=segmenter.to(device),
        processor=processor,
        classes=tuple(segmenter.config.id2label.get(index, f"class {index}") for index in range(count)),
        palette=model_palette(segmenter),
        head=None if head is None else head.to(device),
    )


def _label(path: Path) -> str:
    """Return the last part of a path that says something."""
    parts = [part for part in path.resolve().parts[-2:] if part != _SEGMENTER] if path.exists() else [path.name]
    return parts[-1] if parts else str(path)


def save_demo_model(model: DemoModel, folder: Path) -> None:
    """Write `model/` and, with a head, `reconstruction/` into `folder`, from which `open_model` loads the same."""
    model.segmenter.save_pretrained(folder / _SEGMENTER)
    model.processor.save_pretrained(folder / _SEGMENTER)
    if model.head is not None:
        save_head(model.head, folder / _HEAD)


def classes_agree(models: tuple[DemoModel, ...]) -> bool:
    """Say whether all models mean the same by an id."""
    return all(model.classes == models[0].classes for model in models)


__all__ = ["HEAD_SETTINGS_FILE", "DemoModel", "classes_agree", "open_model", "save_demo_model"]
