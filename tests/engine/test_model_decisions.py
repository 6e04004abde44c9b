"""What the abstract leaves open about the network and its teacher: each setting of a run reaches what is built.

What the architecture's fields do is tested in tests/modeling, the teacher's rule in `test_teacher`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from s4mim_hf.data.prepared import PreparedData, load_prepared
from s4mim_hf.engine.build import Network, build_accelerator, build_network, build_run
from s4mim_hf.engine.run_config import ModelConfig, RunConfig
from s4mim_hf.masking import downsample_mask
from s4mim_hf.modeling.normalization import FrozenBatchNorm2d

ConfigMaker = Callable[..., RunConfig]

# Another value of each field of the architecture, as an override.
ALTERNATIVES = {
    "backbone_config": "{model_type: resnet, embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1]}",
    "output_stride": "8",
    "decoder_channels": "10",
    "low_level_channels": "4",
    "aspp_rates": "[1, 2]",
    "decoder_dropout": "0.7",
    "separable_convolutions": "true",
    "deep_stem": "true",
    "multi_grid": "[3]",
    "align_corners": "true",
    "low_level_first": "true",
    "mask_token": "zero",
    "mim_features": "encoder",
    "mim_projection_channels": "6",
    "mim_decoder_type": "attention",
    "mim_attention_stride": "8",
    "mim_num_heads": "2",
    "mim_channels": "4",
    "mim_depth": "5",
    "mim_kernel_size": "5",
    "mim_expansion": "3",
    "masked_features": "token",
}
OF_ATTENTION = ("mim_attention_stride", "mim_num_heads")
# They need pretrained weights, GPUs, another kernel for the same numbers, and steps that move statistics (below).
ELSEWHERE = {"backbone", "sync_batch_norm", "mim_attention", "batch_norm_momentum"}
# They need a vision transformer (test_vision_transformers.py).
ELSEWHERE |= {"decode_head", "dpt_layers", "dpt_channels", "dpt_align_corners", "position_embedding_offset"}
ELSEWHERE |= {"freeze_backbone"}


@pytest.fixture
def data(prepared: Path) -> PreparedData:
    return load_prepared(str(prepared))


def seen_of(network: Network) -> list[Any]:
    """Return what a training pass over two masked images shows of the network: shapes, sums, the heads' weights."""
    student = network.model.train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 48, 48, generator=generator)
    cells = torch.rand(2, 1, 3, 3, generator=generator) < 0.5
    mask = cells.repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        for parameter in student.parameters():
            # Tokens start at zero, where a learned one cannot be told from none.
            parameter.add_(0.1)
        torch.manual_seed(1)
        feature_mask = downsample_mask(mask, student.feature_stride)
        output = student(images, mask, feature_mask, torch.zeros_like(feature_mask[:, 0], dtype=torch.int64))
    values = (output.logits, output.features, output.reconstruction)
    return [(tuple(value.shape), float(value.double().abs().sum())) for value in values]


def test_every_field_of_the_architecture_is_listed() -> None:
    assert set(ALTERNATIVES) | ELSEWHERE == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("key", ALTERNATIVES)
def test_every_field_of_the_architecture_changes_the_network(
    tiny_config: ConfigMaker, data: PreparedData, key: str
) -> None:
    before = ["model.mim_decoder_type=attention"] if key in OF_ATTENTION else []
    config = tiny_config(*before, f"model.{key}={ALTERNATIVES[key]}")
    network = build_network(config, data)
    assert seen_of(network) != seen_of(build_network(tiny_config(*before), data))
    found, asked = getattr(network.model.config, key), getattr(config.model, key)
    if key != "backbone_config":
        assert found == (list(asked) if isinstance(asked, tuple) else asked)
    # The method measures patches in positions of the features that there are.
    assert network.method.task.feature_stride == network.model.feature_stride


def test_momentum_is_the_share_of_a_batch_in_the_running_statistics(
    tiny_config: ConfigMaker, data: PreparedData
) -> None:
    means = {}
    for momentum in (0.25, 1.0):
        student = build_network(tiny_config(f"model.batch_norm_momentum={momentum}"), data).model.train()
        student.segmenter(torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
        means[momentum] = {name: mean for name, mean in student.named_buffers() if name.endswith("running_mean")}
    assert means[1.0]
    for name, mean in means[0.25].items():
        torch.testing.assert_close(mean, 0.25 * means[1.0][name])


def test_frozen_statistics_are_the_backbones_only(tiny_config: ConfigMaker, data: PreparedData) -> None:
    student = build_network(tiny_config("method.normalization.statistics=frozen_backbone"), data).model.train()
    before = {name: buffer.clone() for name, buffer in student.named_buffers() if "running" in name}
    student.segmenter(torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    moved = {name for name, buffer in student.named_buffers() if name in before and not buffer.equal(before[name])}
    in_backbone = {name for name in before if name.startswith("segmenter.backbone.")}
    assert moved == before.keys() - in_backbone
    assert any(isinstance(module, FrozenBatchNorm2d) for module in student.segmenter.backbone.modules())


@pytest.mark.parametrize(
    ("settings", "weight_of_first", "weight_of_buffers"),
    [
        (["teacher.decay=0.75", "teacher.ramp=false"], 0.75, 0.0),
        (["teacher.decay=0.75", "teacher.ramp=false", "teacher.buffers=average"], 0.75, 0.75),
        (["teacher.decay=0.75", "teacher.ramp=true", "teacher.buffers=average"], 0.0, 0.0),
    ],
)
def test_the_teacher_follows_its_settings(
    tiny_config: ConfigMaker,
    tmp_path: Path,
    settings: list[str],
    weight_of_first: float,
    weight_of_buffers: float,
) -> None:
    """After one step the teacher is d times what it was and 1 - d times the student; the ramp's first d is 0."""
    config = tiny_config("method.name=supervised", "optim.max_steps=1", "optim.warmup_steps=0", *settings)
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, tracker="none"))
    run = build_run(config, build_accelerator(config, tmp_path), tmp_path)
    trainer = run.trainer
    trainer.hooks.clear()
    first = {name: tensor.clone() for name, tensor in trainer.teacher.state().items()}
    trainer.train(run.batches())
    student = trainer.unwrapped_student.segmenter
    buffers = {name for name, _ in student.named_buffers()}
    assert any(not torch.equal(first[name], tensor) for name, tensor in student.state_dict().items())
    for name, tensor in student.state_dict().items():
        if tensor.is_floating_point():
            weight = weight_of_buffers if name in buffers else weight_of_first
            expected = weight * first[name] + (1 - weight) * tensor
            torch.testing.assert_close(trainer.teacher.state()[name], expected, rtol=1e-5, atol=1e-6)
