"""Load a model for use: from a folder or the Hub, whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
)

# Lets the Auto classes above know ours (the package registers them when it is imported).
import s4mim_hf  # noqa: F401
from s4mim_hf.data.catalog import Color, default_palette
from s4mim_hf.errors import InputError
from s4mim_hf.hub.weight_files import SAFETENSORS, check_weight_files, read_config
from s4mim_hf.hub_access import hub_errors
from s4mim_hf.modeling.backbone_weights import one_line, quiet_loading

# What is downloaded of a repository: no code, and no weights but safetensors.
FILES = ("config.json", "preprocessor_config.json", "processor_config.json", *SAFETENSORS)
LOADING_FAILURES = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip


def load_model(name: str | Path) -> tuple[PreTrainedModel, Any]:
    """Load a segmenter, in evaluation mode, and its image processor.

    Args:
        name: a folder that `save_pretrained` wrote, or a Hub repository's id. Code of a repository is not run, and no
            weights but safetensors are read.

    Returns:
        (model, processor).

    Raises:
        InputError: there is no such model, it is no segmenter, its weights are not whole or not its own, or it lacks a
            processor.
    """
    folder = _folder_of(str(name), Path(name).expanduser())
    _check_type(name, folder)
    check_weight_files(folder, name)
    try:
        with quiet_loading():
            # Weights of other shapes would be an error that names none of them.
            model, report = AutoModelForSemanticSegmentation.from_pretrained(
                str(folder), output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True
            )
    except LOADING_FAILURES as error:
        raise InputError(f"no segmentation model can be loaded from {name}: {one_line(error)}") from None
    _check_report(name, report)
    try:
        processor = AutoImageProcessor.from_pretrained(str(folder))
    except LOADING_FAILURES as error:
        raise InputError(
            f"{name} has no image processor that can be loaded: {one_line(error)}; "
            "save one beside the model with processor.save_pretrained"
        ) from None
    return model.eval(), processor


def _folder_of(name: str, folder: Path) -> Path:
    """Return the folder that holds a model's files; a local path that is none is no name on the Hub either."""
    if folder.is_dir() and name:
        if (folder / "config.json").is_file():
            return folder
        inside = folder / "model"
        hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else "; give a folder that holds one"
        raise InputError(f"{folder} is no model folder: it has no config.json{hint}")
    if folder.is_file():
        raise InputError(f"{folder} is a file; give the folder of a saved model, or a Hub id")
    if name.startswith((".", "/", "~")) or "\\" in name:
        raise InputError(f"there is no model folder {folder}; give one that training has written, or a Hub id")
    if not _is_repository_id(name):
        raise InputError(
            f"{name!r} is neither a folder that is there nor the id of a Hub repository, which reads USER/NAME; "
            "give one of them"
        )
    with hub_errors(f"the model {name}", "load"):
        downloaded = Path(snapshot_download(name, allow_patterns=list(FILES)))
    if not (downloaded / "config.json").is_file():
        raise InputError(f"the repository {name} has no config.json, so it holds no model; check its name")
    return downloaded


def _is_repository_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _check_type(name: str | Path, folder: Path) -> None:
    """Refuse a model that is no segmenter, by its configuration."""
    model_type = read_config(folder, name).get("model_type")
    try:
        config = AutoConfig.from_pretrained(str(folder))
    except LOADING_FAILURES as error:
        raise InputError(f"no segmentation model can be loaded from {name}: {one_line(error)}") from None
    if type(config) not in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        raise InputError(
            f"{name} holds a model of type {model_type!r}, which segments nothing; give a model that was trained here, "
            "or another one of transformers' semantic segmenters"
        )


def _check_report(name: str | Path, report: dict[str, Any]) -> None:
    """Refuse weights that are not there or do not fit, which transformers fills with random numbers."""
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        key, found, expected = mismatched[0]
        raise InputError(
            f"{name} has {len(mismatched)} weights of other shapes than its config.json means, such as {key}: "
            f"{tuple(found)} instead of {tuple(expected)}; take both files from the same model"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"{name} lacks {len(missing)} of its weights, such as {missing[0]}; save the model again")


def model_palette(model: PreTrainedModel) -> tuple[Color, ...]:
    """Return the class colours that the model's configuration names, or the usual colour map."""
    palette = getattr(model.config, "palette", None)
    if palette:
        return tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
    return tuple(default_palette(model.config.num_labels))
