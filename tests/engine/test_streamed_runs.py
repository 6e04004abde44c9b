"""Whole runs whose unlabelled images are streamed: killed and resumed, moved, refused, and told of."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pools import tar_of, write_parquet
from tiny_runs import prepare, write_raw

from s4mim_hf.data.synthetic import render_scene
from s4mim_hf.engine.build import build_accelerator, build_run
from s4mim_hf.engine.config_loading import save_run_config
from s4mim_hf.engine.finished_run import load_finished_run
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.one_run import circumstances
from s4mim_hf.experiments.plan import settings_hash

ConfigMaker = Callable[..., RunConfig]

# What a machine that loses its power does to a run after its step 5; the checkpoint before is that of step 4.
KILLED = """
import os, signal, sys
from s4mim_hf.engine import run
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.hooks import Hook

class Kill(Hook):
    def after_step(self, trainer):
        if trainer.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

build = run.build_run
def build_and_kill(*arguments):
    made = build(*arguments)
    made.trainer.hooks.append(Kill())
    return made
run.build_run = build_and_kill
run.train(load_run_config(sys.argv[1]))
"""


def losses_of(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run without their times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def picture(number: int) -> bytes:
    image, _ = render_scene(np.random.default_rng(100 + number))
    buffer = io.BytesIO()
    Image.fromarray(image[:64, :64]).save(buffer, format="JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of one tar and two parquet shards, 14 pictures in all."""
    folder = tmp_path_factory.mktemp("pool")
    tar_of(folder / "a.tar", [picture(number) for number in range(5)])
    for shard, numbers in {"b": range(5, 9), "c": range(9, 14)}.items():
        write_parquet(folder / f"{shard}.parquet", [picture(number) for number in numbers], row_group=2)
    return folder


@pytest.fixture
def streamed(tiny_config: ConfigMaker, pool: Path) -> ConfigMaker:
    """Return a maker of configs of short runs that stream the pool."""

    def make(*overrides: str, shards: str | None = None, **options: Any) -> RunConfig:
        settings = ["streaming=true", f"shards={shards or f'{pool}/*'}", "lanes=2", "shuffle_buffer=4"]
        few = ["optim.max_steps=8", "evaluation.interval=8", "evaluation.evaluate_student=false", "log.tracker=none"]
        return tiny_config(*few, *(f"data.unlabeled.{setting}" for setting in settings), *overrides, **options)

    return make


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    streamed: ConfigMaker, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Every pixel is sure enough, so that every picture counts.
    sure = ("method.threshold=0", "method.class_map_threshold=0")
    unbroken = train(streamed(*sure, output="unbroken"))
    assert "unlabelled images streamed from 3 shards (" in capsys.readouterr().err
    assert len({record["loss_consistency"] for record in losses_of(tmp_path / "unbroken")[:-1]}) > 1
    config = streamed(*sure, "data.num_workers=1", output="broken")
    save_run_config(config, tmp_path / "config.yaml")
    # Sums of another number of threads are others in their last bits.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert [record["step"] for record in losses_of(tmp_path / "broken")] == [1, 2, 3, 4, 5]
    # Where the pool has moved to meanwhile, and with other workers.
    moved = shutil.copytree(pool, tmp_path / "moved")
    resumed = train(streamed(*sure, "data.num_workers=0", shards=f"{moved}/?.*", output="broken"), resume=True)
    assert losses_of(tmp_path / "unbroken") == losses_of(tmp_path / "broken")
    counts = [json.loads(line) for line in (tmp_path / "broken" / "shard_counts.0.jsonl").read_text().splitlines()]
    assert {(entry["shard"], entry["images"]) for entry in counts} == {("a.tar", 5)}
    results = json.loads((tmp_path / "broken" / "results.json").read_text())
    assert resumed.pool is not None
    assert unbroken.pool is not None
    assert results["pool_hash"] == resumed.pool.fingerprint == unbroken.pool.fingerprint
    assert results["pool"] == str(resumed.pool)
    card = (tmp_path / "broken" / "model" / "README.md").read_text()
    assert f"unlabelled ones streamed from {resumed.pool}" in card
    assert circumstances(resumed, 1)["unlabeled"] is None
    # A run's networks are read back without its pool.
    shutil.rmtree(moved)
    assert load_finished_run(tmp_path / "broken").step == 8


