"""Nothing of what the tests read stays in the user's cache."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from tiny_runs import prepared

__all__ = ["prepared"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
