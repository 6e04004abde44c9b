"""A model's folder on its way to the Hub: which of its files are the model, and whether they are whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from s4mim_hf.errors import InputError, some
from s4mim_hf.hub.card_facts import FACTS_FILE, read_json
from s4mim_hf.hub.weight_files import INDEX, check_weight_files

CARD = "README.md"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
# What belongs to a model; anything else in its folder stays here.
MODEL_FILES = ("config.json", *PROCESSORS, "model*.safetensors", INDEX, "*.py", FACTS_FILE, "LICENSE*")
MODEL_TYPE = "s4mim"


@dataclass(frozen=True)
class ModelFolder:
    """A whole model.

    Attributes:
        path: the folder.
        config: its config.json.
        files: names of the files that are the model, without its card.
        left_out: names of what else is there.
    """

    path: Path
    config: dict[str, Any]
    files: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def id2label(self) -> dict[int, str]:
        """Return class names by id."""
        return {int(index): str(name) for index, name in self.config["id2label"].items()}


def read_model_folder(path: Path) -> ModelFolder:
    """List a model's files, and check that they are a whole model of this library. No weight is loaded.

    Args:
        path: a folder that `save_pretrained` of a model and of its image processor wrote.

    Raises:
        InputError: it is none, or lacks something.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"{path} is no model folder: it has no config.json; give a run's folder, or its model/")
    config = read_json(path / "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise InputError(
            f"{path} holds a model of type {config.get('model_type')!r}, and only those of s4mim_hf ({MODEL_TYPE!r}) "
            "are published here; upload it with `hf upload`"
        )
    if not isinstance(config.get("id2label"), dict) or not config["id2label"]:
        raise InputError(f"{path / 'config.json'} names no classes (id2label); save the model again with them")
    found = sorted(entry.name for entry in path.iterdir())
    files = [name for name in found if (path / name).is_file() and any(fnmatch(name, kind) for kind in MODEL_FILES)]
    check_weight_files(path, path)
    if not any(name in found for name in PROCESSORS):
        raise InputError(
            f"{path} has no image processor (preprocessor_config.json); save one beside the model with "
            "processor.save_pretrained"
        )
    _check_code(path, config)
    return ModelFolder(path, config, tuple(files), tuple(name for name in found if name not in (*files, CARD)))


def _check_code(path: Path, config: dict[str, Any]) -> None:
    """Refuse a folder without the code that it says it is loaded by."""
    named = config.get("auto_map")
    if not isinstance(named, dict) or not named:
        raise InputError(
            f"{path / 'config.json'} names no code (auto_map), so that nobody without s4mim_hf could load the model; "
            "save it again with save_pretrained of this library"
        )
    modules = {f"{str(reference).partition('.')[0]}.py" for reference in named.values() if "--" not in str(reference)}
    missing = sorted(module for module in modules if not (path / module).is_file())
    if missing:
        raise InputError(
            f"{path} lacks its code: config.json names {some(missing)}; save it again with save_pretrained of this "
            "library"
        )


def public_config(model: ModelFolder, clean: Any) -> bytes | None:
    """Return config.json as it may be seen, where that differs from the file; `clean` takes and gives its content."""
    cleaned = clean(model.config)
    return None if cleaned == model.config else (json.dumps(cleaned, indent=2) + "\n").encode()
