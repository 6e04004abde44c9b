from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError

from s4mim_hf.engine.run_config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    PanelConfig,
    RunConfig,
    TeacherConfig,
)
from s4mim_hf.methods import METHODS, S4MIMMethodConfig
from s4mim_hf.modeling.configuration_s4mim import S4MIMConfig

SECTIONS = (
    DataConfig,
    ModelConfig,
    TeacherConfig,
    OptimConfig,
    EvaluationConfig,
    LogConfig,
    CheckpointConfig,
    PanelConfig,
    RunConfig,
)
TINY: dict[str, Any] = {"backbone_config": {"model_type": "resnet"}}
# What ModelConfig says that is no field of the architecture.
NOT_ARCHITECTURE = {"backbone", "backbone_config", "freeze_backbone", "sync_batch_norm", "batch_norm_momentum"}


def required(section: type) -> dict[str, Any]:
    return {ModelConfig: TINY, RunConfig: {"model": TINY}}.get(section, {})


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_documented(section: type) -> None:
    documentation = section.__doc__ or ""
    undocumented = [
        field.name for field in dataclasses.fields(section) if f"\n        {field.name}: " not in documentation
    ]
    assert not undocumented


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_fields_are_refused(section: type) -> None:
    with pytest.raises(ValidationError, match="unexpected"):
        section(no_such_field=1, **required(section))


@pytest.mark.parametrize("section", SECTIONS)
def test_settings_are_frozen(section: type) -> None:
    made = section(**required(section))
    name = dataclasses.fields(section)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, getattr(made, name))


def test_only_the_model_has_to_be_said() -> None:
    config = RunConfig(model=ModelConfig(**TINY))
    assert isinstance(config.method, S4MIMMethodConfig)
    with pytest.raises(ValidationError, match="model"):
        RunConfig()  # type: ignore[call-arg]


@pytest.mark.parametrize("name", METHODS)
def test_the_method_is_chosen_by_its_name(name: str) -> None:
    config = RunConfig(model=ModelConfig(**TINY), method={"name": name})  # type: ignore[arg-type]
    assert type(config.method) is METHODS[name].config_class


def test_architecture_settings_are_those_of_the_model() -> None:
    theirs = S4MIMConfig()
    ours = ModelConfig(**TINY)
    for field in dataclasses.fields(ModelConfig):
        if field.name not in NOT_ARCHITECTURE:
            assert hasattr(theirs, field.name), field.name
            if field.name != "output_stride":  # S4MIMConfig leaves it to the backbone, a run asks for 16
                assert getattr(theirs, field.name) == getattr(ours, field.name), field.name


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (ModelConfig, {}, "neither model.backbone nor model.backbone_config"),
        (ModelConfig, {**TINY, "backbone": "a/b"}, "both set"),
        (ModelConfig, {"backbone_config": {"depths": [1]}}, "lacks model_type"),
        (ModelConfig, {**TINY, "mim_kernel_size": 4}, "odd"),
        (ModelConfig, {**TINY, "output_stride": 4}, "8, 16 or 32"),
        (ModelConfig, {**TINY, "aspp_rates": []}, "at least 1"),
        (ModelConfig, {**TINY, "decoder_dropout": 1.0}, "less than 1"),
        (DataConfig, {"image_mean": (0.5, 0.5, 0.5)}, "belong together"),
        (DataConfig, {"image_mean": (0, 0, 0), "image_std": (1, 0, 1)}, "greater than 0"),
        (DataConfig, {"path": ""}, "at least 1"),
        (TeacherConfig, {"decay": 1.0}, "less than 1"),
        (OptimConfig, {"warmup_steps": 5, "max_steps": 5}, "shorter"),
        (OptimConfig, {"name": "sgd", "nesterov": True, "momentum": 0}, "nesterov"),
        (OptimConfig, {"learning_rate": float("inf")}, "finite"),
        (OptimConfig, {"learning_rate": float("nan")}, "finite"),
        (OptimConfig, {"max_grad_norm": 0}, "greater than 0"),
        (OptimConfig, {"layer_decay": 0}, "greater than 0"),
        (OptimConfig, {"layer_decay": 1.1}, "less than or equal to 1"),
        (ModelConfig, {**TINY, "decode_head": "fpn"}, "deeplabv3plus"),
        (ModelConfig, {**TINY, "dpt_layers": (1, 2, 3)}, "dpt_layers"),
        (CheckpointConfig, {"interval": 0}, "greater than 0"),
        (PanelConfig, {"count": -1}, "greater than or equal to 0"),
        (RunConfig, {"model": TINY, "seed": -1}, "greater than or equal to 0"),
        (RunConfig, {"model": TINY, "mixed_precision": "fp8"}, "bf16"),
    ],
)
def test_values_that_cannot_be_are_refused(section: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(**values)


def test_bounds_themselves_are_allowed() -> None:
    assert OptimConfig(warmup_steps=4, max_steps=5).warmup_steps == 4
    assert TeacherConfig(decay=0).decay == 0
    assert PanelConfig(count=0).count == 0
    assert CheckpointConfig(interval=None).interval is None
