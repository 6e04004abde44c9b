"""What several tests need: the real images, which are not part of the project, and a calm environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker() -> None:
    """Two test processes on two cores are faster with one thread each than with two."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the project's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of real images and weights beside the project, or skip where it is absent."""
    path = REPOSITORY.parent / "shared"
    if not (path / "data" / "camvid").is_dir():
        pytest.skip(f"real images and weights are not at {path}")
    return path
