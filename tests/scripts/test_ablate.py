"""The command, end to end on tiny runs: one table, nothing run twice, one sentence for what fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from tiny_runs import TINY, write_raw

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
from s4mim_hf.engine.config_loading import save_run_config
from s4mim_hf.experiments.plan import AblationOptions, plan_ablation

CallScript = Callable[[str, list[str]], int]
ROWS = "supervised,fully_supervised,s4mim"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "80")


def files(output: Path) -> dict[str, int]:
    """Return when each file of finished runs was written."""
    return {str(path): path.stat().st_mtime_ns for path in (output / "runs").rglob("*") if path.is_file()}


def plant_a_damaged_run(output: Path, source: Path, overrides: list[str]) -> Path:
    """Leave what a run killed at its first checkpoint leaves, but without its weights."""
    options = AblationOptions(rows=["s4mim"], seeds=[1], labeled=["1/4"], source=source, output=output,
                              overrides=overrides)  # fmt: skip
    cell = plan_ablation(options).cells[0]
    save_run_config(cell.config, cell.config_file)
    save_run_config(cell.config, cell.folder / "run_config.yaml")
    checkpoint = cell.folder / "checkpoints" / "step_2"
    checkpoint.mkdir(parents=True)
    state = {"step": 2, "num_processes": 1, "split_hash": cell.split_hash}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return cell.folder


def test_three_rows_by_two_seeds(
    tmp_path: Path, call_script: CallScript, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_raw(tmp_path / "raw", ids=16), tmp_path / "out"
    overrides = [*TINY, "optim.max_steps=3", "evaluation.interval=3", "log.tracker=none"]
    arguments = ["--rows", ROWS, "--seeds", "0,1", "--source", str(source), "--labeled", "1/4", "--jobs", "2"]
    arguments += ["--output", str(output), *overrides]
    damaged = plant_a_damaged_run(output, source, overrides)

    # One run fails, the others go on.
    assert call_script("ablate", arguments) == 1
    shown = capsys.readouterr()
    assert "error: 1 of 6 runs failed: 1/4, s4mim, seed 1: " in shown.err
    assert "teacher.safetensors" in shown.err
    assert f"(log: {damaged}.log)" in shown.err
    assert "Unfinished: 5 of 6 runs are in these tables." in shown.out
    assert json.loads((output / "results.json").read_text())["failed"][0]["seed"] == 1
    assert not (output / "ablation.png").exists()

    # Called again, only what is missing is run.
    shutil.rmtree(damaged)
    before = files(output)
    assert call_script("ablate", arguments) == 0
    shown = capsys.readouterr()
    assert "6 runs in" in shown.out
    assert "5 finished, 0 to go on from a checkpoint, 1 to start; 2 at once" in shown.out
    assert "6 of 6 runs: 1/4, s4mim, seed 1: " in shown.out
    after = files(output)
    assert {path for path in before if before[path] != after[path]} <= {f"{damaged}.yaml", f"{damaged}.log"}

    # And then nothing.
    assert call_script("ablate", arguments) == 0
    assert files(output) == after
    lines = capsys.readouterr().out.replace(str(tmp_path), "").splitlines()
    assert max(len(line) for line in lines if not line.startswith("note: ")) <= 80

    results = json.loads((output / "results.json").read_text())
    assert results["complete"]
    assert [(line["row"], line["last"]["n"]) for line in results["tables"][0]["rows"]] == [
        ("supervised", 2),
        ("fully_supervised", 2),
        ("s4mim", 2),
    ]
    runs = {(run["row"], run["seed"]): run for run in results["runs"]}
    for (row, seed), run in runs.items():
        own = json.loads((output / run["folder"] / "results.json").read_text())
        assert run["last"] == own["last_teacher"]["mean_iou"]
        assert (own["step"], own["seed"]) == (3, seed)
        assert run["labeled"] == (13 if row == "fully_supervised" else 3)
        assert run["train_seconds"] > 0
    means = {line["row"]: line["last"]["mean"] for line in results["tables"][0]["rows"]}
    differences = [runs["s4mim", seed]["last"] - runs["supervised", seed]["last"] for seed in (0, 1)]
    s4mim = results["tables"][0]["rows"][2]
    assert s4mim["difference"]["mean"] == pytest.approx(sum(differences) / 2)
    way = means["fully_supervised"] - means["supervised"]
    if way > 0:
        assert s4mim["share_of_the_way"] == pytest.approx((means["s4mim"] - means["supervised"]) / way)
    assert (output / "ablation.png").stat().st_size > 10_000
    text = (output / "results.md").read_text()
    assert runs["s4mim", 0]["split_hash"][:12] in text
    assert f"--rows {ROWS} --seeds 0,1" in text

    # Other settings are not mixed with these runs.
    assert call_script("ablate", [*arguments, "optim.learning_rate=0.5"]) == 2
    assert "holds a run of another configuration (optim.learning_rate: 0.001 -> 0.5)" in capsys.readouterr().err
    assert files(output) == after

    # Moved, and named from elsewhere; rows that are not asked for are in the tables all the same.
    output.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    less = ["--rows", "s4mim", "--seeds", "1", "--source", "raw", "--labeled", "1/4", "--output", "moved", *overrides]
    assert call_script("ablate", less) == 0
    assert "1 finished, 0 to go on from a checkpoint, 0 to start" in capsys.readouterr().out
    again = json.loads((tmp_path / "moved" / "results.json").read_text())
    assert again["tables"] == results["tables"]
    assert sorted(run["folder"] for run in again["runs"]) == sorted(run["folder"] for run in results["runs"])


def test_rows_are_listed(call_script: CallScript, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_script("ablate", ["--list-rows"]) == 0
    shown = capsys.readouterr().out
    assert "class_wise_mim" in shown
    assert "the abstract's first claim" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "s4min"], "did you mean 's4mim'"),
        (["--rows", ","], "--rows ',' names nothing"),
        (["--seeds", "zero"], "--seeds names 'zero'"),
        (["method.name=fixmatch"], "every row has its method; choose rows with --rows"),
        (["optim.max_steps=0"], "optim.max_steps is 0"),
        (["data.path=nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_input_is_a_sentence_and_starts_nothing(
    arguments: list[str], message: str, call_script: CallScript, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_script("ablate", ["--seeds", "0", "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out" / "runs").exists()


def test_every_row_is_checked_against_the_data_before_the_first_one_starts(
    call_script: CallScript, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_raw(tmp_path / "raw", ids=8)
    for name, labeled in (("some", "2"), ("all", "all")):
        options = PrepareOptions("folder", tmp_path / name, str(source), labeled=labeled, validation="2")
        prepare(options, say=lambda note: None)
    arguments = ["--output", str(tmp_path / "out"), *TINY]
    # Row supervised alone could be run both times.
    rows = ["--rows", "supervised,s4mim"]
    assert call_script("ablate", [*rows, *arguments, f"data.path={tmp_path / 'all'}"]) == 2
    assert "all has no unlabelled images, which method 's4mim' needs" in capsys.readouterr().err
    too_large = "method.masking.patch_size=48"
    assert call_script("ablate", [*rows, *arguments, f"data.path={tmp_path / 'some'}", too_large]) == 2
    assert "method.masking.patch_size is 48, not smaller than the crop" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_it_is_not_launched_in_several_processes(
    call_script: CallScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert call_script("ablate", []) == 2
    error = "error: ablate.py starts its runs itself: call it with python, without a launcher\n"
    assert capsys.readouterr().err == error
