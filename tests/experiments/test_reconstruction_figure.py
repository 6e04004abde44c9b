"""The picture of two runs' reconstructions, and a run read back from its folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY

from s4mim_hf.data.prepared import decode_image, load_prepared
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.finished_run import load_finished_run
from s4mim_hf.engine.reconstruction import Reconstructor, to_pixel_values
from s4mim_hf.engine.run import train
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.figures import draw_reconstructions, reconstructions
from s4mim_hf.methods import S4MIMMethodConfig
from s4mim_hf.visualization import draw_grid

SHORT = ["optim.max_steps=1", "optim.warmup_steps=0", "log.tracker=none", "checkpoint.interval=null"]
RUNS = {
    "basic": ["method.reconstruction.regions=image"],
    "class_wise": [],
    "other_patches": ["method.masking.patch_size=8"],
    "without_decoder": ["method.reconstruction.weight=0"],
    "fixmatch": ["method.name=fixmatch"],
}


@pytest.fixture(scope="module")
def runs(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Return folders of finished runs of one step."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(root / "cache"))
        for name, overrides in RUNS.items():
            places = [f"data.path={prepared}", f"output_dir={root / name}"]
            if name != "fixmatch":
                # Known classes, and the full weight, from the first step on.
                places += ["method.masking.images=labeled_and_unlabeled", "method.reconstruction.warmup_steps=0"]
            train(load_run_config("demo", [*TINY, *SHORT, *places, *overrides]))
        yield {name: root / name for name in RUNS}


def test_a_row_per_image_and_the_same_masks_for_both_runs(
    runs: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    draw_reconstructions(runs["basic"], runs["class_wise"], output / "pair.png", count=2)
    assert [path.name for path in output.iterdir()] == ["pair.png"]
    with Image.open(output / "pair.png") as picture:
        shown = np.array(picture)
    cell, gap, heading = 320, 6, 48
    assert shown.shape[1] == 5 * (cell + gap) + gap
    assert shown.shape[0] > heading + 2 * (cell + gap), "images of 64 x 64, and the legend"

    columns = [shown[heading : heading + cell, gap + number * (cell + gap) :][:, :cell] for number in range(5)]
    image, class_map, masked, basic, class_wise = (column.astype(int) for column in columns)
    validation = load_prepared(prepared).validation
    original = Image.fromarray(decode_image(validation[0]["image"]["bytes"]))
    np.testing.assert_array_equal(image, np.asarray(original.resize((cell, cell), Image.Resampling.BILINEAR)))
    # Well inside a visible patch everything is the image; at a masked one both runs differ from it, and from grey.
    middles = [slice(start + 24, start + 56) for start in range(0, cell, 80)]
    patches = [(rows, columns) for rows in middles for columns in middles]
    visible = [place for place in patches if (masked[place] == image[place]).all()]
    assert 2 <= len(visible) <= 14
    for place in patches:
        if place in visible:
            assert (basic[place] == image[place]).all()
            assert (class_wise[place] == image[place]).all()
        else:
            assert len(np.unique(masked[place].reshape(-1, 3), axis=0)) == 1
            assert (basic[place] != masked[place]).any()
            assert (class_wise[place] != masked[place]).any()
    palette = {tuple(color) for color in load_prepared(prepared).palette}
    assert {tuple(color) for color in class_map.reshape(-1, 3)} <= palette


def test_a_run_comes_back_as_it_was(runs: dict[str, Path]) -> None:
    found = load_finished_run(runs["class_wise"])
    assert found.step == 1
    assert not found.student.training
    assert found.student.mim_decoder is not None
    # After one step with the ramp the teacher is the student.
    ours, theirs = found.teacher.state(), found.student.segmenter.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = load_finished_run(runs["class_wise"])
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(found.student(pixels).logits, again.student(pixels).logits)
        other = load_finished_run(runs["basic"])
        assert not torch.equal(found.student(pixels).logits, other.student(pixels).logits)


def copied(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    return folder


def test_a_run_of_a_gpu_comes_back_without_one(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(runs["class_wise"], tmp_path / "copy")
    settings = (folder / "run_config.yaml").read_text()
    for key, value in (("sync_batch_norm", "true"), ("mim_attention", "flex")):
        settings, count = re.subn(rf"(?m)^( +{key}:) .*$", rf"\1 {value}", settings)
        assert count == 1
    (folder / "run_config.yaml").write_text(settings)
    found, plain = load_finished_run(folder), load_finished_run(runs["class_wise"])
    assert found.config.model.sync_batch_norm
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(found.student(pixels).logits, plain.student(pixels).logits)


@pytest.mark.parametrize(
    ("basic", "class_wise", "message"),
    [
        ("without_decoder", "class_wise", "without_decoder.*reconstructs nothing.*method.reconstruction.weight"),
        ("fixmatch", "class_wise", "method 'fixmatch'.*reconstructs nothing"),
        ("class_wise", "basic", "regions=class.*basic run first"),
        ("basic", "other_patches", "patch_size is 16.* and 8"),
    ],
)
def test_runs_that_do_not_fit_are_refused(
    runs: dict[str, Path], tmp_path: Path, basic: str, class_wise: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        draw_reconstructions(runs[basic], runs[class_wise], tmp_path / "pair.png")
    assert not list(tmp_path.glob("*.png"))


def test_folders_without_a_run_or_a_checkpoint_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere holds no run.*run_config\.yaml"):
        load_finished_run(tmp_path / "nowhere")
    started = copied(runs["basic"], tmp_path / "started")
    shutil.rmtree(started / "checkpoints")
    with pytest.raises(InputError, match="started has no checkpoint"):
        load_finished_run(started)
    damaged = copied(runs["basic"], tmp_path / "damaged")
    (damaged / "checkpoints" / "step_1" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"model\.safetensors.*cannot be loaded"):
        load_finished_run(damaged)


def test_another_split_behind_the_same_path_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    moved = copied(runs["basic"], tmp_path / "moved")
    state_file = moved / "checkpoints" / "step_1" / "trainer_state.json"
    state = json.loads(state_file.read_text())
    state_file.write_text(json.dumps({**state, "split_hash": "0" * 64}))
    with pytest.raises(InputError, match="another split"):
        load_finished_run(moved)


def test_data_that_has_moved_is_named(runs: dict[str, Path], prepared: Path, tmp_path: Path) -> None:
    folder = copied(runs["basic"], tmp_path / "run")
    settings = (folder / "run_config.yaml").read_text()
    (folder / "run_config.yaml").write_text(settings.replace(str(prepared), "gone"))
    with pytest.raises(InputError, match="there is no folder gone"):
        load_finished_run(folder)
    assert load_finished_run(folder, str(prepared)).data.path == str(prepared)


def test_each_column_is_of_the_run_that_it_names(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, np.ndarray]] = []

    def draw_and_keep(rows: list[dict[str, np.ndarray]], *others: Any, **named: Any) -> None:
        drawn.extend(rows)
        draw_grid(rows, *others, **named)

    monkeypatch.setattr(reconstructions, "draw_grid", draw_and_keep)
    draw_reconstructions(runs["basic"], runs["class_wise"], tmp_path / "pair.png", count=1)
    teacher = load_finished_run(runs["class_wise"]).teacher
    for column, name in (("basic", "basic"), ("class-wise", "class_wise")):
        run = load_finished_run(runs[name])
        assert isinstance(run.config.method, S4MIMMethodConfig)
        by = Reconstructor(run.config.method, len(run.data.id2label), run.data.ignore_index, *run.statistics)
        pixels = to_pixel_values(drawn[0]["image"], *run.statistics)
        prediction = teacher(pixels).logits.argmax(dim=1)
        mask = by.patch_mask(prediction, load_finished_run(runs["class_wise"]).config.seed, 0)
        found = by.reconstruct(run.student, pixels, mask, prediction)
        np.testing.assert_array_equal(drawn[0][column], found.filled)
    assert (drawn[0]["basic"] != drawn[0]["class-wise"]).any()
