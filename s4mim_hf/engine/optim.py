"""The optimizer's parameter groups and the learning rate over the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from s4mim_hf.engine.run_config import OptimConfig

UNDECAYED_NAMES = ("bias", "token", "position_embeddings")
"""A parameter whose own name holds one of these is not decayed, whatever its shape (the mask token, Swin's tables)."""


def scaled_learning_rate(config: OptimConfig, effective_batch: int) -> float:
    """Return the learning rate for `effective_batch` labelled images a step, over all processes and accumulation.

    It is `config.learning_rate`, scaled linearly from `config.reference_batch_size` where that is given.
    """
    if config.reference_batch_size is None:
        return config.learning_rate
    return config.learning_rate * effective_batch / config.reference_batch_size


def build_optimizer(model: nn.Module, config: OptimConfig, effective_batch: int) -> torch.optim.Optimizer:
    """Build the optimizer of the training model, before it is wrapped for distribution.

    Up to four groups: backbone or rest, with weight decay or without. Not decayed are parameters of one dimension
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
    """
    learning_rate = scaled_learning_rate(config, effective_batch)
    groups = _parameter_groups(model, config, learning_rate)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=config.momentum, nesterov=config.nesterov)
    return torch.optim.AdamW(groups, lr=learning_rate)


def _parameter_groups(model: nn.Module, config: OptimConfig, learning_rate: float) -> list[dict[str, Any]]:
    in_backbone = {id(parameter) for parameter in model.segmenter.backbone.parameters()}  # type: ignore[union-attr]
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (id(parameter) in in_backbone, _is_decayed(name, parameter))
            members.setdefault(key, []).append(parameter)
    groups = []
    # Sorted, so that the order of groups, which a saved optimizer state relies on, is not the order of modules.
    for (backbone, decayed), parameters in sorted(members.items(), key=lambda item: item[0], reverse=True):
        base = learning_rate * (config.backbone_learning_rate_scale if backbone else 1.0)
        groups.append(
            {
                "params": parameters,
                "name": ("backbone" if backbone else "rest") + ("" if decayed else " without decay"),
                "lr": base,
                "base_learning_rate": base,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
        )
    return groups


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    own_name = name.rpartition(".")[2]
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
