"""What the README shows is run: its commands on small data with small networks, its snippet as it stands."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import annotation_trees
import coco_trees
import hub_trees
import numpy as np
import peer_networks
import pools
import pytest
import torch
import voc_trees
from hub_client import hub_client
from hub_server import Account, running_hub
from PIL import Image
from tiny_runs import write_raw

from s4mim_hf import S4MIMConfig, S4MIMForSemanticSegmentation, S4MIMImageProcessor
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
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
    (export,) = commands(block(text, "bash", "scripts/export.py"))
    assert "equal class maps" in run(export, tmp_path, repository)
    snippet = block(text, "python", "AutoModelForSemanticSegmentation")
    check = "\nassert class_map.shape == (128, 128)\nassert regions and regions[0]['mask'].size == (128, 128)\n"
    graph = "before = class_map.numpy()\n" + block(text, "python", "onnxruntime")
    check += graph + f"assert (class_map == before).all()\nassert list(names.values()) == {list(CLASSES)}\n"
    (tmp_path / "snippet.py").write_text(snippet + check)
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    publish_the_demo(text, repository, tmp_path)


def publish_the_demo(text: str, repository: Path, folder: Path) -> None:
    """Run the publishing commands against a small Hub of this machine."""
    rehearse, publish = (command[1:] for command in commands(block(text, "bash", "scripts/publish.py")))
    assert rehearse[0] == publish[0] == "scripts/publish.py"
    with running_hub(mine=Account("USER")) as hub, hub_client(hub.environment(folder / "home")) as client:

        def call(arguments: list[str]) -> str:
            return str(client("hub_client:script", repository / arguments[0], folder, *arguments[1:], token="mine"))

        assert "USER/NAME does not exist: it would be made, private" in call(rehearse)
        assert not hub.repositories
        assert f"published: {hub.url}/USER/NAME (commit " in call(publish)
        made, files = hub.repositories["model", "USER/NAME"], hub.files("model", "USER/NAME")
        assert made.private
        assert made.operations[0][-1] == "+README.md"
        assert files["model.safetensors"] == (folder / "runs/demo/model/model.safetensors").read_bytes()
        assert b"license: mit" in files["README.md"]


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
    prepare, train, evaluate, predict = commands(block(text, "bash", "prepare_data.py folder --source PHOTOS"))
    printed = run([*prepare, "--classes", ",".join(CLASSES)], tmp_path, repository)
    assert "unlabeled" in printed
    # The pretrained weights are on the Hub; the same architecture at random stands in for them here.
    train = [item for item in train if not item.startswith("model.")]
    run([*train, *SMALL, f"model.backbone_config={ARCHITECTURE}"], tmp_path, repository)
    printed = run(evaluate, tmp_path, repository)
    assert "whole image" in printed
    prepare_test, evaluate_test = commands(block(text, "bash", "--split labeled"))
    for part, files in (("images", "[0-3].jpg"), ("masks", "[0-3].png")):
        (tmp_path / "TEST" / part).mkdir(parents=True)
        for file in (tmp_path / "PHOTOS" / part).glob(files):
            shutil.copy(file, tmp_path / "TEST" / part)
    run([*prepare_test, "--classes", ",".join(CLASSES)], tmp_path, repository)
    assert "4 images" in run(evaluate_test, tmp_path, repository)
    run(predict, tmp_path, repository)
    with Image.open(tmp_path / "predictions" / "masks" / "new.png") as mask:
        assert mask.size == (128, 100)
        assert mask.mode == "P"


def test_the_prediction_commands(
    text: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path / "raw")
    prepare(PrepareOptions("folder", tmp_path / "data/mine", str(tmp_path / "raw"), labeled="4", validation="2"), print)
    torch.manual_seed(0)
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    # Wide enough for an untrained model to be sure of some pixels.
    config = S4MIMConfig(backbone_config=backbone, id2label=dict(enumerate(CLASSES)), initializer_range=1.0)
    S4MIMForSemanticSegmentation(config).save_pretrained(tmp_path / "runs/mine/model")
    S4MIMImageProcessor().save_pretrained(tmp_path / "runs/mine/model")
    scene = Image.fromarray(render_scene(np.random.default_rng(0))[0][:64, :96])
    (tmp_path / "NEW_PHOTOS" / "day").mkdir(parents=True)
    scene.save(tmp_path / "NEW_PHOTOS" / "day" / "new.jpg")
    for shard in range(2):
        pools.tar_of(tmp_path / "POOL" / f"pool-{shard}.tar", [hub_trees.encoded(scene)])
    monkeypatch.chdir(tmp_path)
    *predictions, train = commands(block(text, "bash", "--pseudo-labels"))
    # The pretrained weights are on the Hub; the same architecture at random stands in for them here.
    train = [item for item in train if not item.startswith("model.")]
    small = [item for item in SMALL if not item.startswith("method.")]
    small += [f"model.backbone_config={ARCHITECTURE}", "panels.count=0", "log.tracker=none"]
    for command in (*predictions, [*train, *small]):
        run_here(command, repository, monkeypatch)
    printed = capsys.readouterr().out
    assert "2 rows are in 2 shards in predicted/pool/data" in printed
    assert "data/again has 8 labeled, 2 validation images; 4 of the labelled ones have pseudo-labels" in printed
    for kind in ("masks", "overlays", "confidences"):
        assert (tmp_path / "predicted/photos" / kind / "day/new.png").is_file()
    assert (tmp_path / "runs/again/model/model.safetensors").is_file()


def run_here(command: list[str], repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a README command in this process: what takes time is the import of transformers."""
    script = next(index for index, item in enumerate(command) if item.startswith("scripts/"))
    monkeypatch.setattr(sys, "argv", [str(repository / command[script]), *command[script + 1 :]])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(sys.argv[0], run_name="__main__")
    assert not stopped.value.code, command


