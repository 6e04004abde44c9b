"""Recipe files and messages for the tests of configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.errors import InputError


def message_of(recipe: str | Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_run_config(recipe, overrides)
    return str(caught.value)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def write(path: Path, text: str, backbone: str = "model: {backbone: some/backbone}\n") -> Path:
    path.write_text(backbone + text, encoding="utf-8")
    return path
