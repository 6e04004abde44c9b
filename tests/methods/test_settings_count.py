"""No setting of a method is dead, and none makes a step wait for the device.

Changing any one of them changes a loss, its weight or the running statistics. What a setting does is tested where it is
done; here every field must be listed, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from s4mim_cases import masks, semantics

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig
from s4mim_hf.methods import METHODS, S4MIMMethodConfig, StepContext, Task, build_method
from s4mim_hf.methods.mean_teacher import MeanTeacherConfig

StudentBuilder = Callable[..., torch.nn.Module]
Check = Callable[[Any], None]

EVERYTHING = S4MIMMethodConfig(
    threshold=0.25,
    class_map_threshold=0.25,
    feature_weight=0.5,
    pseudo_labels_from="teacher",
    masking=masks(),
    semantic=semantics(),
    strong=StrongViewConfig(
        jitter_probability=1, grayscale_probability=0.5, blur_probability=1, blur_sigma=(1, 2), cutmix_probability=1
    ),
)
OHEM = {"supervised_loss": "ohem", "ohem_min_kept": 0.0}

# Another value of each setting, and which other settings it needs in order to count.
ALTERNATIVES: dict[str, tuple[Any, dict[str, Any]]] = {
    "supervised_weight": (0.5, {}),
    "supervised_loss": ("ohem", {"ohem_threshold": 0.2, "ohem_min_kept": 0.0}),
    "ohem_threshold": (0.2, OHEM),
    "ohem_min_kept": (0.5, {**OHEM, "ohem_threshold": 0.1}),
    "normalization.statistics": ("together", {}),
    "normalization.running_from": (("labeled",), {}),
    "threshold": (0.0, {}),
    "consistency_weight": (0.5, {}),
    "consistency_warmup_steps": (4, {}),
    "strong_views": (1, {}),
    "strong.brightness": (0.1, {}),
    "strong.contrast": (0.1, {}),
    "strong.saturation": (0.1, {"strong.grayscale_probability": 0.0}),
    "strong.hue": (0.1, {"strong.grayscale_probability": 0.0}),
    "strong.jitter_probability": (0.0, {}),
    "strong.grayscale_probability": (1.0, {}),
    "strong.blur_probability": (0.0, {}),
    "strong.blur_sigma": ((0.1, 0.2), {}),
    "strong.cutmix_probability": (0.0, {}),
    "strong.cutmix_area": ((0.9, 0.95), {}),
    "strong.cutmix_aspect": ((0.3, 0.31), {}),
    "feature_weight": (1.0, {}),
    "feature_dropout": (0.1, {}),
    "pseudo_labels_from": ("student", {}),
    "masking.patch_size": (16, {}),
    "masking.ratio": (0.3, {}),
    "masking.images": ("unlabeled", {}),
    "masking.view": ("own", {}),
    "masking.strategy": ("class_balanced", {}),
    "class_map_threshold": (0.0, {}),
    "class_map_downsampling": ("nearest", {"masking.view": "strong"}),
    "reconstruction.weight": (1.0, {}),
    "reconstruction.warmup_steps": (4, {}),
    "reconstruction.regions": ("image", {}),
    "reconstruction.target": ("pixels", {}),
    "reconstruction.reduction": ("class", {}),
    "aggregation.weight": (1.0, {}),
    "aggregation.warmup_steps": (4, {}),
    "aggregation.distance": ("cosine", {}),
    "aggregation.prototypes": ("batch", {}),
    "aggregation.stop_gradient": (False, {}),
    "aggregation.min_positions": (8, {}),
    "aggregation.reduction": ("position", {}),
    "semantic.weight": (1.0, {}),
    "semantic.warmup_steps": (4, {}),
    "semantic.pixels": ("masked", {}),
    "semantic.average_over": ("valid", {}),
    "semantic.unlabeled_weighting": ("confidence", {}),
    "semantic.labels_from": ("consistency", {"pseudo_labels_from": "student"}),
}
# The configurations before a change are few.
SEEN: dict[Any, list[float]] = {}
SETTINGS_OF_MEAN_TEACHER = ("consistency_weight", "consistency_warmup_steps", "strong.brightness")


def keys_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of all settings of a config but its name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{prefix}{field.name}.")
        elif prefix + field.name != "name":
            yield prefix + field.name


def changed(config: Any, key: str, value: Any) -> Any:
    """Return the config with one dotted key set to another value."""
    name, _, rest = key.partition(".")
    return dataclasses.replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


@pytest.fixture
def observe(
    build_student: StudentBuilder, teacher: torch.nn.Module, batch: Batch, task: Task, context: StepContext
) -> Callable[[Any], list[float]]:
    """Return a function that runs one step of a method and returns all that can be seen of it."""

    def run(config: Any, again: bool = False) -> list[float]:
        if config in SEEN and not again:
            return SEEN[config]
        method = build_method(config, task)
        student = build_student(method)
        losses = method.losses(student, teacher, batch, context)
        losses.total().backward()
        seen = [number for term in losses.terms.values() for number in (term.value.item(), term.weight)]
        gradients = [float(p.grad.double().abs().sum()) for p in student.parameters() if p.grad is not None]
        buffers = [float(buffer.double().sum()) for name, buffer in student.named_buffers() if "running" in name]
        SEEN[config] = [*seen, *gradients, *buffers]
        return SEEN[config]

    return run


@pytest.fixture
def check_that_nothing_waits(
    build_student: StudentBuilder,
    teacher: torch.nn.Module,
    batch: Batch,
    task: Task,
    context: StepContext,
    device_without_values: torch.device,
) -> Check:
    """Return a function that runs one step of a method on a device from which nothing can be fetched."""

    def run(config: Any) -> None:
        method = build_method(config, task)
        student = build_student(method).to(device_without_values)
        teacher.to(device_without_values)
        where = dataclasses.replace(context, device=device_without_values)
        losses = method.losses(student, teacher, batch.to(device_without_values), where)
        losses.total().backward()
        assert {value.device for value in losses.metrics.values()} <= {device_without_values}

    return run


def test_every_setting_is_listed() -> None:
    assert set(ALTERNATIVES) == {key for method in METHODS.values() for key in keys_of(method.config_class())}


def before_and_after(key: str) -> tuple[Any, Any]:
    """Return a config in which a setting counts, and the same with another value of it."""
    value, companions = ALTERNATIVES[key]
    config: Any = EVERYTHING
    for other, needed in companions.items():
        config = changed(config, other, needed)
    return config, changed(config, key, value)


@pytest.mark.parametrize("key", ALTERNATIVES)
def test_changing_a_setting_changes_the_step(observe: Callable[[Any], list[float]], key: str) -> None:
    before, after = before_and_after(key)
    assert observe(before) != observe(after)


@pytest.mark.parametrize("config", [pytest.param(before_and_after(key)[1], id=key) for key in ALTERNATIVES])
def test_no_setting_makes_a_step_wait_for_the_device(check_that_nothing_waits: Check, config: Any) -> None:
    check_that_nothing_waits(config)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_makes_a_step_wait_for_the_device(check_that_nothing_waits: Check, name: str) -> None:
    check_that_nothing_waits(METHODS[name].config_class())


def test_without_a_change_the_step_is_the_same(observe: Callable[..., list[float]]) -> None:
    assert observe(EVERYTHING) == observe(EVERYTHING, again=True)


@pytest.mark.parametrize("key", SETTINGS_OF_MEAN_TEACHER)
def test_the_mean_teachers_own_settings_change_its_step(observe: Callable[[Any], list[float]], key: str) -> None:
    config = MeanTeacherConfig()
    assert observe(config) != observe(changed(config, key, ALTERNATIVES[key][0]))