def test_the_streamed_pool(text: str, repository: Path, tmp_path: Path) -> None:
    run(["python", "scripts/prepare_data.py", "synthetic", "--output", "data/mine"], tmp_path, repository)
    for shard in range(2):
        pictures = [hub_trees.encoded(Image.fromarray(render_scene(np.random.default_rng(n))[0])) for n in range(3)]
        pools.tar_of(tmp_path / "POOL" / f"pool-{shard}.tar", pictures)
    (train,) = commands(block(text, "bash", "data.unlabeled.streaming"))
    small = [*SMALL, f"model.backbone_config={ARCHITECTURE}", "panels.count=0", "log.tracker=none"]
    assert "runs/pool/model" in run([*train, *small], tmp_path, repository)


def write_voc(folder: Path) -> None:
    """Write a miniature of Pascal VOC, with two id lists."""
    names = [f"20{number:02d}_000032" for number in range(7, 13)]
    voc_trees.write_voc(folder, names[:4], names[4:])
    pairs = [f"JPEGImages/{name}.jpg SegmentationClass/{name}.png\n" for name in names]
    (folder / "LABELED.txt").write_text("".join(pairs[:2]))
    (folder / "UNLABELED.txt").write_text("".join(pairs[2:4]))


def write_raw_data(folder: Path) -> None:
    """Write a miniature of each data set that the README prepares."""
    write_voc(folder)
    ids = np.arange(19, dtype=np.uint8).reshape(1, -1)
    for split, number in (("train", 0), ("train", 1), ("val", 0)):
        city = {"train": "aachen", "val": "lindau"}[split]
        name = f"{city}_{number:06d}_000019"
        write_pair(folder / "CITYSCAPES/leftImg8bit" / split / city / f"{name}_leftImg8bit.png", ids,
                   folder / "CITYSCAPES/gtFine" / split / city / f"{name}_gtFine_labelTrainIds.png")  # fmt: skip
        name = f"ADE_{split}_{number + 1:08d}"
        root, part = folder / "ADEChallengeData2016", {"train": "training", "val": "validation"}[split]
        write_pair(root / "images" / part / f"{name}.jpg", ids, root / "annotations" / part / f"{name}.png")
    coco_trees.write_images(folder / "COCO")
    for split, images in coco_trees.SPLITS.items():
        for name in images:
            coco_trees.write_png(folder / "COCO" / "stuffthingmaps" / split / f"{name}.png", np.zeros((9, 12)))
    for name in "abcd":
        annotation_trees.annotated(folder / "LABELME", name, [annotation_trees.shape("cat")])
    hub_trees.plain(folder / "USER" / "NAME", train=4, validation=2)


def write_pair(image: Path, ids: np.ndarray, label: Path) -> None:
    """Write a grey picture and its class map."""
    for path, pixels in ((image, np.zeros((*ids.shape, 3), np.uint8)), (label, ids)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def test_the_data_commands(text: str, repository: Path, tmp_path: Path) -> None:
    write_raw_data(tmp_path)
    *prepared, check = commands(block(text, "bash", "prepare_data.py voc"))
    for command in prepared:
        # Nothing names the classes of these two.
        extra = ["--classes", "cat"] if "LABELME" in command else []
        assert "labeled" in run([*command, *extra], tmp_path, repository)
        assert (tmp_path / command[-1] / "splits.json").is_file()
    assert "nothing that training would fail with" in run(check, tmp_path, repository)


def test_the_conversion_commands(
    text: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The peers' files are on their pages; made ones in the same layout stand in for them."""
    peer_networks.unimatch_file(tmp_path / "UNIMATCH.pth", peer_networks.deeplab_state())
    both = peer_networks.dpt_state(seed=0), peer_networks.dpt_state(seed=1)
    peer_networks.unimatch_file(tmp_path / "UNIMATCH_V2.pth", both[0], model_ema=both[1])
    torch.save(peer_networks.deeplab_state(correlation=True), tmp_path / "CORRMATCH.pth")
    write_voc(tmp_path)
    monkeypatch.chdir(tmp_path)
    prepare = commands(block(text, "bash", "prepare_data.py voc"))[0]
    for command in (prepare, *commands(block(text, "bash", "convert.py unimatch "))):
        run_here(command, repository, monkeypatch)
    printed = capsys.readouterr().out
    for expected in ("UniMatch, the student's", "UniMatch V2, the teacher's", "CorrMatch, the student's", "tvmonitor"):
        assert expected in printed


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
