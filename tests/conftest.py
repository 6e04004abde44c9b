"""What several tests need: the real images, which are not part of the project, and a calm environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hub_client import HubClient, hub_client
from hub_server import Account, HubServer, running_hub

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


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    """Run a small Hub for uploads: the tokens are ann's, ann's for reading, and bob's."""
    accounts = {
        "mine": Account("ann", organizations=("lab",)),
        "reader": Account("ann", role="read"),
        "theirs": Account("bob"),
    }
    with running_hub(**accounts) as hub:
        yield hub


@pytest.fixture(scope="module")
def client(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    """Run a child process whose Hub that is."""
    with hub_client(server.environment(tmp_path_factory.mktemp("home"))) as child:
        yield child


@pytest.fixture
def hub(server: HubServer) -> Iterator[HubServer]:
    """Return that Hub, empty before and after."""
    yield server
    server.reset()


@pytest.fixture
def device_without_values(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Return a device whose tensors have shapes only: code that fetches a value from an accelerator raises here."""
    # The one thing of a step that this device does not know; no arithmetic is done, in half precision or otherwise.
    monkeypatch.setattr(torch, "autocast", lambda *device_type, **settings: nullcontext())
    return torch.device("meta")
