"""Whose predictions a folder holds: it belongs to one model, one protocol and, where shards depend on it, one list."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s4mim_hf.data.prepared_writer.partial import only_writer
from s4mim_hf.errors import InputError
from s4mim_hf.locking import LOCK_FILE
from s4mim_hf.prediction.shards import write_json

RECORD = "prediction.json"
# Where people's own folders are.
_HOMES = (Path("/home"), Path("/Users"))


def weights_hash(model: nn.Module) -> str:
    """Return a sha256 in hex over names and values of a model's weights, wherever it is loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def model_in_words(name: str) -> str:
    """Return a model's name for what may be published: of a path on this machine, the folder's name alone.

    A run's is runs/NAME/model, where the part before tells which; but not if that is a person's name.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        return name
    folder = Path(os.path.abspath(path))
    before = folder.parent
    is_personal = before in (Path.home(), *_HOMES) or before.parent in _HOMES
    return folder.name if folder.name != "model" or is_personal or not before.name else f"{before.name}/model"


@contextmanager
def claimed(folder: Path, output: Path, identity: Mapping[str, Any], more: Mapping[str, Any]) -> Iterator[None]:
    """Hold a folder for this call, once it is sure that it holds the same predictions or none.

    Args:
        folder: where predictions go.
        output: what a person calls it.
        identity: what must be the same as before: "weights", "protocol", ...
        more: what is written down beside it: "model" and others.

    Raises:
        InputError: the folder cannot be written, holds other predictions, or another process is writing it.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(only_writer(folder / LOCK_FILE, output))
            _check(folder, identity, more)
            write_json(folder / RECORD, {**more, **identity})
        except OSError as error:
            raise InputError(
                f"{output} cannot be used for output: {error.strerror or error}; give another --output"
            ) from None
        yield


def _check(folder: Path, identity: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    """Refuse a folder whose record says otherwise; what an older record does not say is taken to be the same."""
    try:
        before = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        changed = [key for key in identity if key in before and before[key] != identity[key]]
    except FileNotFoundError:
        return
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / RECORD} cannot be read: {error}; give another --output") from None
    if not changed:
        return
    key = changed[0]
    if key == "images":
        difference = "of other images than these"
    elif key != "weights":
        difference = f"with {key} {before[key]!r}, not {identity[key]!r}"
    elif before.get("model") == more.get("model"):
        difference = f"of other weights of model {more.get('model')!r} than it has now"
    else:
        difference = f"of model {before.get('model')!r}, not of {more.get('model')!r}"
    raise InputError(f"{folder} holds predictions {difference}; give another --output, or delete that folder")
