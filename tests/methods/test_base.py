from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import pytest
import torch
from pydantic import Field, TypeAdapter, ValidationError

from s4mim_hf.errors import InputError
from s4mim_hf.methods import (
    METHODS,
    FixMatchConfig,
    Losses,
    MeanTeacherConfig,
    MethodConfig,
    NormalizationConfig,
    S4MIMMethodConfig,
    StepContext,
    Supervised,
    SupervisedConfig,
    Task,
    Term,
    UniMatchConfig,
    build_method,
)
from s4mim_hf.methods.base import ramped


def test_weights_grow_linearly_from_zero_and_stay(context: StepContext) -> None:
    def weights(warmup_steps: int | None, steps: tuple[int, ...]) -> list[float]:
        return [ramped(0.5, warmup_steps, replace(context, step=step, max_steps=16)) for step in steps]

    assert weights(4, (0, 1, 2, 4, 15)) == [0, 0.125, 0.25, 0.5, 0.5]
    assert weights(0, (0, 1)) == [0.5, 0.5]
    assert weights(None, (0, 2, 4, 8, 15)) == [0, 0.125, 0.25, 0.5, 0.5]
    assert ramped(0.5, None, replace(context, step=0, max_steps=1)) == 0


def test_total_is_the_weighted_sum() -> None:
    losses = Losses(
        {"a": Term(torch.tensor(2.0), 1.0), "b": Term(torch.tensor(3.0), 0.5), "c": Term(torch.tensor(7.0), 0)}
    )
    assert losses.total().item() == 3.5


def test_each_purpose_and_place_has_its_own_random_numbers(context: StepContext) -> None:
    def draw(where: StepContext, purpose: str = "masks") -> float:
        return torch.rand((), generator=where.generator(purpose)).item()

    others = [
        draw(context, "strong"),
        *(draw(replace(context, **{field: 1})) for field in ("step", "micro_step", "seed", "rank")),
    ]
    assert draw(context) == draw(replace(context))
    assert len({draw(context), *others}) == 6


def test_methods_are_built_by_name(task: Task) -> None:
    assert list(METHODS) == ["supervised", "mean_teacher", "fixmatch", "unimatch", "s4mim"]
    for config in (SupervisedConfig(), MeanTeacherConfig(), FixMatchConfig(), UniMatchConfig(), S4MIMMethodConfig()):
        method = build_method(config, task)
        assert type(method) is METHODS[config.name]
        assert method.config == config


def test_a_method_refuses_the_config_of_another(task: Task) -> None:
    with pytest.raises(TypeError, match="S4MIM needs a S4MIMMethodConfig, found FixMatchConfig"):
        METHODS["s4mim"](FixMatchConfig(), task)


def test_configs_are_told_apart_by_name_and_reload_equal() -> None:
    adapter: TypeAdapter[MethodConfig] = TypeAdapter(Annotated[MethodConfig, Field(discriminator="name")])
    given = {
        "name": "s4mim",
        "masking": {"ratio": 0.5},
        "strong": {"hue": 0.1},
        "normalization": {"statistics": "together"},
    }
    config = adapter.validate_python(given)
    assert isinstance(config, S4MIMMethodConfig)
    assert config.masking.ratio == 0.5
    assert adapter.validate_python(adapter.dump_python(config, mode="json")) == config
    assert type(adapter.validate_python({"name": "fixmatch"})) is FixMatchConfig


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (SupervisedConfig, {"treshold": 0.9}),
        (SupervisedConfig, {"ohem_threshold": 0}),
        (SupervisedConfig, {"supervised_weight": 0}),
        (SupervisedConfig, {"supervised_weight": float("inf")}),
        (FixMatchConfig, {"consistency_weight": -1}),
        (FixMatchConfig, {"masking": {}}),
        (FixMatchConfig, {"strong_views": 0}),
        (FixMatchConfig, {"feature_dropout": 1}),
        (FixMatchConfig, {"pseudo_labels_from": "labels"}),
        (MeanTeacherConfig, {"threshold": 0.9}),
        (FixMatchConfig, {"normalization": {"running_from": []}}),
        (S4MIMMethodConfig, {"masking": {"ratio": 1.0}}),
        (S4MIMMethodConfig, {"masking": {"view": "mixed"}}),
        (S4MIMMethodConfig, {"masking": {"strategy": "class"}}),
        (S4MIMMethodConfig, {"aggregation": {"min_positions": 0}}),
        (S4MIMMethodConfig, {"semantic": {"pixels": "all"}}),
        (S4MIMMethodConfig, {"name": "fixmatch"}),
    ],
)
def test_unknown_keys_and_values_out_of_bounds_are_refused(method: type, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(method).validate_python(wrong)


def test_running_statistics_must_come_from_a_view_that_is_there(task: Task) -> None:
    only_strong = NormalizationConfig(running_from=("strong",))
    with pytest.raises(InputError, match=r"running_from is \['strong'\].*only \['labeled'\]"):
        Supervised(SupervisedConfig(normalization=only_strong), task).validate(4, 16, 96)
    build_method(FixMatchConfig(normalization=only_strong), task).validate(4, 16, 96)
    only_perturbed = NormalizationConfig(running_from=("perturbed",))
    with pytest.raises(InputError, match=r"only \['labeled', 'weak', 'strong'\]"):
        build_method(UniMatchConfig(normalization=only_perturbed), task).validate(4, 16, 96)
    together = NormalizationConfig(statistics="together", running_from=("strong",))
    Supervised(SupervisedConfig(normalization=together), task).validate(4, 16, 96)
