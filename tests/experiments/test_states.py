"""What is finished stays, what has a checkpoint goes on, and nothing else is ever deleted or overwritten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_trees import write_tree
from written_runs import finish, planned

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
from s4mim_hf.engine.config_loading import save_run_config
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.plan import AblationOptions, plan_ablation
from s4mim_hf.experiments.states import begins_at, check_cells, clear, state_of, step_of


def one_cell(output: Path, *overrides: str) -> Cell:
    return plan_ablation(AblationOptions(rows=["base"], seeds=[0], output=output, overrides=overrides)).cells[0]


def checkpoint(cell: Cell, step: int) -> None:
    folder = cell.folder / "checkpoints" / f"step_{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"step": step, "split_hash": cell.split_hash}))
    save_run_config(cell.config, cell.config_file)


def test_states(tmp_path: Path) -> None:
    cells = planned(tmp_path, "base", seeds=(0, 1, 2, 3, 4)).cells
    assert state_of(cells[0]) == "new"
    finish(cells[1], 0.4)
    assert state_of(cells[1]) == "finished"
    checkpoint(cells[2], 300)
    assert state_of(cells[2]) == "interrupted"
    assert [begins_at(cell) for cell in cells[:3]] == [0, 600, 300]
    cells[3].folder.mkdir()
    (cells[3].folder / "metrics.jsonl").write_text("")
    assert state_of(cells[3]) == "new"
    # All steps are done, but the results were never written.
    checkpoint(cells[4], 600)
    assert (state_of(cells[4]), begins_at(cells[4])) == ("interrupted", 600)


def test_a_run_of_another_configuration_is_refused(tmp_path: Path) -> None:
    cell = one_cell(tmp_path)
    finish(cell, 0.4)
    check_cells([cell])
    check_cells([one_cell(tmp_path, "log.interval=50", "panels.count=0")])
    with pytest.raises(InputError) as caught:
        check_cells([one_cell(tmp_path, "optim.max_steps=700", "method.threshold=0.5")])
    message = str(caught.value)
    assert "method.threshold: 0.8 -> 0.5; optim.max_steps: 600 -> 700" in message
    assert "name another --output" in message


def test_a_run_of_older_code_that_lacks_a_setting_is_another_one(tmp_path: Path) -> None:
    cell = one_cell(tmp_path)
    finish(cell, 0.4)
    text = cell.config_file.read_text()
    cell.config_file.write_text(text.replace("  strong_views: 1\n", ""))
    assert cell.config_file.read_text() != text
    with pytest.raises(InputError, match=r"method\.strong_views: \(not set\) -> 1"):
        check_cells([cell])
    # What computes nothing may be younger than the run.
    cell.config_file.write_text(text.replace("  interval: 10\n", ""))
    assert cell.config_file.read_text() != text
    check_cells([cell])


def test_data_is_known_by_its_split_hash_wherever_it_lies(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=8)
    options = AblationOptions(rows=["base"], seeds=[0, 1], source=source, labeled=["2"], output=tmp_path / "out")
    cells = plan_ablation(options).cells
    finish(cells[0], 0.4)
    checkpoint(cells[1], 300)
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = plan_ablation(replace(options, output=tmp_path / "moved")).cells
    assert moved[0].config.data.path != cells[0].config.data.path
    check_cells(moved)
    assert [state_of(cell) for cell in moved] == ["finished", "interrupted"]
    write_tree(tmp_path / "raw", masked=9)
    for cell in plan_ablation(replace(options, output=tmp_path / "moved")).cells:
        with pytest.raises(InputError, match=rf"seed_{cell.seed} holds a run on another split \(hash .* than .* has"):
            check_cells([cell])


def test_a_checkpoint_of_another_configuration_is_refused_but_not_a_start_without_one(tmp_path: Path) -> None:
    cell, other = one_cell(tmp_path), one_cell(tmp_path, "optim.learning_rate=0.5")
    cell.folder.mkdir(parents=True)
    (cell.folder / "run_config.yaml").write_text("")
    save_run_config(cell.config, cell.config_file)
    check_cells([other])
    checkpoint(cell, 300)
    with pytest.raises(InputError, match=r"optim\.learning_rate: 0\.001 -> 0\.5"):
        check_cells([other])


def test_only_what_an_ablation_made_is_cleared(tmp_path: Path) -> None:
    cell = one_cell(tmp_path)
    cell.folder.mkdir(parents=True)
    check_cells([cell])  # an empty folder is nobody's
    (cell.folder / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"did not make \(there is no seed_0\.yaml beside it\)"):
        check_cells([cell])
    with pytest.raises(AssertionError):
        clear(cell)
    assert (cell.folder / "thesis.txt").is_file()
    save_run_config(cell.config, cell.config_file)
    clear(cell)
    assert not cell.folder.exists()


def test_damaged_results_are_a_sentence(tmp_path: Path) -> None:
    cell = one_cell(tmp_path)
    finish(cell, 0.4)
    (cell.folder / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json is damaged .* the run is repeated"):
        state_of(cell)


def test_the_step_is_read_from_the_end_of_the_metrics(tmp_path: Path) -> None:
    cell = one_cell(tmp_path)
    assert step_of(cell) == 0
    cell.folder.mkdir(parents=True)
    lines = [json.dumps({"step": step, "kind": "train", "loss": 1.0 / step}) for step in range(1, 500)]
    (cell.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert step_of(cell) == 499
    (cell.folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 50')
    assert step_of(cell) == 499
    (cell.folder / "metrics.jsonl").write_text('{"ste')
    assert step_of(cell) == 0


def test_prepared_data_with_other_masks_is_other_data(tmp_path: Path) -> None:
    raw = write_tree(tmp_path / "raw", masked=8)

    def cell_on(name: str) -> Cell:
        options = PrepareOptions("folder", tmp_path / name, str(raw), labeled="3", validation="3")
        prepare(options, say=lambda note: None)
        given = [f"data.path={tmp_path / name}"]
        return plan_ablation(
            AblationOptions(recipe="custom", rows=["base"], seeds=[0], output=tmp_path / "out", overrides=given)
        ).cells[0]

    cell = cell_on("data")
    finish(cell, 0.4, content_hash=cell.content_hash)
    check_cells([cell_on("moved")])
    for mask in (raw / "masks").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    corrected = cell_on("corrected")
    assert corrected.split_hash == cell.split_hash
    with pytest.raises(InputError, match=r"holds a run on other masks, classes or picture sizes than .*corrected has"):
        check_cells([corrected])
    finish(replace(cell, config=replace(cell.config, output_dir=str(tmp_path / "older" / "run"))), 0.4)
    check_cells([replace(corrected, config=replace(corrected.config, output_dir=str(tmp_path / "older" / "run")))])
