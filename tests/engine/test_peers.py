"""Whole runs of the peers, and of S4MIM on their bases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import prepare, write_raw

from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig

ConfigMaker = Callable[..., RunConfig]
SHORT = [
    "optim.max_steps=2",
    "method.consistency_warmup_steps=0",
    "evaluation.interval=2",
    "evaluation.evaluate_student=false",
    "log.tracker=none",
]
UNIMATCH_BASE = [
    "method.strong_views=2",
    "method.feature_weight=0.25",
    "method.supervised_weight=0.5",
    "method.consistency_weight=0.25",
]
# An untrained network's confidence is little above 1 / classes: each pseudo-label counts.
RUNS = {
    "mean_teacher": ["method.name=mean_teacher"],
    "unimatch": ["method.name=unimatch", "method.threshold=0.1"],
    "unimatch in bf16": ["method.name=unimatch", "method.threshold=0.1", "mixed_precision=bf16"],
    "s4mim on unimatch": [
        *UNIMATCH_BASE,
        "method.threshold=0.1",
        "method.class_map_threshold=0.1",
        "method.masking.view=strong",
        "method.masking.strategy=class_balanced",
        *(f"method.{term}.warmup_steps=0" for term in ("reconstruction", "aggregation", "semantic")),
    ],
}


def terms_of(config: RunConfig) -> list[dict[str, Any]]:
    """Train, and return the losses of each step."""
    train(config)
    lines = (Path(str(config.output_dir)) / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "train"]
    return [{key: value for key, value in record.items() if "loss" in key or "weighted" in key} for record in records]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the same data twice, the masks of its unlabelled images replaced by noise in one."""
    root = tmp_path_factory.mktemp("twins")
    hidden = tuple(f"scene{number:02d}" for number in range(3, 10))
    labeled = ["scene00", "scene01", "scene02"]
    plain = prepare(write_raw(root / "plain_raw"), root / "plain", labeled)
    return plain, prepare(write_raw(root / "noise_raw", scramble=hidden), root / "noise", labeled)


@pytest.mark.parametrize("name", RUNS)
def test_every_term_trains_and_masks_of_unlabelled_images_are_never_read(
    tiny_config: ConfigMaker, twins: tuple[Path, Path], name: str
) -> None:
    plain, noise = (
        terms_of(tiny_config(*SHORT, *RUNS[name], data=data, output=f"run{number}"))
        for number, data in enumerate(twins)
    )
    assert plain == noise
    assert len(plain) == 2
    assert all(value > 0 for record in plain for value in record.values())
    assert ("loss_feature_consistency" in plain[0]) == ("unimatch" in name)


def test_zero_weights_reduce_s4mim_to_unimatch(tiny_config: ConfigMaker) -> None:
    zero = [f"method.{term}.weight=0" for term in ("reconstruction", "aggregation", "semantic")]
    common = [*SHORT, "method.threshold=0.1"]
    ours = terms_of(tiny_config(*common, *UNIMATCH_BASE, *zero, output="s4mim"))
    assert ours == terms_of(tiny_config(*common, "method.name=unimatch", output="unimatch"))


@pytest.mark.parametrize(("setting", "shares"), [("null", [0, 0.5, 1, 1]), ("4", [0, 0.25, 0.5, 0.75])])
def test_weights_grow_over_half_of_the_run_or_over_the_steps_that_are_given(
    tiny_config: ConfigMaker, setting: str, shares: list[float]
) -> None:
    keys = ("method.consistency_warmup_steps", "method.semantic.warmup_steps")
    settings = ["method.threshold=0.1", "method.class_map_threshold=0.1", "method.consistency_weight=2"]
    steps = terms_of(tiny_config(*settings, *(f"{key}={setting}" for key in keys), "method.semantic.weight=2"))
    for term in ("consistency", "semantic"):
        assert all(step[f"loss_{term}"] > 0 for step in steps)
        found = [step[f"weighted_{term}"] / step[f"loss_{term}"] for step in steps]
        assert found == pytest.approx([2 * share for share in shares])
