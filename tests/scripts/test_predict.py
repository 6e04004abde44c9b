"""scripts/predict.py as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4mim_hf import S4MIMImageProcessor


def test_predicts_the_unlabelled_split_resumes_and_says_so(
    repository: Path,
    tiny_model: Path,
    tiny_data: Path,
    call_script: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(tiny_model), str(tiny_data), "--output", str(tmp_path)]
    command = [sys.executable, str(repository / "scripts" / "predict.py"), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    assert "3 predicted, 0 kept from before, 0 unreadable" in found.stdout
    masks = sorted((tmp_path / "masks").rglob("*.png"))
    assert len(masks) == 3
    drawn = tmp_path / "overlays" / masks[0].relative_to(tmp_path / "masks")
    with Image.open(masks[0]) as mask, Image.open(drawn) as picture:
        assert mask.mode == "P"
        assert np.asarray(mask).max() < 3
        assert picture.width >= mask.width
        assert picture.height > mask.height
    assert json.loads((tmp_path / "prediction.json").read_text())["protocol"] == "whole image at original size"
    masks[1].unlink()
    assert call_script("predict", arguments) == 0  # type: ignore[operator]
    assert "1 predicted, 2 kept from before, 0 unreadable" in capsys.readouterr().out


def test_a_photo_of_12_megapixels_is_predicted_at_what_the_model_remembers(
    tiny_model: Path, call_script: object, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    processor = S4MIMImageProcessor.from_pretrained(model, max_side=96)
    processor.save_pretrained(model)
    ramp = np.linspace(0, 255, 4000, dtype=np.uint8)[None, :, None]
    Image.fromarray(np.broadcast_to(ramp, (3000, 4000, 3))).save(tmp_path / "photo.jpg")
    arguments = [str(model), str(tmp_path / "photo.jpg"), "--output", str(tmp_path / "out"), "--no-overlay"]
    assert call_script("predict", arguments) == 0  # type: ignore[operator]
    with Image.open(tmp_path / "out" / "masks" / "photo.png") as mask:
        assert mask.size == (4000, 3000)
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["protocol"] == "whole image at original size, images above 96 pixels a side shrunk to that"


def test_unreadable_images_make_exit_2_after_the_others(
    tiny_model: Path, call_script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 33)).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    arguments = [str(tiny_model), str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--tta", "--no-overlay"]
    assert call_script("predict", arguments) == 2  # type: ignore[operator]
    said = capsys.readouterr()
    assert "1 predicted, 0 kept from before, 1 unreadable" in said.out
    assert "1 of 2 images could not be read (bad)" in said.err
    with Image.open(tmp_path / "out" / "masks" / "good.png") as mask:
        assert mask.size == (40, 33)
    assert not (tmp_path / "out" / "overlays").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "absent.png"], "there is no image or folder absent.png"),
        (["absent/model/folder", "IMAGES"], "there is no model folder"),
        (["MODEL", "IMAGES", "--window", "0"], "--window is 0"),
        (["MODEL", "IMAGES", "--batch-size", "0"], "batch size is 0"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    tiny_model: Path,
    call_script: object,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    places = {"MODEL": str(tiny_model), "IMAGES": str(tmp_path)}
    given = [places.get(word, word) for word in arguments]
    assert call_script("predict", [*given, "--output", str(tmp_path / "out")]) == 2  # type: ignore[operator]
    errors = capsys.readouterr().err
    assert words in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
