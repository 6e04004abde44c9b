"""Tiny configurations, and one seed for all tests of the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from architectures import BACKBONES, DILATED, PYRAMIDS, TRANSFORMERS, head_of

from s4mim_hf.modeling import S4MIMConfig


@pytest.fixture(params=list(BACKBONES))
def backbone_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=PYRAMIDS)
def pyramid_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=TRANSFORMERS)
def transformer_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=DILATED)
def dilated_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_config() -> Callable[..., S4MIMConfig]:
    def make(name: str = "resnet-basic", **fields: Any) -> S4MIMConfig:
        small = {"decoder_channels": 16, "low_level_channels": 8, "num_labels": 5, "mim_channels": 8, "mim_depth": 2}
        if "id2label" in fields:
            del small["num_labels"]
        small["decode_head"] = head_of(name)
        return S4MIMConfig(backbone_config=dict(BACKBONES[name]), **{**small, **fields})

    return make


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
