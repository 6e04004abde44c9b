"""A model folder's config.json and weights, looked at before anything is loaded from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from s4mim_hf.errors import InputError, some

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# How transformers names a model's weights, whole or in shards.
SAFETENSORS = (WEIGHTS, INDEX, "model-*-of-*.safetensors")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def read_config(folder: Path, name: str | Path) -> dict[str, Any]:
    """Return a folder's config.json.

    Args:
        folder: where it lies.
        name: what the user calls the model.

    Raises:
        InputError: it is no JSON, or names no type of model.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"config.json of {name} is no JSON ({error}); save the model again") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"config.json of {name} names no model_type, so it describes no model; save the model again")
    return config


def check_weight_files(folder: Path, name: str | Path) -> None:
    """Check that a folder has all of its weights as whole safetensors files. Only their headers are read.

    Raises:
        InputError: there are none, only pickled ones, or a file is missing, cut short or empty.
    """
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    elif (folder / INDEX).is_file():
        files = _shards(folder, name)
    else:
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        if pickled:
            raise InputError(
                f"{name} has its weights as {some(pickled)} only, which can run code when it is loaded and is not "
                f"read; save the model again as {WEIGHTS}"
            )
        raise InputError(f"{name} has no weights: there is no {WEIGHTS}; save the model again with save_pretrained")
    for file in files:
        try:
            with safe_open(str(folder / file), framework="pt") as weights:
                empty = not weights.keys()
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{file} of {name} is no whole safetensors file ({error}); copy or save the model again"
            ) from None
        if empty:
            raise InputError(f"{file} of {name} holds no weights; save the model again")


def _shards(folder: Path, name: str | Path) -> list[str]:
    try:
        files = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{INDEX} of {name} lists no weights; save the model again") from None
    missing = [file for file in files if not (folder / str(file)).is_file()]
    if missing or not files:
        raise InputError(f"{name} lacks {some(map(str, missing)) or 'all'} of its weight files; save the model again")
    return [str(file) for file in files]
