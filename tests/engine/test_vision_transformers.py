"""Runs on vision transformers with a DPT head: crops of whole patches, freezing, rates by layer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from s4mim_hf.data.prepared import load_prepared
from s4mim_hf.engine.build import Network, build_accelerator, build_network, build_run, check_batch_sizes
from s4mim_hf.engine.build_model import planned_strides
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.optim import build_optimizer
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import OptimConfig, RunConfig
from s4mim_hf.errors import InputError
from s4mim_hf.modeling import S4MIMForSemanticSegmentation

ConfigMaker = Callable[..., RunConfig]
DINOV2 = (
    "model.backbone_config={model_type: dinov2, hidden_size: 32, num_hidden_layers: 4, num_attention_heads: 2, "
    "image_size: 56, patch_size: 14}"
)
DPT = [
    DINOV2,
    "model.decode_head=dpt",
    "model.output_stride=null",
    "data.views.crop_size=42",
    "method.masking.patch_size=14",
    # An untrained teacher is sure of nothing.
    "method.class_map_threshold=0",
    "log.tracker=none",
]
FROZEN = ["model.freeze_backbone=true", "model.mask_token=zero"]


def of_method(name: str) -> list[str]:
    """Return the settings of a tiny run of a method."""
    others = [one for one in DPT if not one.startswith("method.")]
    return DPT if name == "s4mim" else [*others, f"method.name={name}"]


def build(tiny_config: ConfigMaker, *overrides: str) -> Network:
    config = tiny_config(*overrides)
    return build_network(config, load_prepared(config.data.path))


def records_of(config: RunConfig) -> list[dict[str, Any]]:
    lines = (Path(str(config.output_dir)) / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]


@pytest.mark.parametrize("method", ["s4mim", "unimatch"])
def test_a_run_learns_everything_and_ships_a_dpt_model(tiny_config: ConfigMaker, method: str) -> None:
    config = tiny_config(*of_method(method), "optim.max_steps=2", "method.threshold=0", "optim.layer_decay=0.8")
    start = build(tiny_config, *of_method(method)).model.state_dict()
    run = train(config)
    terms = {name: value for name, value in records_of(config)[-1].items() if name.startswith("loss")}
    assert len(terms) == {"s4mim": 6, "unimatch": 4}[method]
    assert all(math.isfinite(value) and value > 0 for value in terms.values()), terms
    student = run.trainer.unwrapped_student
    still = {name for name, value in student.named_parameters() if torch.equal(value.detach().cpu(), start[name])}
    assert still == set()
    folder = Path(str(config.output_dir)) / "model"
    assert "decoder: DPT" in (folder / "README.md").read_text()
    shipped = S4MIMForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        assert shipped(torch.zeros(1, 3, 33, 47)).logits.shape == (1, len(shipped.config.id2label), 33, 47)


def test_a_frozen_backbone_stays_and_the_rest_learns(tiny_config: ConfigMaker, tmp_path: Path) -> None:
    settings = [*DPT, *FROZEN, "optim.layer_decay=0.5", "optim.max_steps=2", "method.threshold=0"]
    config = tiny_config(*settings)
    start = build(tiny_config, *settings).model.state_dict()
    run = build_run(config, build_accelerator(config, tmp_path), tmp_path)
    trainer = run.trainer
    trainer.hooks.clear()
    trainer.train(run.batches())
    student, teacher = trainer.unwrapped_student, trainer.teacher.state()
    for name, value in student.named_parameters():
        in_backbone = name.startswith("segmenter.backbone.")
        assert torch.equal(value.detach().cpu(), start[name]) == in_backbone, name
        assert (value.requires_grad, value.grad is None) == (not in_backbone, True)
        if in_backbone:
            assert torch.equal(teacher[name.removeprefix("segmenter.")], value), name
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in student.parameters() if parameter.requires_grad}
    assert {group["name"] for group in trainer.optimizer.param_groups} == {"rest", "rest without decay"}
    assert not student.segmenter.backbone.training
    assert student.segmenter.decode_head.training


def test_a_frozen_pyramid_keeps_its_statistics(tiny_config: ConfigMaker) -> None:
    model = build(tiny_config, *FROZEN).model.train()
    before = {name: buffer.clone() for name, buffer in model.segmenter.named_buffers() if "running" in name}
    model(torch.randn(4, 3, 48, 48), patch_mask=torch.zeros(2, 1, 48, 48)).logits.sum().backward()
    moved = {name for name, one in model.segmenter.named_buffers() if name in before and not one.equal(before[name])}
    assert moved == {name for name in before if not name.startswith("backbone.")}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([*DPT, "data.views.crop_size=43"], r"crop_size is 43, not a multiple .* patch of 14 pixels; use 42 or 56$"),
        ([*DPT, "data.views.crop_size=321"], r"data.views.crop_size is 321, .* 14 pixels; use 322 or 308$"),
        ([*DPT, "data.views.crop_size=9", "method.masking.patch_size=7"], "crop_size is 9, .*; use 14$"),
        ([*DPT, "model.output_stride=16"], "'dinov2' cannot be dilated and exists at stride 14 only"),
        ([DINOV2], "decode_head is 'deeplabv3plus', but the backbone 'dinov2' is a plain vision transformer"),
        (["model.decode_head=dpt"], "decode_head is 'dpt', but the backbone 'resnet' is a pyramid"),
        (
            [*DPT, "model.freeze_backbone=true"],
            "mask_token=learned would never get a gradient; use model.mask_token=zero",
        ),
        ([*DPT, *FROZEN, "model.mim_features=encoder"], "model.mim_features=encoder; use decoder"),
        ([*DPT, "model.mim_decoder_type=attention"], "mim_attention_stride is 16; it must be a multiple of 7"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tiny_config: ConfigMaker, overrides: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build(tiny_config, *overrides)


def test_one_image_is_enough_for_a_head_without_batch_statistics(tiny_config: ConfigMaker) -> None:
    def check(*overrides: str) -> None:
        config = tiny_config(*overrides)
        check_batch_sizes(config, build_network(config, load_prepared(config.data.path)).method, processes=1)

    check(*DPT, "data.labeled_batch_size=1")
    with pytest.raises(InputError, match="labeled_batch_size is 1"):
        check("data.labeled_batch_size=1")
    with pytest.raises(InputError, match="unlabeled_batch_size is 1, but CutMix takes boxes from another image"):
        check(*DPT, "data.unlabeled_batch_size=1")


@pytest.mark.parametrize(
    "override",
    [
        "model.dpt_layers=[1, 2, 3, 4]",
        "model.dpt_channels=[6, 6, 6, 6]",
        "model.dpt_align_corners=false",
        "model.position_embedding_offset=0.1",
    ],
)
def test_every_field_of_the_head_reaches_the_network(tiny_config: ConfigMaker, override: str) -> None:
    # Five layers, so that those taken by default (1, 2, 3, 5) are not the only ones.
    deeper = [*DPT, "model.backbone_config.num_hidden_layers=5"]
    override = override.replace("3, 4]", "4, 5]")
    images = torch.randn(1, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    logits = []
    for settings in (deeper, [*deeper, override]):
        segmenter = build(tiny_config, *settings).model.segmenter.eval()
        with torch.no_grad():
            for parameter in segmenter.backbone.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            logits.append(segmenter(images).logits)
    assert not torch.allclose(*logits)


@pytest.mark.parametrize("features", ["decoder", "encoder"])
def test_strides_are_known_before_anything_is_built(tiny_config: ConfigMaker, tmp_path: Path, features: str) -> None:
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 1}
    CLIPVisionModel(CLIPVisionConfig(**size, patch_size=16, image_size=48)).save_pretrained(tmp_path / "clip")
    clip = [
        f"model.backbone={tmp_path / 'clip'}",
        "model.backbone_config=null",
        "data.views.crop_size=48",
        "method.masking.patch_size=16",
    ]
    for settings, patch in ((DPT, 14), ([*DPT[1:], *clip], 16), ([], None)):
        settings = [*settings, f"model.mim_features={features}"]
        network = build(tiny_config, *settings)
        assert planned_strides(tiny_config(*settings).model) == (network.model.feature_stride, patch)
        assert network.method.task.feature_stride == network.model.feature_stride
        assert network.method.task.feature_channels == network.model.segmenter.backbone.map_channels
        if "clip" in str(settings):
            # Not ImageNet's: CLIP was trained with its own.
            assert network.statistics[0] == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)


def test_rates_fall_by_layer_in_closed_form(tiny_config: ConfigMaker) -> None:
    model = build(tiny_config, *DPT).model
    optim = OptimConfig(learning_rate=0.4, backbone_learning_rate_scale=0.25, layer_decay=0.5, weight_decay=0.1)
    rates: dict[int, tuple[float, float]] = {}
    for group in build_optimizer(model, optim, 4).param_groups:
        rates |= {id(parameter): (group["lr"], group["weight_decay"]) for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        rate, decay = rates.pop(id(parameter))
        parts = name.split(".")
        if "embeddings" in parts:
            expected = 0.1 * 0.5**5
        elif "layer" in parts:
            expected = 0.1 * 0.5 ** (4 - int(parts[parts.index("layer") + 1]))
        else:
            expected = 0.1 if name.startswith("segmenter.backbone.") else 0.4
        assert rate == pytest.approx(expected), name
        undecayed = parameter.ndim == 1 or "token" in parts[-1] or parts[-1] == "position_embeddings"
        assert decay == (0 if undecayed else 0.1), name
    assert rates == {}
    plain = build_optimizer(model, OptimConfig(learning_rate=0.4), 4).param_groups
    assert [group["name"] for group in plain] == ["backbone", "backbone without decay", "rest", "rest without decay"]


def test_the_position_table_of_clip_is_not_decayed_and_unknown_layers_are_refused(tiny_config: ConfigMaker) -> None:
    clip = "model.backbone_config={model_type: clip_vision_model, hidden_size: 16, num_hidden_layers: 4, "
    clip += "num_attention_heads: 1, intermediate_size: 16, patch_size: 14, image_size: 42}"
    model = build(tiny_config, *DPT[1:], clip).model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optim = OptimConfig(layer_decay=0.9)
    undecayed = [one for one in build_optimizer(model, optim, 4).param_groups if one["weight_decay"] == 0]
    found = {names[id(parameter)] for group in undecayed for parameter in group["params"]}
    assert any(name.endswith("position_embedding.weight") for name in found)
    model.segmenter.backbone.model_type = "hiera"
    with pytest.raises(InputError, match=r"optim.layer_decay is 0.9, but the layers .* 'hiera' .*; set it to null"):
        build_optimizer(model, optim, 4)


def test_the_recipe_is_unimatch_v2s_setting(tiny_config: ConfigMaker) -> None:
    config = load_run_config("voc_dinov2", ["data.path=data/voc"])
    assert config.data.views.crop_size % 14 == 0
    assert config.optim.learning_rate * config.optim.backbone_learning_rate_scale == pytest.approx(5e-6)
    assert config.model.decode_head == "dpt"
