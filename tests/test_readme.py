"""What the README shows is run: its commands on small data with small networks, its snippet as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.data.synthetic import CLASSES, render_scene

ARCHITECTURE = (
    "{model_type: resnet, embedding_size: 8, hidden_sizes: [8, 12, 16, 24], depths: [1, 1, 1, 1], layer_type: basic}"
)
SMALL = [
    "model.decoder_channels=12",
    "model.mim_channels=8",
    "data.views.crop_size=48",
    "data.labeled_batch_size=2",
    "data.unlabeled_batch_size=2",
    "data.num_workers=0",
    "optim.max_steps=2",
    "optim.warmup_steps=0",
    "method.masking.patch_size=16",
]


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def block(text: str, language: str, containing: str) -> str:
    """Return the one code block of a language that contains a string."""
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", text, flags=re.S) if containing in code]
    assert len(found) == 1, f"{len(found)} {language} blocks contain {containing!r}"
    return found[0]


def commands(code: str) -> list[list[str]]:
    """Return a block's commands, one a line, as argument lists."""
    return [shlex.split(line) for line in code.replace("\\\n", " ").splitlines() if line.strip()]


def run(command: list[str], folder: Path, repository: Path, code: int = 0) -> str:
    """Run a README command in `folder` with this interpreter, and return what it printed."""
    command = [argument.replace("scripts/", f"{repository}/scripts/") for argument in command]
    if command[:2] == ["accelerate", "launch"]:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_cpu_threads_per_process=1", *command[2:]]
    elif command[0] == "python":
        command[0] = sys.executable
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == code, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_demo_command_trains_and_the_snippet_loads_its_model(text: str, repository: Path, tmp_path: Path) -> None:
    install, _, launch = block(text, "bash", "accelerate launch scripts/train.py\n").strip().partition(" && ")
    assert install == "pip install -e ."
    small = [*SMALL, f"model.backbone_config={ARCHITECTURE}", "panels.count=1"]
    printed = run([*shlex.split(launch), *small], tmp_path, repository)
    for class_name in CLASSES:
        assert class_name in printed
    for expected in ("runs/demo/model", "runs/demo/panels", "runs/demo/curves.png", "next: accelerate launch"):
        assert expected in printed
    image, _ = render_scene(np.random.default_rng(0))
    Image.fromarray(image).save(tmp_path / "photo.jpg")
    snippet = block(text, "python", "AutoModelForSemanticSegmentation")
    check = "\nassert class_map.shape == (128, 128)\nassert regions and regions[0]['mask'].size == (128, 128)\n"
    (tmp_path / "snippet.py").write_text(snippet + check)
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_path_for_own_images(text: str, repository: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "PHOTOS" / part).mkdir(parents=True)
    (tmp_path / "NEW_PHOTOS").mkdir()
    for number in range(12):
        image, label = render_scene(np.random.default_rng(number))
        Image.fromarray(image).save(tmp_path / "PHOTOS" / "images" / f"{number}.jpg")
        if number < 6:
            Image.fromarray(label).save(tmp_path / "PHOTOS" / "masks" / f"{number}.png")
    Image.fromarray(image[:100]).save(tmp_path / "NEW_PHOTOS" / "new.jpg")
    prepare, train, evaluate, predict = commands(block(text, "bash", "prepare_data.py folder"))
    printed = run([*prepare, "--classes", ",".join(CLASSES)], tmp_path, repository)
    assert "unlabeled" in printed
    # The pretrained weights are on the Hub; the same architecture at random stands in for them here.
    train = [item for item in train if not item.startswith("model.")]
    run([*train, *SMALL, f"model.backbone_config={ARCHITECTURE}"], tmp_path, repository)
    printed = run(evaluate, tmp_path, repository)
    assert "whole image" in printed
    run(predict, tmp_path, repository)
    with Image.open(tmp_path / "predictions" / "masks" / "new.png") as mask:
        assert mask.size == (128, 100)
        assert mask.mode == "P"


def test_the_comparison_on_own_images(text: str, repository: Path, tmp_path: Path) -> None:
    own, _, listing = commands(block(text, "bash", "--list-rows"))
    run(["python", "scripts/prepare_data.py", "synthetic", "--output", "data/mine"], tmp_path, repository)
    # A later value of the same option counts.
    small = [*SMALL, f"model.backbone_config={ARCHITECTURE}", "panels.count=0", "log.tracker=none"]
    printed = run([*own, "--seeds", "0", "--output", "compared", *small], tmp_path, repository)
    assert "supervised" in printed
    assert (tmp_path / "compared" / "results.md").exists()
    assert (tmp_path / "compared" / "ablation.png").exists()
    assert "class_wise_mim" in run(listing, tmp_path, repository)


@pytest.mark.real
def test_the_ablation_on_real_images(text: str, repository: Path, shared_dir: Path, tmp_path: Path) -> None:
    _, ablation, _ = commands(block(text, "bash", "--list-rows"))
    ablation[ablation.index("CAMVID")] = str(shared_dir / "data" / "camvid")
    small = [item for item in SMALL if not item.startswith("method.")]
    extra = [f"model.backbone={shared_dir / 'weights' / 'mobilenet_v2_imagenet'}", "log.tracker=none", "panels.count=0"]
    few = ["--rows", "supervised", "--seeds", "0", "--labeled", "1/16", "evaluation.evaluate_student=false"]
    printed = run([*ablation, *few, *small, *extra], tmp_path, repository)
    assert "23" in printed


@pytest.mark.real
def test_the_benchmark_path_on_real_images(text: str, repository: Path, shared_dir: Path, tmp_path: Path) -> None:
    prepare, train = commands(block(text, "bash", "prepare_data.py camvid"))
    prepare[prepare.index("CAMVID")] = str(shared_dir / "data" / "camvid")
    assert "46" in run(prepare, tmp_path, repository)
    weights = shared_dir / "weights" / "mobilenet_v2_imagenet"
    extra = [f"model.backbone={weights}", "evaluation.evaluate_student=false", "panels.count=0", "log.tracker=none"]
    printed = run([*train, *SMALL, *extra], tmp_path, repository)
    assert "bicyclist" in printed


def test_the_test_command_is_the_one_that_is_shown(text: str) -> None:
    code = text.partition("<!-- the test command -->")[2].partition("```bash\n")[2].partition("```")[0]
    assert code.strip() == 'pip install -e ".[test]" && python -m pytest -n 2'
