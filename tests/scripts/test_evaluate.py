"""scripts/evaluate.py as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MobileViTImageProcessor

from s4mim_hf import S4MIMImageProcessor
from s4mim_hf.data.prepared import decode_image, decode_label, load_prepared
from s4mim_hf.hub.load import load_model


def run(repository: Path, *arguments: object, launch: bool = False) -> subprocess.CompletedProcess[str]:
    start = [sys.executable]
    if launch:
        # `accelerate launch --cpu --num_processes 2` starts one process.
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*start, str(repository / "scripts" / "evaluate.py"), *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


def by_hand(model_folder: Path, data_folder: Path) -> np.ndarray:
    """Count label against prediction, one image at a time, through the model's own processor."""
    model, processor = load_model(model_folder)
    counts = np.zeros((3, 3), dtype=np.int64)
    for row in load_prepared(data_folder).validation:
        label = decode_label(row["label"]["bytes"])
        inputs = processor(images=decode_image(row["image"]["bytes"]), return_tensors="pt")
        with torch.no_grad():
            prediction = processor.post_process_semantic_segmentation(model(**inputs), [label.shape])[0].numpy()
        np.add.at(counts, (label[label != 255], prediction[label != 255]), 1)
    return counts


def test_two_processes_count_what_a_loop_counts(
    repository: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    # Five images over two processes: a padded batch would count six.
    found = run(repository, tiny_model, "--data", tiny_data, "--json", tmp_path / "s.json", launch=True)
    assert found.returncode == 0, found.stderr
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["images"] == 5
    np.testing.assert_array_equal(scores["confusion"], by_hand(tiny_model, tiny_data))
    assert found.stdout.count("tiny validation, 5 images") == 1
    assert "whole image at original size" in found.stdout


def test_alone_it_agrees_with_a_metric_of_the_evaluate_library(
    repository: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reference"
    folder.mkdir()
    code = "from s4mim_hf.evaluation.hub_metric import MeanIoU\n\n\nclass Reference(MeanIoU):\n    pass\n"
    (folder / "reference.py").write_text(code)
    found = run(repository, tiny_model, "--data", tiny_data, "--metric", folder, "--sliding-window", "--window", 20)
    assert found.returncode == 0, found.stderr
    assert "all five numbers agree" in found.stdout
    assert "sliding window 20, overlap 1/3, at original size" in found.stdout.replace("\n", " ")


def test_images_above_the_models_longest_side_are_shrunk_and_the_table_says_so(
    tiny_model: Path, tiny_data: Path, call_script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    S4MIMImageProcessor.from_pretrained(model, max_side=40).save_pretrained(model)
    arguments = [str(model), "--data", str(tiny_data), "--json", str(tmp_path / "s.json")]
    assert call_script("evaluate", arguments) == 0  # type: ignore[operator]
    scores = json.loads((tmp_path / "s.json").read_text())
    np.testing.assert_array_equal(scores["confusion"], by_hand(model, tiny_data))
    assert not np.array_equal(scores["confusion"], by_hand(tiny_model, tiny_data))
    assert "images above 40 pixels a side shrunk to that" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent/model/folder", "--data", "DATA"], "'absent/model/folder' is neither a folder that is there"),
        (["MODEL", "--data", "absent"], "there is no folder absent"),
        (["OTHER", "--data", "DATA"], "predicts 2 classes, but"),
        (["MODEL", "--data", "DATA", "--metric", "hub"], "the Hub's mean_iou cannot be had"),
        (["MODEL", "--data", "DATA", "--center-crop", "0"], "--center-crop is 0; it must be at least 1"),
        (["MODEL", "--data", "DATA", "--batch-size", "0"], "batch size is 0"),
        (["MODEL", "--data", "DATA", "--json", "absent/s.json"], "--json: there is no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    tiny_model: Path,
    other_model: Path,
    tiny_data: Path,
    call_script: object,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"MODEL": str(tiny_model), "OTHER": str(other_model), "DATA": str(tiny_data)}
    code = call_script("evaluate", [places.get(word, word) for word in arguments])  # type: ignore[operator]
    errors = capsys.readouterr().err
    assert code == 2
    assert words in errors
    assert "Traceback" not in errors


def test_the_unlabelled_images_are_not_opened(
    repository: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (pool,) = (data / "data").glob("unlabeled-*.parquet")
    pool.write_bytes(b"?" * pool.stat().st_size)
    found = run(repository, tiny_model, "--data", data)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        (MobileViTImageProcessor(), "swaps red and blue (do_flip_channel_order)"),
        (MobileViTImageProcessor(do_flip_channel_order=False), "does not normalise pictures (do_normalize)"),
        (S4MIMImageProcessor(do_normalize=False), "does not normalise pictures (do_normalize)"),
        (S4MIMImageProcessor(do_rescale=False), "does not scale pictures to 0 .. 1"),
        (S4MIMImageProcessor(rescale_factor=1 / 127.5), "does not scale pictures to 0 .. 1"),
    ],
)
def test_a_processor_that_makes_other_pixels_is_refused(
    tiny_model: Path,
    tiny_data: Path,
    call_script: object,
    tmp_path: Path,
    processor: Any,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    processor.save_pretrained(model)
    assert call_script("evaluate", [str(model), "--data", str(tiny_data)]) == 2  # type: ignore[operator]
    errors = capsys.readouterr().err
    assert f"the image processor of {model} {words}" in errors
    assert "Traceback" not in errors
