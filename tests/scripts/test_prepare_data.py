"""The command: a table and the next command, or one sentence and exit code 2."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.data.options import KINDS
from s4mim_hf.data.sources import layout_of


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
    assert "note: there are no validation images, so validation is 1 of the 6" in done.stderr
    assert (output / "splits.json").is_file()


Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder"], "error: --source is needed for 'folder': a folder with images/ and masks/"),
        (["folder", "--source", "nowhere"], "error: the folder nowhere is missing; --source of 'folder' is"),
        (["synthetic", "--labeled-ids", "x"], "error: --labeled-ids is not for synthetic data"),
        (["folder", "--sbd", "x"], "error: --sbd is not for 'folder', only for voc; leave it out"),
        (["voc", "--label-map=x"], "error: --label-map is not for 'voc', only for hub; leave it out"),
        (["folder", "--source", "x", "--max-side", "0"], "error: --max-side must be at least 1 pixel"),
        (["folder", "--source", "x", "--public"], "error: --public belongs to --push-to-hub USER/NAME"),
        (["folder", "--sed", "1"], "usage: "),
        (["folders"], "usage: "),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    assert run_here(repository, monkeypatch, *arguments, "--output", tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_helps(kind: str, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run_here(repository, monkeypatch, kind, "--help") == 0
    shown = capsys.readouterr().out
    assert str(layout_of(kind)).strip().splitlines()[0] in shown
    assert ("--labeled 1/8" in shown) == (kind != "synthetic")
    assert ("--sbd" in shown) == (kind == "voc")
    assert ("--label-map" in shown) == (kind == "hub")


def test_a_raw_folder_is_checked(
    repository: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (source / "classes.json").write_text('["a", "b"]')
    assert run_here(repository, monkeypatch, "check", source) == 0
    (source / "masks" / "i3.png").write_bytes(b"junk")
    assert run_here(repository, monkeypatch, "check", source) == 2
    assert "i3" in capsys.readouterr().err
    assert run_here(repository, monkeypatch, "check", source, "--json", tmp_path / "no" / "f.json") == 2
    assert "error: cannot write --json" in capsys.readouterr().err
    assert run_here(repository, monkeypatch, "check", tmp_path / "nowhere") == 2
    assert "error: there is no folder" in capsys.readouterr().err


def test_options_of_the_draw_reach_the_folder_and_it_is_checked(
    repository: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    draw = ["--labeled", "2", "--draw", "balanced", "--group-by", "i([0-9])"]
    arguments = ["folder", "--source", source, "--classes", "a,b", *draw, "--max-side", "6"]
    output, numbers = tmp_path / "out", tmp_path / "check.json"
    assert run_here(repository, monkeypatch, *arguments, "--output", output) == 0
    assert "6x4" in capsys.readouterr().out
    record = json.loads((output / "splits.json").read_text())
    assert (record["draw"], record["group_by"], record["max_side"]) == ("balanced", "i([0-9])", 6)
    assert run_here(repository, monkeypatch, "check", output, "--json", numbers) == 0
    assert "nothing that training would fail with" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["splits"]["labeled"]["images"] == 2
    shard = next((output / "data").glob("validation-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert run_here(repository, monkeypatch, "check", output) == 2
    assert "error: " in capsys.readouterr().err
