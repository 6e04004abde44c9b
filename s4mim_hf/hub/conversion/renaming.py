"""A peer's tensors under our names: each is used once, left out by name, or an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from s4mim_hf.errors import InputError, some
from s4mim_hf.modeling import S4MIMConfig, S4MIMForSemanticSegmentation

NORMALIZATION = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def normalized(convolution: str, normalization: str, ours: tuple[str, str]) -> dict[str, str]:
    """Name a convolution without bias, and the BatchNorm behind it: their prefixes, our prefixes."""
    names = {f"{convolution}.weight": f"{ours[0]}.weight"}
    return names | {f"{normalization}.{part}": f"{ours[1]}.{part}" for part in NORMALIZATION}


def shape_of(state: Mapping[str, torch.Tensor], key: str, dimensions: int = 4) -> torch.Size:
    """Return a tensor's shape, from which an architecture is read.

    Raises:
        InputError: it is not there, or has another number of dimensions.
    """
    if key not in state:
        raise InputError(f"{key!r} is missing; the checkpoint is not whole, or of another network")
    if state[key].ndim != dimensions:
        raise InputError(
            f"{key!r} has the shape {tuple(state[key].shape)}, but {dimensions} dimensions are expected; the "
            "checkpoint is of another network"
        )
    return state[key].shape


def count_numbered(keys: Iterable[str], prefix: str) -> int:
    """Return how many of `prefix`0., `prefix`1., ... there are.

    Raises:
        InputError: none, or one is missing between others.
    """
    found = {int(match[1]) for key in keys if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", key))}
    if found != set(range(len(found))) or not found:
        gap = min(set(range(len(found) + 1)) - found)
        raise InputError(f"'{prefix}{gap}.*' is missing; the checkpoint is not whole, or of another network")
    return len(found)


def rename(
    state: Mapping[str, torch.Tensor], names: Mapping[str, str], left_out: tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    """Return the tensors under our names.

    Args:
        state: by their names.
        names: ours by theirs, all that the network has.
        left_out: prefixes of theirs that have no place in ours.

    Raises:
        InputError: a tensor is missing, or one more is there that would be lost.
    """
    missing = [key for key in names if key not in state]
    if missing:
        raise InputError(f"{len(missing)} weights are missing ({some(missing)}); the checkpoint is not whole")
    extra = [key for key in state if key not in names and not key.startswith(left_out)]
    if extra:
        raise InputError(
            f"{len(extra)} weights have no place in the network ({some(extra)}); it is another architecture, which "
            "would be converted only in part"
        )
    return {ours: state[theirs] for theirs, ours in names.items()}


def check_shapes(config: S4MIMConfig, weights: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> None:
    """Compare with the network of `config`, tensor by tensor.

    Args:
        config: the architecture that was read from the shapes of a few.
        weights: by our names.
        names: ours by theirs, for the message.

    Raises:
        InputError: a shape differs, or a weight is no number with a fraction.
        AssertionError: `names` is not what our network has, which would be a bug here.
    """
    with torch.device("meta"):
        expected = S4MIMForSemanticSegmentation(config).state_dict()
    assert set(expected) == set(weights), sorted(set(expected) ^ set(weights))[:5]
    for theirs, ours in names.items():
        found, wanted = weights[ours], expected[ours]
        if found.shape != wanted.shape:
            raise InputError(
                f"{theirs!r} has the shape {tuple(found.shape)}, but with the other weights' widths it must be "
                f"{tuple(wanted.shape)}; the checkpoint is of another network"
            )
        if found.is_floating_point() != wanted.is_floating_point():
            raise InputError(f"{theirs!r} is of {found.dtype}, but {wanted.dtype} is expected; it is damaged")
