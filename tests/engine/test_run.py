"""Whole runs, each of seconds: what they leave behind, that they repeat, resume, and never read hidden masks."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from publishable_runs import check_what_can_be_published
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import prepare, write_raw
from transformers import AutoImageProcessor

from s4mim_hf import S4MIMForSemanticSegmentation
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare as prepare_source
from s4mim_hf.data.prepared import decode_image, decode_label, load_prepared
from s4mim_hf.engine import run as run_module
from s4mim_hf.engine.build import Run, build_accelerator, build_run, check_batch_sizes
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.hooks import Hook
from s4mim_hf.engine.optim import PolynomialSchedule
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.engine.trainer import Trainer
from s4mim_hf.errors import InputError
from s4mim_hf.methods import Task, build_method

ConfigMaker = Callable[..., RunConfig]


def losses_of(folder: Path) -> list[dict[str, Any]]:
    """Return the training records of a run without their times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_a_run_leaves_what_it_promises(tiny_config: ConfigMaker) -> None:
    config = tiny_config("panels.count=2", "checkpoint.interval=2")
    run = train(config)
    folder = Path(str(config.output_dir))
    for name in ("run_config.yaml", "metrics.jsonl", "results.json", "curves.png", "model/config.json", "tensorboard"):
        assert (folder / name).exists(), name
    assert sorted(path.name for path in (folder / "panels").iterdir()) == ["step_2.png", "step_4.png"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_4"]
    records = losses_of(folder)
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2, 3, 4]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert [record["step"] for record in evaluations] == [2, 4]
    results = json.loads((folder / "results.json").read_text())
    assert results["last_teacher"]["mean_iou"] == evaluations[-1]["teacher_mean_iou"]
    assert results["best_teacher"]["mean_iou"] == max(record["teacher_mean_iou"] for record in evaluations)
    assert "whole image" in results["protocol"]
    assert run.trainer.step == 4
    check_what_can_be_published(folder, results)


def test_the_shipped_model_has_no_training_heads_and_the_training_model_s_logits(tiny_config: ConfigMaker) -> None:
    config = tiny_config("evaluation.interval=4", "teacher.decay=0")
    run = train(config)
    folder = Path(str(config.output_dir)) / "model"
    stored = load_file(folder / "model.safetensors")
    assert not [key for key in stored if key.startswith(("pixel_token", "mim_decoder", "projection", "segmenter"))]
    shipped = S4MIMForSemanticSegmentation.from_pretrained(folder).eval()
    training_model = run.trainer.unwrapped_student.eval()
    pixel_values = torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    # With decay 0 the teacher is the student: the same weights to the bit, and the same logits up to the order in which
    # a convolution adds, which may depend on where weights lie in memory.
    for key, value in shipped.state_dict().items():
        assert torch.equal(value, training_model.segmenter.state_dict()[key]), key
    with torch.no_grad():
        torch.testing.assert_close(shipped(pixel_values).logits, training_model(pixel_values).logits, rtol=0, atol=1e-6)


