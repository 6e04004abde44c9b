"""scripts/export.py as a person runs it; the README's test runs it for images of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


def test_one_size_verified_on_own_pictures(
    tiny_model: Path, call_script: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.effect_noise((70, 50), 90).save(tmp_path / "own.png")
    output = tmp_path / "graph.pt2"
    arguments = [str(tiny_model), str(output), "--size", "33x64", "--images", str(tmp_path / "own.png")]
    assert call_script("export", arguments) == 0
    printed = capsys.readouterr().out
    assert "takes images of 33x64; equal class maps on 2112 pixels" in printed
    assert output.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["graph.pt2", "--size", "33"], "--size is '33'; give height and width in pixels, such as 512x512"),
        (["graph.pth", "--dynamic"], "a graph's file ends in .onnx or .pt2"),
        (["graph.pt2", "--size", "8x8", "--images", "absent.png"], "absent.png cannot be read as a picture"),
        (["graph.pt2"], "one of the arguments --dynamic --size is required"),
        (["graph.pt2", "--dynamic", "--size", "8x8"], "not allowed with argument --dynamic"),
    ],
)
def test_bad_arguments_are_one_sentence(
    tiny_model: Path,
    call_script: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call_script("export", [str(tiny_model), *arguments]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
