"""Parameter groups and the learning rate over the run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from s4mim_hf import S4MIMConfig, S4MIMForSemiSupervisedSegmentation
from s4mim_hf.engine.optim import PolynomialSchedule, build_optimizer, scaled_learning_rate
from s4mim_hf.engine.run_config import OptimConfig


def settings(**changes: Any) -> OptimConfig:
    """Return a config with round numbers in which only `changes` are special."""
    plain = {
        "name": "sgd",
        "learning_rate": 0.1,
        "backbone_learning_rate_scale": 0.1,
        "weight_decay": 0.01,
        "momentum": 0.9,
        "max_steps": 100,
        "warmup_steps": 0,
        "power": 0.9,
    }
    return OptimConfig(**{**plain, **changes})


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.decode_head = nn.Conv2d(4, 2, 1)


class TrainingModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.segmenter = Segmenter()
        self.mask_token = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.mim_decoder = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))


def groups_by_name(model: nn.Module, config: OptimConfig) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in build_optimizer(model, config, 4).param_groups}


def test_every_parameter_stands_in_exactly_one_group_with_its_rate_and_decay() -> None:
    model = TrainingModel()
    groups = groups_by_name(model, settings())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    members = {group: {names[id(p)] for p in content["params"]} for group, content in groups.items()}
    assert members == {
        "backbone": {"segmenter.backbone.0.weight"},
        "backbone without decay": {
            "segmenter.backbone.0.bias",
            "segmenter.backbone.1.weight",
            "segmenter.backbone.1.bias",
        },
        "rest": {"segmenter.decode_head.weight", "mim_decoder.0.weight"},
        "rest without decay": {
            "segmenter.decode_head.bias",
            "mask_token",
            "mim_decoder.0.bias",
            "mim_decoder.1.weight",
            "mim_decoder.1.bias",
        },
    }
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "backbone": 0.01,
        "backbone without decay": 0.0,
        "rest": 0.01,
        "rest without decay": 0.0,
    }
    for name, group in groups.items():
        expected = 0.01 if name.startswith("backbone") else 0.1
        assert group["lr"] == group["base_learning_rate"] == pytest.approx(expected)


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    model = TrainingModel()
    model.segmenter.backbone.requires_grad_(False)
    assert list(groups_by_name(model, settings())) == ["rest", "rest without decay"]


def test_kinds_of_optimizer() -> None:
    sgd = build_optimizer(TrainingModel(), settings(nesterov=True), 4)
    assert isinstance(sgd, torch.optim.SGD)
    assert all(group["momentum"] == 0.9 and group["nesterov"] for group in sgd.param_groups)
    assert isinstance(build_optimizer(TrainingModel(), settings(name="adamw"), 4), torch.optim.AdamW)


def test_learning_rate_is_scaled_only_from_a_reference() -> None:
    assert scaled_learning_rate(settings(), 64) == 0.1
    assert scaled_learning_rate(settings(reference_batch_size=16), 8) == pytest.approx(0.05)
    scaled = groups_by_name(TrainingModel(), settings(reference_batch_size=16))
    assert scaled["rest"]["base_learning_rate"] == pytest.approx(0.025)
    assert scaled["backbone"]["base_learning_rate"] == pytest.approx(0.0025)


def test_polynomial_without_warm_up() -> None:
    schedule = PolynomialSchedule(settings(max_steps=50, power=0.9))
    for step in range(50):
        assert schedule.factor(step) == pytest.approx((1 - step / 50) ** 0.9)
    assert schedule.factor(0) == 1.0
    assert schedule.factor(50) == schedule.factor(51) == 0.0


def test_warm_up_is_linear_and_meets_the_polynomial() -> None:
    schedule = PolynomialSchedule(settings(max_steps=100, warmup_steps=10, power=2.0))
    factors = [schedule.factor(step) for step in range(100)]
    rises = [after - before for before, after in pairwise(factors[:11])]
    assert rises == pytest.approx([factors[0]] * 10)
    assert factors[0] > 0
    assert factors[10:] == pytest.approx([(1 - step / 100) ** 2 for step in range(10, 100)])


def test_apply_scales_each_group_from_its_own_base() -> None:
    config = settings(warmup_steps=3)
    optimizer = build_optimizer(TrainingModel(), config, 4)
    schedule = PolynomialSchedule(config)
    for step in (0, 40, 40, 99):
        schedule.apply(optimizer, step)
        for group in optimizer.param_groups:
            assert group["lr"] == group["base_learning_rate"] * schedule.factor(step)


def test_the_training_model_is_covered_and_its_learned_vectors_are_not_decayed() -> None:
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
    config = S4MIMConfig(
        backbone_config=backbone, decoder_channels=16, low_level_channels=8, mim_channels=8, masked_features="token"
    )
    model = S4MIMForSemiSupervisedSegmentation(config)
    optimizer = build_optimizer(model, settings(), 4)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()}
    undecayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    tokens = [name for name, _ in model.named_parameters() if "token" in name]
    assert len(tokens) == 2, tokens
    for name, parameter in model.named_parameters():
        assert (id(parameter) in undecayed) == (parameter.ndim == 1 or name in tokens), name
