"""The command: a table and the next command, or one sentence and exit code 2."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(6):
        for folder, shape, suffix, high in (("images", (8, 12, 3), "jpg", 256), ("masks", (8, 12), "png", 2)):
            (tmp_path / "raw" / folder).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "raw" / folder / f"i{index}.{suffix}")
    return tmp_path / "raw"


def run_here(repository: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    """Run the script in this process, which spares its imports; return its exit code."""
    script = str(repository / "scripts" / "prepare_data.py")
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(script, run_name="__main__")
    return done.value.code


def test_a_folder(repository: Path, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "my out"
    script = str(repository / "scripts" / "prepare_data.py")
    arguments = ["folder", "--source", str(source), "--output", str(output), "--classes", "a,b", "--labeled", "2"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "labeled" in done.stdout
    assert "2 of 2" in done.stdout
    assert f"accelerate launch scripts/train.py --recipe custom 'data.path={output}'" in done.stdout
    assert "note: there is no images/val, so validation is 1 of the 6" in done.stderr
    assert (output / "splits.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder"], "error: --source is needed for 'folder'"),
        (["folder", "--source", "nowhere"], "error: the folder nowhere is missing"),
        (["synthetic", "--labeled-ids", "x"], "error: --labeled-ids is not for synthetic data"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here(repository, monkeypatch, *arguments, "--output", tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "out").exists()