def test_a_run_goes_on_with_its_own_shards_only(streamed: ConfigMaker, pool: Path, tmp_path: Path) -> None:
    short = ("optim.max_steps=2", "evaluation.interval=2")
    config = streamed(*short)
    train(config)
    folder = Path(str(config.output_dir))
    (folder / "results.json").unlink()
    for shards in (f"{pool}/*.parquet", f"[{pool}/b.parquet, {pool}/c.parquet, {pool}/a.tar]"):
        with pytest.raises(InputError, match=r"data.unlabeled.shards now means other shards \(. shards .* start anew"):
            train(streamed(*short, shards=shards), resume=True)
    for setting in ("lanes=1", "shuffle_buffer=6", "image_column=image"):
        with pytest.raises(InputError, match=f"another configuration.*data.unlabeled.{setting.partition('=')[0]}: "):
            train(streamed(*short, f"data.unlabeled.{setting}"), resume=True)
    with pytest.raises(InputError, match=r"another configuration.*data.unlabeled.streaming: True -> False"):
        train(streamed(*short, "data.unlabeled.streaming=false", "data.unlabeled.shards=[]",
                       "data.unlabeled.lanes=8", "data.unlabeled.shuffle_buffer=1024"), resume=True)  # fmt: skip


def test_the_ablation_tells_pools_apart(streamed: ConfigMaker, pool: Path) -> None:
    assert settings_hash(streamed()) == settings_hash(streamed("seed=3"))
    assert settings_hash(streamed()) != settings_hash(streamed(shards=f"{pool}/*.parquet"))


def test_the_unlabelled_shards_of_prepared_data_are_streamed(
    streamed: ConfigMaker, prepared: Path, tmp_path: Path
) -> None:
    # Two of its four images to each lane.
    config = streamed("data.unlabeled.shards=[]", "optim.max_steps=4", "evaluation.interval=4")
    run = build_run(config, build_accelerator(config, tmp_path), tmp_path)
    assert run.pool is not None
    assert [shard.url for shard in run.pool.shards] == [str(path) for path in prepared.glob("data/unlabeled-*")]
    assert run.data.unlabeled is None
    assert len(list(run.batches())) == 4


def test_data_without_unlabelled_images_takes_a_pool(streamed: ConfigMaker, tmp_path: Path) -> None:
    names = [f"scene{number:02d}" for number in range(4)]
    data = prepare(write_raw(tmp_path / "raw", ids=4), tmp_path / "data", names)
    for place in (str(data), "synthetic"):
        config = streamed(f"data.path={place}", "optim.max_steps=2")
        run = build_run(config, build_accelerator(config, tmp_path), tmp_path)
        assert len(list(run.batches())) == 2
    config = streamed("data.unlabeled.shards=[]", data=data)
    with pytest.raises(InputError, match=r"has no unlabelled images to stream; name shards"):
        build_run(config, build_accelerator(config, tmp_path), tmp_path)


def test_a_method_without_unlabelled_images_opens_no_pool(streamed: ConfigMaker, tmp_path: Path) -> None:
    config = streamed("method.name=supervised", "optim.max_steps=2", shards=f"{tmp_path}/nowhere/*.tar")
    run = build_run(config, build_accelerator(config, tmp_path), tmp_path)
    assert run.pool is None
    assert all(batch.unlabeled_images is None for batch in run.batches())


def test_workers_that_share_lanes_are_warned_of(
    streamed: ConfigMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    for workers in (0, 1, 2, 4, 3):
        config = streamed(f"data.num_workers={workers}")
        build_run(config, build_accelerator(config, tmp_path), tmp_path)
        told[workers] = "does not divide data.unlabeled.lanes" in capsys.readouterr().err
    assert told == {0: False, 1: False, 2: False, 4: True, 3: True}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.unlabeled.shards=nowhere/*.tar"], r"nowhere/\*.tar', which no file matches"),
        (["data.unlabeled.image_column=photo"], r"b.parquet has no column 'photo'"),
        (["data.unlabeled.streaming=false"], r"data.unlabeled.(shards|lanes|shuffle_buffer) is set"),
    ],
)
def test_a_pool_that_cannot_be_used_leaves_nothing(
    streamed: ConfigMaker, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(streamed(*overrides))
    assert not (tmp_path / "run").exists()
