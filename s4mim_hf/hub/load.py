"""Load a model for use: from a folder or the Hub, whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, PreTrainedModel

# Lets the Auto classes above know ours (the package registers them when it is imported).
import s4mim_hf  # noqa: F401
from s4mim_hf.data.catalog import Color, default_palette
from s4mim_hf.errors import InputError

LOADING_FAILURES = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip


def load_model(name: str | Path) -> tuple[PreTrainedModel, Any]:
    """Load a segmenter, in evaluation mode, and its image processor.

    Args:
        name: a folder that `save_pretrained` wrote, or a Hub repository's id. Code of a repository is not run.

    Returns:
        (model, processor).

    Raises:
        InputError: there is no such model, it is no segmenter, its weights are not whole, or it lacks a processor.
    """
    folder = Path(name).expanduser()
    _check_folder(str(name), folder)
    source = str(folder) if folder.is_dir() else str(name)
    try:
        model, report = AutoModelForSemanticSegmentation.from_pretrained(source, output_loading_info=True)
    except LOADING_FAILURES as error:
        raise InputError(f"no segmentation model can be loaded from {name}: {_one_line(error)}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers only warns, and fills them with random numbers.
        raise InputError(f"{name} lacks {len(missing)} of its weights, such as {missing[0]}; save the model again")
    try:
        processor = AutoImageProcessor.from_pretrained(source)
    except LOADING_FAILURES as error:
        raise InputError(
            f"{name} has no image processor that can be loaded: {_one_line(error)}; "
            "save one beside the model with processor.save_pretrained"
        ) from None
    return model.eval(), processor


def _check_folder(name: str, folder: Path) -> None:
    """Refuse a local path that holds no model, before the Hub is asked for a repository of that name."""
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return
        inside = folder / "model"
        hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else "; give a folder that holds one"
        raise InputError(f"{folder} is no model folder: it has no config.json{hint}")
    if folder.exists():
        raise InputError(f"{folder} is a file; give the folder of a saved model, or a Hub id")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(f"there is no model folder {folder}; give one that training has written, or a Hub id")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def model_palette(model: PreTrainedModel) -> tuple[Color, ...]:
    """Return the class colours that the model's configuration names, or the usual colour map."""
    palette = getattr(model.config, "palette", None)
    if palette:
        return tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
    return tuple(default_palette(model.config.num_labels))
