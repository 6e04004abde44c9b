"""Reads one network's weights out of a peer's .pth, without running anything that the file may hold."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from s4mim_hf.errors import InputError, some

Weights = Literal["student", "teacher"]

# What the peers' training scripts call the trained network and its moving average.
ENTRIES: dict[Weights, str] = {"student": "model", "teacher": "model_ema"}

_FAILURES = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError,
    AttributeError, AssertionError, struct.error,
)  # fmt: skip
_PARALLEL = "module."
_FOREIGN = re.compile(r"(?:GLOBAL|Unsupported class|load unsupported GLOBAL) ([\w.]+)")


class _NumberLeftOut:
    """Stands for numpy's numbers: the peers save their best mean IoU as one, and nothing here reads it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# By the names that numpy 1 and numpy 2 pickle a scalar under.
_NUMPY_NUMBERS: list[Any] = [
    (_NumberLeftOut, name)
    for name in (
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32")),
    )
]


@dataclass(frozen=True)
class PeerWeights:
    """One network's weights, as they lie in a file.

    Attributes:
        state: tensors on the CPU by the peer's names, without the prefix that several GPUs leave.
        weights: which network that is; a bare state dict is the student's.
        entry: what it is called in the file; None for a bare state dict.
        sha256: of the whole file.
    """

    state: Mapping[str, torch.Tensor]
    weights: Weights
    entry: str | None
    sha256: str


def read_checkpoint(path: Path, weights: Weights | None = None) -> PeerWeights:
    """Read a checkpoint of torch.save: a state dict, or a training state with `model` and perhaps `model_ema`.

    Args:
        path: the file.
        weights: which network; None for the moving average where there is one, as the better one.

    Raises:
        InputError: there is no such file, it is cut short or of another kind, it holds objects of other classes than
            tensors and plain values, or it lacks the network that is asked for.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the peer's .pth file")
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}; download it from the peer's page first")
    content = _load(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, but a checkpoint is a dictionary of weights")
    found = {kind: entry for kind, entry in ENTRIES.items() if isinstance(content.get(entry), Mapping)}
    if not found:
        if weights == "teacher":
            raise InputError(f"{path} is one network's weights, without a teacher's; leave --weights out")
        return PeerWeights(_tensors(content, path, None), "student", None, file_hash(path))
    chosen: Weights = weights or ("teacher" if "teacher" in found else "student")
    if chosen not in found:
        raise InputError(
            f"{path} has no {chosen}'s weights ({ENTRIES[chosen]!r}); its entries are {some(map(str, content), 6)}; "
            f"leave --weights out"
        )
    entry = found[chosen]
    return PeerWeights(_tensors(content[entry], path, entry), chosen, entry, file_hash(path))


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            beginning = file.read(64).lstrip()
        if beginning.startswith(b"<"):
            raise InputError(
                f"{path} is a web page, not a checkpoint: the download has answered with a question; download it again"
            )
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except _FAILURES as error:
        foreign = _FOREIGN.search(str(error))
        if isinstance(error, pickle.UnpicklingError) and foreign:
            raise InputError(
                f"{path} holds more than weights, an object of {foreign[1]}, and loading that could run any code; "
                "save the network's state_dict() alone, and convert that"
            ) from None
        # What other errors say is about the unpickler's inside.
        cause = f": {' '.join(str(error).split())[:120]}" if isinstance(error, OSError | RuntimeError) else ""
        raise InputError(
            f"{path} cannot be read as a checkpoint of torch.save{cause}; is the file cut short or of another kind? "
            "download it again"
        ) from None


def _tensors(state: Mapping[Any, Any], path: Path, entry: str | None) -> dict[str, torch.Tensor]:
    """Check that a state dict is one, and drop what DistributedDataParallel puts before every name."""
    where = f"{path}" if entry is None else f"{entry!r} in {path}"
    if not state:
        raise InputError(f"{where} is empty; give a trained network's checkpoint")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{where} has {key!r}, a {type(value).__name__}, where a tensor is expected; give a network's state "
                "dict, or a training state that has it as 'model'"
            )
    if all(key.startswith(_PARALLEL) for key in state):
        return {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    return dict(state)
