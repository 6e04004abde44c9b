"""Every run is known and checked before the first one starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from raw_trees import write_tree

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.plan import AblationOptions, plan_ablation, settings_hash
from s4mim_hf.experiments.rows import ROWS


def message_of(**options: Any) -> str:
    with pytest.raises(InputError) as caught:
        plan_ablation(AblationOptions(**options))
    return str(caught.value)


def test_the_demo_has_every_row_on_scenes_of_each_seed() -> None:
    plan = plan_ablation(AblationOptions())
    assert plan.output == Path("runs/ablation-demo")
    assert len(plan.cells) == 3 * len(ROWS)
    assert plan.relative_to == "base"
    first, second = plan.cells[0], plan.cells[1]
    assert (first.name, first.config.data.path) == ("all, fully_supervised, seed 0", "synthetic:0:all")
    assert first.folder == Path("runs/ablation-demo/runs/all/fully_supervised/seed_0")
    assert (second.name, second.config.data.path) == ("16, supervised, seed 0", "synthetic:0")
    # A seed's rows are complete before the next seed's.
    assert [cell.seed for cell in plan.cells] == sorted(cell.seed for cell in plan.cells)
    assert all(cell.config.seed == cell.seed for cell in plan.cells)
    assert [cell.config.data.path for cell in plan.cells_of("16", ROWS["s4mim"])] == [
        "synthetic:0",
        "synthetic:1",
        "synthetic:2",
    ]


def test_raw_images_of_a_known_data_set(tmp_path: Path) -> None:
    raw = write_tree(tmp_path / "raw", classes=False)
    options: dict[str, Any] = {"recipe": "camvid", "source": raw, "labeled": ["1/8", "1/2"], "seeds": [5]}
    plan = plan_ablation(AblationOptions(rows=["base", "fully_supervised"], output=tmp_path / "out", **options))
    assert plan.source.description.startswith("camvid,")
    assert [cell.name for cell in plan.cells] == [
        "all, fully_supervised, seed 5",
        "1/8, base, seed 5",
        "1/2, base, seed 5",
    ]
    assert plan.cells[1].config.data.path == str(tmp_path / "out" / "data" / "1-8" / "seed_5")
    assert plan.cells[1].folder == tmp_path / "out" / "runs" / "1-8" / "base" / "seed_5"
    assert plan.cells_of("1/8", ROWS["fully_supervised"]) == plan.cells_of("1/2", ROWS["fully_supervised"])
    assert not (tmp_path / "out").exists()


def test_a_prepared_folder_has_no_ceiling(tmp_path: Path) -> None:
    raw = str(write_tree(tmp_path / "raw"))
    options = PrepareOptions("folder", tmp_path / "data", raw, labeled="4", validation="2")
    prepare(options, lambda note: None)
    given: dict[str, Any] = {"recipe": "custom", "overrides": [f"data.path={tmp_path / 'data'}"]}
    plan = plan_ablation(AblationOptions(**given))
    assert [row.name for row in plan.rows] == [name for name in ROWS if name != "fully_supervised"]
    assert plan.notes[0].startswith("row fully_supervised is left out: ")
    assert "names fully_supervised, but" in message_of(rows=["fully_supervised"], **given)
    own = plan_ablation(AblationOptions(rows=["supervised", "s4mim"], **given))
    assert (own.notes, own.relative_to) == ([], "supervised")
    given["overrides"].append("model.backbone_config={model_type: resnet}")
    scratch = plan_ablation(AblationOptions(rows=["supervised", "s4mim"], **given))
    assert [note.startswith("the backbone starts from random weights") for note in scratch.notes] == [True]


def test_settings_are_what_the_runs_of_a_row_share() -> None:
    plan = plan_ablation(AblationOptions(rows=["supervised", "fully_supervised", "base"], seeds=[0, 1]))
    hashes = {cell.row.name: settings_hash(cell.config) for cell in plan.cells}
    assert all(settings_hash(cell.config) == hashes[cell.row.name] for cell in plan.cells)
    assert hashes["supervised"] == hashes["fully_supervised"] != hashes["base"]
    # What changes no computation does not count.
    free = AblationOptions(rows=["base"], recipe="demo", overrides=["log.interval=7", "panels.count=0"])
    assert settings_hash(plan_ablation(free).cells[0].config) == hashes["base"]
    other = AblationOptions(rows=["base"], overrides=["optim.max_steps=7"])
    assert settings_hash(plan_ablation(other).cells[0].config) != hashes["base"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [0, -1]}, "--seeds names -1"),
        ({"seeds": [0, 0]}, "--seeds names 0 twice"),
        ({"seeds": []}, "names no seed"),
        ({"jobs": 0}, "--jobs is 0"),
        ({"recipe": "camvit"}, "did you mean 'camvid'"),
        ({"recipe": "camvid"}, "there is no data: give raw images with --source DIR"),
        ({"rows": ["s4min"]}, "did you mean 's4mim'"),
        ({"rows": ["s4mim"], "relative_to": "base"}, "--relative-to is 'base' (rows of this ablation: s4mim)"),
        ({"overrides": ["optim.max_steps=0"]}, "optim.max_steps is 0"),
        ({"overrides": ["optim.maxsteps=9"]}, "did you mean 'optim.max_steps'"),
        ({"overrides": ["fast"]}, "override 'fast' is not of the form"),
        ({"overrides": ["method.threshold=2"]}, "method.threshold is 2"),
        ({"rows": ["base"], "overrides": ["method.masking.ratio=0.5"]}, "a key of method s4mim"),
        ({"labeled": ["1/8"]}, "--labeled 1/8 needs --source"),
        ({"kind": "camvid"}, "--kind is for raw images"),
        ({"validation": "0.2"}, "--validation is for raw images"),
        ({"source": Path("raw"), "overrides": ["data.path=x"]}, "both --source and data.path"),
        ({"source": Path("raw"), "kind": "camvit"}, "did you mean 'camvid'"),
        ({"source": Path("nowhere")}, "the folder nowhere is missing"),
        ({"overrides": ["data.path=nowhere"]}, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str) -> None:
    assert message in message_of(**options)
