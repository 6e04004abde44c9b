"""Tiny real models and a batch, and one way to ask a method for its losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from s4mim_hf.data.loaders import Batch
from s4mim_hf.methods import Method, MethodConfig, StepContext, Task, build_method
from s4mim_hf.modeling.configuration_s4mim import S4MIMConfig
from s4mim_hf.modeling.modeling_s4mim import S4MIMForSemanticSegmentation, S4MIMForSemiSupervisedSegmentation
from s4mim_hf.modeling.normalization import convert_batch_norm

NUM_LABELS = 5
BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 24],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}

StudentBuilder = Callable[..., S4MIMForSemiSupervisedSegmentation]


@pytest.fixture
def task() -> Task:
    return Task(NUM_LABELS, 255, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), feature_stride=4, feature_channels=(8, 24))


@pytest.fixture
def batch() -> Batch:
    """3 labelled and 2 unlabelled crops of 48 pixels; the second unlabelled one is a third padding."""
    generator = torch.Generator().manual_seed(7)
    valid = torch.ones(2, 48, 48, dtype=torch.bool)
    valid[1, 32:] = False
    labels = torch.randint(0, NUM_LABELS, (3, 6, 6), generator=generator)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :, :5] = 255
    return Batch(
        torch.randint(0, 256, (3, 3, 48, 48), generator=generator, dtype=torch.uint8),
        labels.to(torch.uint8),
        torch.randint(0, 256, (2, 3, 48, 48), generator=generator, dtype=torch.uint8),
        valid,
    )


@pytest.fixture
def context() -> StepContext:
    return StepContext(step=3, max_steps=12, micro_step=0, seed=11, rank=0, device=torch.device("cpu"))


def model_config(**fields: Any) -> S4MIMConfig:
    small = {
        "decoder_channels": 12,
        "low_level_channels": 6,
        "mim_channels": 8,
        "mim_depth": 2,
        "num_labels": NUM_LABELS,
    }
    return S4MIMConfig(backbone_config=BACKBONE, output_stride=16, **{**small, "decoder_dropout": 0.0, **fields})


@pytest.fixture
def build_student() -> StudentBuilder:
    """Build a student in training mode with the heads that a method asks for, from one seed."""

    def build(method: Method | None = None, **fields: Any) -> S4MIMForSemiSupervisedSegmentation:
        if method is not None:
            needs = method.model_requirements()
            fields = {
                "mask_token": "learned" if needs.mask_token else "none",
                "mim_decoder": needs.mim_decoder,
                **fields,
            }
        torch.manual_seed(0)
        student = S4MIMForSemiSupervisedSegmentation(model_config(**fields))
        convert_batch_norm(student, sync=False)
        return student.train()

    return build


@pytest.fixture
def teacher() -> S4MIMForSemanticSegmentation:
    torch.manual_seed(1)
    return S4MIMForSemanticSegmentation(model_config()).eval()


class Refuse(torch.nn.Module):
    """A teacher that must not be asked."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the teacher was run although no active term needs its labels")


@pytest.fixture
def refuse() -> torch.nn.Module:
    return Refuse()


@pytest.fixture
def train(task: Task, batch: Batch, context: StepContext, build_student: StudentBuilder) -> Callable[..., Any]:
    """Return a function that trains a fresh student for three steps: its losses, and its state afterwards."""

    def run(config: MethodConfig, teacher: torch.nn.Module) -> tuple[list[float], dict[str, torch.Tensor]]:
        method = build_method(config, task)
        student, totals = build_student(method, decoder_dropout=0.1), []
        optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
        torch.manual_seed(2)
        for step in range(3):
            optimizer.zero_grad()
            total = method.losses(student, teacher, batch, replace(context, step=step)).total()
            total.backward()
            optimizer.step()
            totals.append(total.item())
        return totals, student.state_dict()

    return run
