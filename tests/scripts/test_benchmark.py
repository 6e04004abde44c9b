"""The command measures something quickly, says on what, and refuses what it cannot measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image
from tiny_runs import TINY

CallScript = Callable[[str, list[str]], int]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")


def test_reconstruction_prints_ratios_and_where_they_are_from(
    call_script: CallScript, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reconstruction", "--quick", "--channels", "8", "--device", "cpu", "--json", str(tmp_path / "x.json")]
    assert call_script("benchmark", arguments) == 0
    printed = capsys.readouterr().out
    where = f"{torch.get_num_threads()} thread", f"torch {torch.__version__}"
    for expected in ("150 classes / 2 classes, kernel 3", "loop over 19 classes / one pass", *where):
        assert expected in printed
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["benchmark"] == "reconstruction"
    assert content["quick"] is True
    assert content["settings"]["channels"] == 8
    assert {"machine", "threads", "torch", "commit", "cases", "ratios"} <= content.keys()
    assert sorted(path.name for path in tmp_path.glob("*json*")) == ["x.json"]


def test_step_takes_overrides_anywhere(
    call_script: CallScript, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["step", *TINY, "--quick", "--methods", " fixmatch ", f"data.path={tiny_data}", "--json",
                 str(tmp_path / "step.json"), "data.views.crop_size=32"]  # fmt: skip
    assert call_script("benchmark", arguments) == 0
    printed = capsys.readouterr().out
    assert "crops of 32" in printed
    content = json.loads((tmp_path / "step.json").read_text())
    assert list(content["methods"]) == ["supervised", "fixmatch"]
    assert content["settings"]["rounds"] == 1


def test_loader_prints_what_was_wanted_beside_what_was_measured(
    call_script: CallScript, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((90, 70), 60).convert("RGB").save(photos / "a.jpg")
    arguments = ["loader", "--quick", "--images", str(photos), "--json", str(tmp_path / "loader.json")]
    assert call_script("benchmark", arguments) == 0
    printed = capsys.readouterr().out
    assert "bare decoding" in printed
    assert "wanted" in printed
    content = json.loads((tmp_path / "loader.json").read_text())
    assert content["settings"]["pictures"] == str(photos)
    assert [case["goal"]["wanted"] for case in content["cases"]] == [3.0, 0.8]
    assert {"machine", "threads", "commit"} <= content.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step", "--methods", "fixmach"], "did you mean 'fixmatch'"),
        (["step", "optim.max_stepz=3"], "did you mean 'optim.max_steps'"),
        (["step", "--recipe", "dem"], "unknown recipe 'dem'"),
        (["reconstruction", "--device", "gpu"], "--device gpu cannot be used"),
        (["reconstruction", "--device", "meta"], "--device meta cannot be used"),
        (["reconstruction", "--json", "nowhere/x.json"], "there is no folder nowhere"),
        (["reconstruction", "--json", "."], "--json . is a folder; name a file"),
        (["reconstruction", "--quick", "data.path=x"], "unrecognized arguments: data.path=x"),
        (["step", "--quik"], "unrecognized arguments: --quik"),
        (["loader", "--images", "nowhere"], "--images nowhere: there is no such folder"),
        (["loader", "--rounds", "0"], "--rounds is 0; it must be at least 1"),
        (["loader", "data.path=x"], "unrecognized arguments: data.path=x"),
        (["steps"], "invalid choice: 'steps'"),
    ],
)
def test_bad_input_is_a_sentence(
    call_script: CallScript, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_script("benchmark", arguments) == 2
    assert message in capsys.readouterr().err
