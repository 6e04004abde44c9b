"""scripts/predict.py as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from s4mim_hf import S4MIMImageProcessor
from s4mim_hf.data.prepared import decode_image, decode_label, load_prepared
from s4mim_hf.hub.load import load_model

ARCHITECTURE = "{model_type: resnet, embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1]}"


def test_two_processes_predict_each_image_once_with_one_summary_and_one_exit_code(
    repository: Path, tiny_model: Path, call_script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number in range(20):
        folder = tmp_path / "in" / ("deep" if number % 2 else "")
        Image.new("RGB", (40, 33), (number, 9, 9)).save(folder / f"{number // 2}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    arguments = [str(tiny_model), str(tmp_path / "in" / "**" / "*.png"), "--format", "parquet"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(repository / "scripts" / "predict.py"), *arguments, "--output", str(tmp_path / "two")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    # The launcher's own code for processes of which one has failed.
    assert found.returncode == 1, found.stderr
    assert "exitcode  : 1 " in found.stderr
    assert "Traceback" not in found.stderr.partition("elastic")[0]
    said = " ".join(found.stdout.split())
    for words in ("│ predicted │ 20 │", "│ bad │ 1 │", "this is no image"):
        assert said.count(words) == 1, found.stdout
    assert "20 rows are in 2 shards" in said
    assert call_script("predict", [*arguments, "--output", str(tmp_path / "one")]) == 1  # type: ignore[operator]
    assert "20 rows are in 2 shards" in capsys.readouterr().out
    for name in ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "README.md"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_prepared_data_as_pictures_or_shards_and_what_a_second_call_keeps(
    tiny_model: Path, tiny_data: Path, call_script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_model), str(tiny_data), "--output", str(tmp_path / "out")]
    assert call_script("predict", [*arguments, "--split", "validation"]) == 0  # type: ignore[operator]
    rows = pq.read_table(tmp_path / "out" / "data")
    assert rows["name"].to_pylist() == [f"validation/{number}" for number in range(5)]
    arguments[-1] = str(tmp_path / "png")
    arguments += ["--format", "png", "--confidence"]
    assert call_script("predict", arguments) == 0  # type: ignore[operator]
    masks = sorted((tmp_path / "png" / "masks").rglob("*.png"))
    assert len(masks) == 3
    drawn = tmp_path / "png" / "overlays" / masks[0].relative_to(tmp_path / "png" / "masks")
    with Image.open(masks[0]) as mask, Image.open(drawn) as picture:
        assert mask.mode == "P"
        assert np.asarray(mask).max() < 3
        assert picture.width >= mask.width
        assert picture.height > mask.height
    record = json.loads((tmp_path / "png" / "prediction.json").read_text())
    assert (record["protocol"], record["classes"]) == ("whole image at original size", ["sky", "road", "tree"])
    masks[1].unlink()
    capsys.readouterr()
    assert call_script("predict", arguments) == 0  # type: ignore[operator]
    counts = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [int(count) for _, count in counts[:3]] == [1, 2, 0]


def test_pseudo_labels_are_data_that_training_takes(
    tiny_model: Path, tiny_data: Path, call_script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labelled"
    arguments = [str(tiny_model), str(tiny_data), "--output", str(folder), "--pseudo-labels", "0.4"]
    assert call_script("predict", [*arguments, "--labeled", str(tiny_data)]) == 0  # type: ignore[operator]
    assert "has 5 labeled, 5 validation images; 3 of the labelled ones have pseudo-labels" in capsys.readouterr().out
    data, before = load_prepared(folder), load_prepared(tiny_data)
    for rows, given in ((data.validation, before.validation), (data.labeled.select(range(2)), before.labeled)):
        assert [row["label"]["bytes"] for row in rows] == [row["label"]["bytes"] for row in given]
    model, processor = load_model(tiny_model)
    for row, given in zip(data.labeled.select(range(2, 5)), before.unlabeled, strict=True):
        assert row["image"]["bytes"] == given["image"]["bytes"]
        with torch.no_grad():
            inputs = processor(images=decode_image(row["image"]["bytes"]), return_tensors="pt")
            label = decode_label(row["label"]["bytes"])
            logits = F.interpolate(model(**inputs).logits.double(), label.shape, mode="bilinear", align_corners=False)
        probability, ids = logits.softmax(dim=1)[0].max(dim=0)
        expected = np.where(probability >= 0.4, ids, 255)
        sure = np.abs(probability.numpy() - 0.4) > 1e-5
        np.testing.assert_array_equal(label[sure], expected[sure])
    small = [
        f"data.path={folder}", f"output_dir={tmp_path / 'run'}", "method.name=supervised", "optim.max_steps=2",
        "optim.warmup_steps=0", "data.views.crop_size=32", "data.labeled_batch_size=2", "data.num_workers=0",
        "model.backbone=null", f"model.backbone_config={ARCHITECTURE}", "model.decoder_channels=8", "panels.count=0",
        "log.tracker=none",
    ]  # fmt: skip
    assert call_script("train", ["--recipe", "custom", *small]) == 0  # type: ignore[operator]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


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


def test_unreadable_images_make_exit_1_after_the_others(
    tiny_model: Path, call_script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 33)).save(tmp_path / "in" / "good.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "in" / "tiny.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    arguments = [str(tiny_model), str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--tta", "--no-overlay"]
    assert call_script("predict", arguments) == 1  # type: ignore[operator]
    said = capsys.readouterr().out
    assert "this is no image that Pillow can read" in said
    assert f"masks are in {tmp_path / 'out' / 'masks'}" in said
    with Image.open(tmp_path / "out" / "masks" / "good.png") as mask:
        assert mask.size == (40, 33)
    assert not (tmp_path / "out" / "overlays").exists()
    arguments[1] = str(tmp_path / "in" / "bad.png")
    arguments[3] = str(tmp_path / "none")
    assert call_script("predict", arguments) == 1  # type: ignore[operator]
    assert not (tmp_path / "none" / "prediction.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "absent.png"], "there is no image or folder absent.png"),
        (["absent/model/folder", "IMAGES"], "'absent/model/folder' is neither a folder that is there"),
        (["MODEL", "IMAGES", "--window", "0"], "--window is 0"),
        (["MODEL", "IMAGES", "--window", "20"], "--window 20 belongs to --sliding-window"),
        (["MODEL", "IMAGES", "--batch-size", "0"], "batch size is 0"),
        (["MODEL", "IMAGES/*.jpg"], "matches nothing"),
        (["MODEL", "IMAGES", "--pseudo-labels", "0"], "--pseudo-labels is 0.0; the probability must be above 0"),
        (["MODEL", "IMAGES", "--pseudo-labels", "1", "--format", "png"], "leave --format out"),
        (["MODEL", "IMAGES", "--pseudo-labels", "1", "--labeled", "absent"], "there is no folder absent"),
        (["MODEL", "IMAGES", "--labeled", "absent"], "--labeled belongs to --pseudo-labels"),
        (["MODEL", "IMAGES", "--min-known", "0"], "--min-known belongs to --pseudo-labels"),
        (["MODEL", "IMAGES", "--format", "parquet", "--confidence"], "--confidence belongs to --format png"),
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
    given = [word.replace("IMAGES", str(tmp_path)) if word != "MODEL" else str(tiny_model) for word in arguments]
    assert call_script("predict", [*given, "--output", str(tmp_path / "out")]) == 2  # type: ignore[operator]
    errors = capsys.readouterr().err
    assert words in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
