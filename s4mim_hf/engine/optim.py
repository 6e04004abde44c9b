"""The optimizer's parameter groups and the learning rate over the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from s4mim_hf.errors import InputError
from s4mim_hf.modeling.encoder_layers import layer_numbers

if TYPE_CHECKING:
    from s4mim_hf.engine.run_config import OptimConfig

UNDECAYED_NAMES = ("bias", "token", "position_embedding")
"""A parameter whose name ends in one of these is not decayed, whatever its shape (the mask token, Swin's tables)."""

_NO_LAYER = -1


def scaled_learning_rate(config: OptimConfig, effective_batch: int) -> float:
    """Return the learning rate for `effective_batch` labelled images a step, over all processes and accumulation.

    It is `config.learning_rate`, scaled linearly from `config.reference_batch_size` where that is given.
    """
    if config.reference_batch_size is None:
        return config.learning_rate
    return config.learning_rate * effective_batch / config.reference_batch_size


def build_optimizer(model: nn.Module, config: OptimConfig, effective_batch: int) -> torch.optim.Optimizer:
    """Build the optimizer of the training model, before it is wrapped for distribution.

    Up to four groups: backbone or rest, with weight decay or without; with `config.layer_decay` d, two for each layer
    of the backbone instead of two for all of it, whose rates are multiplied by d^(N + 1 - n) for layer n of N (0: the
    embeddings or the stem, N + 1: what stands behind the last layer). Not decayed are parameters of one dimension
    (biases and the weights of normalisation layers) and those named in `UNDECAYED_NAMES`, the mask token among them:
    decay pulls towards zero, which for these is not a simpler function. Frozen parameters are left out, and so are
    empty groups.

    Args:
        model: a `S4MIMForSemiSupervisedSegmentation`: `model.segmenter.backbone` tells the backbone's parameters.
        config: name, learning rates, weight decay, momentum.
        effective_batch: labelled images in one optimizer step.

    Returns:
        The optimizer. Each group holds its `name` and its `base_learning_rate`, which `PolynomialSchedule.apply`
        scales.

    Raises:
        InputError: layers of the backbone are asked for that are not known.
    """
    learning_rate = scaled_learning_rate(config, effective_batch)
    groups = _parameter_groups(model, config, learning_rate)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=config.momentum, nesterov=config.nesterov)
    return torch.optim.AdamW(groups, lr=learning_rate)


class _Place(NamedTuple):
    """Which group a parameter is in, sorted from the output to the input."""

    in_backbone: bool
    layer: int
    is_decayed: bool

    @property
    def name(self) -> str:
        """The group's name."""
        part = "backbone" if self.in_backbone else "rest"
        layer = "" if self.layer == _NO_LAYER else f" layer {self.layer}"
        return part + layer + ("" if self.is_decayed else " without decay")


def _parameter_groups(model: nn.Module, config: OptimConfig, learning_rate: float) -> list[dict[str, Any]]:
    backbone: Any = model.segmenter.backbone  # type: ignore[union-attr]
    layers, count = _layers_of(backbone, config)
    members: dict[_Place, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = layers.get(id(parameter))
            place = _Place(layer is not None, _NO_LAYER if layer is None else layer, _is_decayed(name, parameter))
            members.setdefault(place, []).append(parameter)
    groups = []
    # Sorted, so that the order of groups, which a saved optimizer state relies on, is not the order of modules.
    for place, parameters in sorted(members.items(), key=lambda item: item[0], reverse=True):
        base = learning_rate * (config.backbone_learning_rate_scale if place.in_backbone else 1.0)
        if config.layer_decay is not None and place.in_backbone:
            base *= config.layer_decay ** (count + 1 - place.layer)
        groups.append(
            {
                "params": parameters,
                "name": place.name,
                "lr": base,
                "base_learning_rate": base,
                "weight_decay": config.weight_decay if place.is_decayed else 0.0,
            }
        )
    return groups


def _layers_of(backbone: Any, config: OptimConfig) -> tuple[dict[int, int], int]:
    """Return the layer of each of the backbone's parameters by its id, and how many layers count."""
    if config.layer_decay is None:
        return {id(parameter): _NO_LAYER for parameter in backbone.parameters()}, 0
    try:
        numbers, count = layer_numbers(backbone)
    except ValueError as error:
        raise InputError(f"optim.layer_decay is {config.layer_decay}, but {error}; set it to null") from None
    return {id(parameter): numbers[name] for name, parameter in backbone.named_parameters()}, count


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    # An embedding table's own name is "weight": what it is for stands before that.
    own_name = ".".join(name.split(".")[-2:]) if name.endswith("position_embedding.weight") else name.rpartition(".")[2]
    return parameter.ndim > 1 and not any(part in own_name for part in UNDECAYED_NAMES)


class PolynomialSchedule:
    """Linear warm-up, then (1 − t/T)^power, as a function of the global optimizer step t alone.

    Nothing to save and nothing that advances once per process: the trainer applies it before each step.

    Args:
        config: `max_steps` (T), `warmup_steps`, `power`.
    """

    def __init__(self, config: OptimConfig) -> None:
        self.max_steps = config.max_steps
        self.warmup_steps = config.warmup_steps
        self.power = config.power

    def factor(self, step: int) -> float:
        """Return the share of the base learning rate for step `step`, counted from 0; 0 from `max_steps` on.

        The warm-up rises in equal parts, never from 0, and meets the polynomial without a jump at `warmup_steps`.
        """
        if step >= self.max_steps:
            return 0.0
        decayed = (1.0 - max(step, self.warmup_steps) / self.max_steps) ** self.power
        return decayed * min(1.0, (step + 1) / (self.warmup_steps + 1))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set every group's learning rate for step `step`, counted from 0, before that step is taken."""
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group["base_learning_rate"] * factor
