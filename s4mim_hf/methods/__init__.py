"""Methods of semi-supervised training, by name."""

from __future__ import annotations

from s4mim_hf.methods.base import Losses, Method, ModelRequirements, NormalizationConfig, StepContext, Task, Term
from s4mim_hf.methods.fixmatch import FixMatch, FixMatchConfig
from s4mim_hf.methods.mean_teacher import MeanTeacher, MeanTeacherConfig
from s4mim_hf.methods.s4mim import S4MIM
from s4mim_hf.methods.s4mim_config import S4MIMMethodConfig
from s4mim_hf.methods.supervised import Supervised, SupervisedConfig
from s4mim_hf.methods.unimatch import UniMatch, UniMatchConfig

MethodConfig = SupervisedConfig | MeanTeacherConfig | FixMatchConfig | UniMatchConfig | S4MIMMethodConfig

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Supervised, MeanTeacher, FixMatch, UniMatch, S4MIM)
}


def build_method(config: MethodConfig, task: Task) -> Method:
    """Return the method that a config is for."""
    return METHODS[config.name](config, task)


__all__ = [
    "METHODS",
    "S4MIM",
    "FixMatch",
    "FixMatchConfig",
    "Losses",
    "MeanTeacher",
    "MeanTeacherConfig",
    "Method",
    "MethodConfig",
    "ModelRequirements",
    "NormalizationConfig",
    "S4MIMMethodConfig",
    "StepContext",
    "Supervised",
    "SupervisedConfig",
    "Task",
    "Term",
    "UniMatch",
    "UniMatchConfig",
    "build_method",
]
