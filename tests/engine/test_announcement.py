"""What a run says on standard error before it starts: its size, and warnings of what is known to go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from s4mim_hf.data.config import UnlabeledConfig
from s4mim_hf.data.prepared import load_prepared
from s4mim_hf.data.streaming import ShardPool
from s4mim_hf.engine.announcement import announce
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.methods import Task, build_method

Announcement = Callable[..., str]


@pytest.fixture
def said(
    prepared: Path,
    tiny_config: Callable[..., RunConfig],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Announcement:
    """Return a function that announces the tiny run with these overrides: the text, without its line breaks."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    task = Task(
        num_labels=7,
        ignore_index=255,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.2, 0.2, 0.2),
        feature_stride=4,
        feature_channels=(8, 8),
    )

    def say(*overrides: str, batch_size: int = 2, pool: ShardPool | None = None) -> str:
        config = tiny_config(*overrides)
        announce(config, load_prepared(prepared), pool, build_method(config.method, task), batch_size)
        captured = capsys.readouterr()
        assert captured.out == ""
        return " ".join(captured.err.replace("│", " ").split())

    return say


def test_the_data_s_size_and_the_learning_rate_that_follows_from_the_batch(said: Announcement) -> None:
    text = said()
    assert "4 labelled, 4 unlabelled, 2 validation" in text
    assert "effective batch size: 2 labelled images a step; learning rate 0.001" in text
    scaled = said("optim.reference_batch_size=8", batch_size=16)
    assert "16 labelled images a step; learning rate 0.002 (0.001 at the reference batch size 8)" in scaled


def test_a_streamed_pool_and_workers_that_share_its_shards(said: Announcement) -> None:
    pool = ShardPool(shards=(), settings=UnlabeledConfig(streaming=True), counts={})
    streamed = "unlabelled images streamed from 0 shards"
    fitting = said("data.num_workers=4", pool=pool)
    assert streamed in fitting
    assert "does not divide" not in fitting
    sharing = said("data.num_workers=6", pool=pool)
    assert (
        "data.num_workers is 6 and does not divide data.unlabeled.lanes, 8, so that each shard is read by 3" in sharing
    )


def test_random_weights_are_not_overlooked(said: Announcement) -> None:
    assert "The backbone starts from RANDOM weights" in said()
    pretrained = ["model.backbone=some/backbone", "model.backbone_config=null"]
    assert "RANDOM" not in said(*pretrained)
    frozen = "method.normalization.statistics=frozen_backbone"
    assert "starts from random weights and has none; use per_view" in said(frozen)
    assert "use per_view" not in said(frozen, *pretrained)


def test_the_launcher_s_precision_is_not_silently_ignored(said: Announcement, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mixed precision" not in said()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    text = said()
    assert "asks for mixed precision bf16, which a run does not read; it trains with mixed_precision=no" in text
    assert "mixed precision" not in said("mixed_precision=bf16")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert "mixed precision" not in said("mixed_precision=bf16")


def test_the_launcher_s_accumulation_is_not_silently_ignored(
    said: Announcement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    assert "accumulation" not in said("optim.gradient_accumulation_steps=2")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    text = said()
    assert "asks for gradient accumulation steps 4, which a run does not read; it trains with" in text
    assert "optim.gradient_accumulation_steps=1: set optim.gradient_accumulation_steps=4" in text
    assert "accumulation" not in said("optim.gradient_accumulation_steps=4")


def test_what_a_method_warns_of_is_said(said: Announcement) -> None:
    alone = ["method.reconstruction.weight=0", "model.mim_projection_channels=16"]
    assert "warning: model.mim_projection_channels is set while only the aggregation term" in said(*alone)
    assert "mim_projection_channels" not in said("model.mim_projection_channels=16")
