"""The reconstruction decoder that a run's configuration asks for: how far it sees, what does not fit, whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s4mim_hf.data.prepared import load_prepared
from s4mim_hf.engine.build import build_network
from s4mim_hf.engine.build_model import decoder_reach
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError
from s4mim_hf.modeling import S4MIMForSemiSupervisedSegmentation
from s4mim_hf.modeling.mim_attention import AttentionDecoder

ConfigMaker = Callable[..., RunConfig]
ATTENTION = "model.mim_decoder_type=attention"


@pytest.mark.parametrize(
    ("overrides", "reach"),
    [
        ([], 4 * 1 * 4),
        (["model.mim_depth=3", "model.mim_kernel_size=5"], 3 * 2 * 4),
        (["model.mim_features=encoder", "model.output_stride=8"], 4 * 1 * 8),
        ([ATTENTION], None),
        ([ATTENTION, "model.mim_features=encoder"], None),
    ],
)
def test_the_reach_is_known_before_the_decoder_is_built(tiny_config: ConfigMaker, overrides, reach) -> None:
    model = build(tiny_config, *overrides)
    assert model.mim_decoder is not None
    assert decoder_reach(tiny_config(*overrides).model, model.feature_stride) == model.mim_decoder.reach == reach


def test_a_run_with_attention_learns_by_it_and_ships_without_it(tiny_config: ConfigMaker) -> None:
    settings = (ATTENTION, "model.mim_attention_stride=8", "model.mim_num_heads=2", "method.class_map_threshold=0.1")
    config = tiny_config(*settings)
    start = build(tiny_config, *settings).state_dict()
    run = train(config)
    student = run.trainer.unwrapped_student
    assert isinstance(student.mim_decoder, AttentionDecoder)
    moved = {key for key, value in student.state_dict().items() if not torch.equal(value.cpu(), start[key])}
    assert moved >= {f"mim_decoder.{name}" for name, _ in student.mim_decoder.named_parameters()}
    folder = Path(str(config.output_dir))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(record["loss_reconstruction"] > 0 for record in records if record["kind"] == "train")
    assert {key.split(".")[0] for key in load_file(folder / "model" / "model.safetensors")} == {
        "backbone", "decode_head",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.mim_attention_stride=6"], "mim_attention_stride is 6; it must be a multiple of 4.*; correct it$"),
        (
            ["model.mim_features=encoder", "model.mim_attention_stride=8"],
            "mim_attention_stride is 8; it must be a multiple of 16",
        ),
        (["model.mim_attention=flex", "model.mim_channels=64"], "model.mim_attention is flex.*use auto or sdpa"),
        (["model.mim_num_heads=3"], "model.mim_num_heads is 3; expected a divisor of model.mim_channels 8"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tiny_config: ConfigMaker, overrides: list[str], message: str) -> None:
    if "model.mim_attention=flex" in overrides and torch.cuda.is_available():
        pytest.skip("FlexAttention learns here")
    with pytest.raises(InputError, match=message):
        build(tiny_config, ATTENTION, *overrides)


def build(tiny_config: ConfigMaker, *overrides: str) -> S4MIMForSemiSupervisedSegmentation:
    config = tiny_config(*overrides)
    return build_network(config, load_prepared(config.data.path)).model


def test_settings_of_a_decoder_that_is_not_built_do_not_matter(tiny_config: ConfigMaker) -> None:
    model = build(tiny_config, ATTENTION, "model.mim_attention_stride=6", "method.reconstruction.weight=0")
    assert model.mim_decoder is None