def test_the_shipped_processor_remembers_what_pictures_were_shrunk_to(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", ids=6)
    options = PrepareOptions("folder", tmp_path / "data", str(raw), labeled="2", validation="2", max_side=40)
    prepare_source(options, say=lambda note: None)
    data = load_prepared(tmp_path / "data")
    assert data.max_side == 40
    assert decode_image(data.labeled[0]["image"]["bytes"]).shape == (40, 40, 3)
    assert decode_label(data.labeled[0]["label"]["bytes"]).shape == (40, 40)
    config = tiny_config("optim.max_steps=2", data=tmp_path / "data")
    train(config)
    folder = Path(str(config.output_dir))
    processor = AutoImageProcessor.from_pretrained(folder / "model")
    assert processor.max_side == 40
    assert processor(np.zeros((30, 90, 3), np.uint8), return_tensors="pt").pixel_values.shape == (1, 3, 13, 40)
    assert "above 40 pixels a side shrunk" in json.loads((folder / "results.json").read_text())["protocol"]


def test_the_same_seed_repeats_a_run_and_its_config_file_reruns_it(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_config(output="first")
    train(first)
    monkeypatch.chdir(tmp_path)
    again = train(load_run_config(tmp_path / "first" / "run_config.yaml", []))
    assert again.output_dir == Path("runs/demo")
    assert losses_of(tmp_path / "first") == losses_of(again.output_dir)
    other = tiny_config("seed=1", output="other")
    train(other)
    assert losses_of(tmp_path / "first")[0] != losses_of(tmp_path / "other")[0]


def test_the_launcher_does_not_change_how_many_batches_are_accumulated(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_config(output="plain"))
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    run = train(tiny_config(output="launched"))
    assert run.trainer.step == 4
    assert losses_of(tmp_path / "launched") == losses_of(tmp_path / "plain")


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launch_that_cuts_the_model_into_pieces_is_refused(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(InputError, match=f"(?i)asks for {name}, which does not fit"):
        train(tiny_config())
    assert not (tmp_path / "run").exists()


class StopAt(Hook):
    """Interrupts a run right after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise KeyboardInterrupt


def change_builds(change: Callable[[Run], None], patched: pytest.MonkeyPatch) -> None:
    """Let `train` change each run that it has built."""
    build = run_module.build_run

    def build_and_change(*arguments: Any) -> Run:
        made = build(*arguments)
        change(made)
        return made

    patched.setattr(run_module, "build_run", build_and_change)


def interrupt(config: RunConfig, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until `step`, whose checkpoint (interval 2) may be older."""
    with monkeypatch.context() as patched:
        change_builds(lambda run: run.trainer.hooks.append(StopAt(step)), patched)
        with pytest.raises(KeyboardInterrupt):
            train(config)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_equals_an_unbroken_one(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    accumulate = f"optim.gradient_accumulation_steps={accumulation}"
    unbroken = train(tiny_config(accumulate, output="unbroken"))
    broken = tiny_config(accumulate, output="broken")
    interrupt(broken, 3, monkeypatch)
    resumed = train(broken, resume=True)
    assert losses_of(tmp_path / "unbroken") == losses_of(tmp_path / "broken")
    for ours, theirs in (
        (resumed.trainer.teacher.model, unbroken.trainer.teacher.model),
        (resumed.trainer.unwrapped_student, unbroken.trainer.unwrapped_student),
    ):
        for key, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key]), key


def test_a_run_killed_after_its_last_checkpoint_is_finished(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = train(tiny_config("panels.count=1", output="unbroken"))
    broken = tiny_config("panels.count=1", output="broken")
    interrupt(broken, 4, monkeypatch)
    (tmp_path / "broken" / "panels" / "step_4.png").unlink()
    assert not (tmp_path / "broken" / "results.json").exists()
    train(broken, resume=True)
    assert losses_of(tmp_path / "unbroken") == losses_of(tmp_path / "broken")
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("unbroken", "broken")]
    for key in ("step", "last_teacher", "best_teacher", "last_student", "evaluation"):
        assert results[0][key] == results[1][key], key
    for name in ("curves.png", "panels/step_4.png"):
        assert (tmp_path / "broken" / name).is_file()
    assert unbroken.trainer.step == results[1]["step"]


def test_resuming_refuses_another_configuration_a_finished_run_and_no_run(
    tiny_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    with pytest.raises(InputError, match="holds no run"):
        train(config, resume=True)
    interrupt(config, 3, monkeypatch)
    with pytest.raises(InputError, match=r"another configuration.*method\.threshold: 0\.8 -> 0\.5"):
        train(tiny_config("method.threshold=0.5"), resume=True)
    with pytest.raises(InputError, match="not empty"):
        train(config)
    train(config, resume=True)
    with pytest.raises(InputError, match="complete"):
        train(config, resume=True)


def test_resuming_refuses_a_run_of_older_code_that_lacks_a_setting(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(tiny_config(), 3, monkeypatch)
    path = tmp_path / "run" / "run_config.yaml"
    text = path.read_text()
    path.write_text(text.replace("    labels_from: consistency\n", ""))
    assert path.read_text() != text
    with pytest.raises(
        InputError,
        match=r"of another configuration.*semantic\.labels_from: \(not set\) -> 'consistency'.*newer than the run",
    ):
        train(tiny_config(), resume=True)


def test_a_model_later_than_the_checkpoint_is_replaced_by_the_next_evaluation_s(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU, where the steps behind a checkpoint do not repeat to the last bit.
    config = tiny_config()
    interrupt(config, 3, monkeypatch)
    set_best(tmp_path / "run" / "checkpoints" / "step_2", {"step": 2, "mean_iou": 2.0})
    card = tmp_path / "run" / "model" / "card.json"
    facts = json.loads(card.read_text())
    card.write_text(json.dumps({**facts, "results": {**facts["results"], "step": 3}}))
    train(config, resume=True)
    assert json.loads(card.read_text())["results"]["step"] == 4
    assert json.loads((tmp_path / "run" / "results.json").read_text())["best_teacher"]["step"] == 4


@pytest.mark.parametrize("stopped", [3, 4], ids=["evaluated again", "at its last step"])
def test_a_model_that_is_gone_is_written_again(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    config = tiny_config()
    interrupt(config, stopped, monkeypatch)
    set_best(tmp_path / "run" / "checkpoints" / f"step_{stopped // 2 * 2}", {"step": 2, "mean_iou": 2.0})
    shutil.rmtree(tmp_path / "run" / "model")
    train(config, resume=True)
    facts = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert facts["results"]["step"] == 4
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["best_teacher"]["step"] == 4
    assert results["best_teacher"]["mean_iou"] == facts["results"]["scores"]["mean_iou"]


def test_a_model_that_was_moved_away_when_the_run_was_killed_is_put_back(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = tiny_config(), tmp_path / "run"
    interrupt(config, 3, monkeypatch)
    set_best(folder / "checkpoints" / "step_2", {"step": 2, "mean_iou": 2.0})
    (folder / "model").rename(folder / ".model.replaced")
    train(config, resume=True)
    assert json.loads((folder / "model" / "card.json").read_text())["results"]["step"] == 2
    assert not (folder / ".model.replaced").exists()


def set_best(checkpoint: Path, best: dict[str, Any]) -> None:
    """Make a checkpoint say that this was the best evaluation so far."""
    state = checkpoint / "trainer_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "best": best}))


def test_the_curves_of_a_resumed_run_have_each_step_once(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("log.tracker=tensorboard")
    interrupt(config, 3, monkeypatch)
    train(config, resume=True)
    (folder,) = {path.parent for path in (tmp_path / "run").rglob("events.out*")}
    curves = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in curves.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in curves.Scalars("teacher_mean_iou")] == [2, 4]


class SpoilAt(Hook):
    """Spoils the teacher after a step, as an overflow of the optimizer's would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            next(trainer.teacher.model.parameters()).fill_(float("inf"))


def test_weights_that_are_not_finite_replace_no_checkpoint(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        change_builds(lambda run: run.trainer.hooks.insert(0, SpoilAt(4)), patched)
        with pytest.raises(InputError, match="weights are no longer finite at step 4: training has diverged"):
            train(tiny_config("checkpoint.keep=1"))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_2"]


@pytest.mark.parametrize(
    ("overrides", "processes", "refusal"),
    [
        (["data.labeled_batch_size=1"], 1, "use at least 2, or where"),
        (["data.labeled_batch_size=1"], 2, "use at least 2 a process, or model.sync_batch_norm=true"),
        (["data.labeled_batch_size=1", "model.sync_batch_norm=true"], 1, "data.labeled_batch_size is 1"),
        (["data.labeled_batch_size=1", "model.sync_batch_norm=true"], 2, None),
        (["data.unlabeled_batch_size=1", "model.sync_batch_norm=true"], 2, "CutMix takes boxes"),
        (
            ["data.unlabeled_batch_size=1", "model.sync_batch_norm=true", "method.strong.cutmix_probability=0"],
            2,
            None,
        ),
    ],
)
def test_statistics_need_two_images_in_all_processes_that_share_them(
    tiny_config: ConfigMaker, overrides: list[str], processes: int, refusal: str | None
) -> None:
    config = tiny_config(*overrides)
    task = Task(7, 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), feature_stride=4, feature_channels=(8, 8))
    method = build_method(config.method, task)
    with nullcontext() if refusal is None else pytest.raises(InputError, match=refusal):
        check_batch_sizes(config, method, processes)


def test_masks_of_unlabelled_images_change_no_loss_by_a_bit(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    labeled = ["scene00", "scene01", "scene02"]
    hidden = tuple(f"scene{number:02d}" for number in range(3, 10))
    variants = {"as_they_are": {}, "scrambled": {"scramble": hidden}, "deleted": {"delete": hidden}}
    losses = {}
    for name, change in variants.items():
        data = prepare(write_raw(tmp_path / f"raw_{name}", **change), tmp_path / f"data_{name}", labeled)
        # The labelled images have known classes from the first step on, so that every term counts.
        config = tiny_config("method.masking.images=labeled_and_unlabeled", output=f"run_{name}", data=data)
        train(config)
        losses[name] = losses_of(Path(str(config.output_dir)))
        # Without a validation split the last teacher is the model.
        assert (Path(str(config.output_dir)) / "model" / "model.safetensors").is_file()
    assert losses["as_they_are"] == losses["scrambled"] == losses["deleted"]
    assert losses["as_they_are"][0]["loss_reconstruction"] > 0


def test_zero_weights_reduce_whole_runs_to_the_peers(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    zero = [f"method.{term}.weight=0" for term in ("reconstruction", "aggregation", "semantic")]
    train(tiny_config(*zero, output="s4mim"))
    base = ["method.strong_views=2", "method.consistency_weight=2", "method.pseudo_labels_from=student"]
    train(tiny_config("method.name=fixmatch", *base, output="fixmatch"))
    assert losses_of(tmp_path / "s4mim") == losses_of(tmp_path / "fixmatch")
    train(tiny_config("method.name=fixmatch", "method.consistency_weight=0", output="off"))
    train(tiny_config("method.name=supervised", output="supervised"))
    assert losses_of(tmp_path / "off") == losses_of(tmp_path / "supervised")


def test_bf16_sgd_clipping_and_frozen_statistics_train(tiny_config: ConfigMaker) -> None:
    config = tiny_config(
        "mixed_precision=bf16",
        "optim.name=sgd",
        "optim.max_grad_norm=1",
        "optim.reference_batch_size=4",
        "method.normalization.statistics=frozen_backbone",
        "evaluation.interval=4",
    )
    run = train(config)
    record = losses_of(Path(str(config.output_dir)))[0]
    assert record["gradient_norm"] > 0
    # Two labelled images a step and a rate meant for four: half of it, times the first step's warm-up factor.
    expected = config.optim.learning_rate / 2 * PolynomialSchedule(config.optim).factor(0)
    assert record["learning_rate"] == pytest.approx(expected)
    fresh = [buffer for name, buffer in run.trainer.teacher.model.backbone.named_buffers() if "running_mean" in name]
    assert all(bool((buffer == 0).all()) for buffer in fresh)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.path=nowhere"], "nowhere"),
        (["model.backbone=/nowhere/model", "model.backbone_config=null"], "model.backbone=/nowhere/model"),
        (["model.backbone_config={model_type: resnext}"], "resnext"),
        (["model.backbone_config={model_type: resnet, depths: hello}"], "depths"),
        (["model.backbone_config={model_type: resnet, embedding_size: -4}"], "model.backbone_config: "),
        (["model.backbone_config.nonsense=4"], "unknown key 'model.backbone_config.nonsense'"),
        (["model.backbone_config.embeding_size=4"], "did you mean 'embedding_size'"),
        (["model.backbone_config.num_channels=4"], "4 channels"),
        (["output_dir=/dev/null/run"], "/dev/null/run"),
        (["data.labeled_batch_size=1"], "data.labeled_batch_size is 1"),
        (
            ["method.normalization.statistics=together", "data.unlabeled_batch_size=1"],
            "data.unlabeled_batch_size is 1, but CutMix",
        ),
        (
            ["method.consistency_weight=0", "method.normalization.statistics=together", "data.unlabeled_batch_size=1"],
            "data.unlabeled_batch_size is 1, but CutMix",
        ),
        (["method.masking.patch_size=40"], "reach"),
        (["mixed_precision=fp16"], "needs a GPU"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tiny_config: ConfigMaker, tmp_path: Path, overrides: list[str], message: str
) -> None:
    if message == "needs a GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=message):
        train(tiny_config(*overrides))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_decoded_is_named(tiny_config: ConfigMaker, prepared: Path, workers: int) -> None:
    config = tiny_config(f"data.num_workers={workers}", output=f"run{workers}")
    accelerator = build_accelerator(config, prepared)
    run = build_run(config, accelerator, prepared)
    spoiled = [{"image": {"bytes": b"no picture"}} for _ in range(4)]
    run.data = dataclasses.replace(run.data, unlabeled=spoiled)
    with pytest.raises(InputError, match=r"^unlabelled image number \d cannot be read: .* prepare the data again$"):
        next(run.batches())


def test_a_run_that_died_before_its_first_checkpoint_says_so(tiny_config: ConfigMaker) -> None:
    config = tiny_config()
    folder = Path(str(config.output_dir))
    folder.mkdir()
    (folder / "run_config.yaml").write_text("seed: 0\n")
    with pytest.raises(InputError, match="before its first checkpoint; delete it"):
        train(config)


def test_a_method_that_needs_unlabelled_images_says_so(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", ids=4)
    data = prepare(raw, tmp_path / "all_labeled", [f"scene{number:02d}" for number in range(4)])
    with pytest.raises(InputError, match="no unlabelled images"):
        train(tiny_config(data=data))
    train(tiny_config("method.name=supervised", data=data, output="supervised"))
    shutil.rmtree(tmp_path / "supervised")


def test_resuming_refuses_the_same_images_with_other_masks(
    tiny_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"scene{number:02d}" for number in range(4)]
    data = prepare(write_raw(tmp_path / "raw"), tmp_path / "data", ids)
    interrupt(tiny_config(data=data), 3, monkeypatch)
    again = prepare(write_raw(tmp_path / "raw2"), tmp_path / "again", ids)
    other = prepare(write_raw(tmp_path / "raw3", scramble=("scene01",)), tmp_path / "other", ids)
    with pytest.raises(InputError, match=r"other now holds other masks, classes or picture sizes than the checkpoint"):
        train(tiny_config(data=other), resume=True)
    assert train(tiny_config(data=again), resume=True).trainer.step == 4
