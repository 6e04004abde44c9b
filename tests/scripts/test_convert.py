"""scripts/convert.py as a person runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peer_networks import deeplab_state, unimatch_file

CallScript = Callable[[str, list[str]], int]


def test_a_converted_model_is_evaluated_and_predicts(
    call_script: CallScript, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, teacher = (deeplab_state(classes=3, seed=seed) for seed in (0, 1))
    checkpoint = str(unimatch_file(tmp_path / "best.pth", student, model_ema=teacher))
    arguments = ["unimatch", checkpoint, str(tmp_path / "model"), "--classes", "sky, road,tree"]
    assert call_script("convert", [*arguments, "--weights", "student", "--aspp-rates", "1,2,3"]) == 0
    printed = capsys.readouterr().out
    for expected in ("UniMatch, the student's weights", "3 classes: sky, road, tree", "aspp_rates [1, 2, 3]"):
        assert expected in printed
    assert f"next: accelerate launch scripts/evaluate.py {tmp_path / 'model'} --data PREPARED_DATA" in printed
    scores = str(tmp_path / "scores.json")
    assert call_script("evaluate", [str(tmp_path / "model"), "--data", str(tiny_data), "--json", scores]) == 0
    assert 0 <= json.loads(Path(scores).read_text())["mean_iou"] <= 1
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.png").write_bytes(_first_image(tiny_data))
    assert call_script("predict", [str(tmp_path / "model"), str(photos), "--output", str(tmp_path / "masks")]) == 0
    assert (tmp_path / "masks" / "masks" / "one.png").is_file()


def _first_image(data: Path) -> bytes:
    from s4mim_hf.data.prepared import load_prepared

    content: bytes = load_prepared(str(data)).validation[0]["image"]["bytes"]
    return content


def test_cityscapes_are_evaluated_by_windows(
    call_script: CallScript, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(deeplab_state(classes=19, correlation=True), tmp_path / "resnet101.pth")
    assert call_script("convert", ["corrmatch", str(tmp_path / "resnet101.pth"), str(tmp_path / "model")]) == 0
    printed = capsys.readouterr().out
    assert "--data data/cityscapes --sliding-window --window 801" in printed
    assert "19 classes (taken to be cityscapes's by their number): road" in printed
    assert "left out, since they never enter the logits: corr.conv1.weight" in printed
    assert "cc-by-nc-4.0, not measured by us" in printed
    assert "note: 19 classes are what Cityscapes has, for which CorrMatch's repository has other" in printed
    assert "scripts/convert.py with --multi-grid 2,2,4" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mixmatch", "FILE", "OUT"], ["no converter for 'mixmatch'", "unimatch, unimatch_v2, corrmatch"]),
        (["corrmatch", "FILE", "OUT"], ["UniMatch, not of CorrMatch"]),
        (["unimatch", "ABSENT", "OUT"], ["there is no checkpoint"]),
        (["unimatch", "FILE", "OUT", "--weights", "teacher"], ["no teacher's weights"]),
        (["unimatch", "FILE", "OUT", "--aspp-rates", "6;12"], ["--aspp-rates is '6;12'", "6,12,18"]),
        (["unimatch", "FILE", "OUT", "--output-stride", "12"], ["output_stride is 12", "8, 16, 32"]),
        (["unimatch", "FILE", "OUT", "--data", "camvid"], ["CamVid", "predicts 21"]),
        (["unimatch", "FILE", "HERE"], ["is there already"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], words: list[str], call_script: CallScript, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unimatch_file(tmp_path / "FILE", deeplab_state())
    (tmp_path / "HERE").mkdir()
    before = sorted(tmp_path.rglob("*"))
    given = [str(tmp_path / item) if item.isupper() else item for item in arguments]
    assert call_script("convert", given) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    for word in words:
        assert word in said
    assert sorted(tmp_path.rglob("*")) == before
