"""Benchmarks measure what they say: an honest reference, every byte once, the trainer's own step."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_runs import TINY

from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.benchmarks.decoder_reference import (
    draw_class_map,
    run_attention_loop,
    run_class_loop,
    run_ungated,
    run_ungated_attention,
)
from s4mim_hf.experiments.benchmarks.measuring import KeptBytes, measure_interleaved, paired_ratios, quartiles
from s4mim_hf.experiments.benchmarks.reconstruction import ReconstructionSettings, benchmark_reconstruction
from s4mim_hf.experiments.benchmarks.step import StepSettings, benchmark_step, config_of
from s4mim_hf.experiments.benchmarks.step_parts import PARTS
from s4mim_hf.methods import METHODS
from s4mim_hf.modeling.mim_attention import AttentionDecoder
from s4mim_hf.modeling.mim_head import ClassWiseDecoder, ConvolutionDecoder

ConfigMaker = Callable[..., RunConfig]


def decoder(kernel_size: int) -> ConvolutionDecoder:
    torch.manual_seed(0)
    model = ConvolutionDecoder(6, channels=5, depth=2, kernel_size=kernel_size, expansion=2, patch=4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases included: they are what re-zeroing is for.
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def attention_decoder() -> AttentionDecoder:
    torch.manual_seed(0)
    model = AttentionDecoder(6, channels=6, depth=2, heads=2, expansion=2, patch=4, token_patch=12).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def results(model: ClassWiseDecoder, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Return the output, and the gradients of features and weights."""
    features = torch.randn(2, 6, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    features.requires_grad_()
    model.zero_grad()
    output = run(features)
    output.square().sum().backward()
    return [output.detach(), features.grad, *(parameter.grad.clone() for parameter in model.parameters())]


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("unknown", [False, True])
def test_the_loop_over_classes_is_the_one_pass_decoder(kernel_size: int, unknown: bool) -> None:
    model = decoder(kernel_size)
    class_map = draw_class_map(9, 4, torch.Generator().manual_seed(2)).repeat(2, 1, 1)
    if unknown:
        class_map[:, :2] = 255
    one_pass = results(model, lambda features: model(features, class_map))
    loop = results(model, lambda features: run_class_loop(model, features, class_map, 4))
    for found, expected in zip(one_pass, loop, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("size", [9, 8])
def test_the_loop_over_classes_is_the_one_pass_decoder_of_attention(size: int, unknown: bool) -> None:
    model = attention_decoder()
    class_map = draw_class_map(size, 4, torch.Generator().manual_seed(2)).repeat(2, 1, 1)
    class_map[1] = torch.where(class_map[1] == 3, 2, class_map[1])  # one class is absent
    if unknown:
        class_map[:, :4] = 255
    one_pass = results(model, lambda features: model(features[..., :size, :size], class_map))
    loop = results(model, lambda features: run_attention_loop(model, features[..., :size, :size], class_map, 4))
    assert one_pass[0].abs().sum() > 0
    for found, expected in zip(one_pass, loop, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [9, 8])
def test_attention_without_gates_is_that_of_a_single_region(size: int) -> None:
    model, everywhere = attention_decoder(), torch.zeros(2, size, size, dtype=torch.long)
    gated = results(model, lambda features: model(features[..., :size, :size], everywhere))
    plain = results(model, lambda features: run_ungated_attention(model, features[..., :size, :size]))
    for found, expected in zip(gated, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_without_gates_it_is_the_decoder_of_a_single_region() -> None:
    model = decoder(3)
    gated = results(model, lambda features: model(features, torch.zeros(2, 9, 9, dtype=torch.long)))
    for found, expected in zip(gated, results(model, lambda features: run_ungated(model, features)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("size", "classes"), [(17, 2), (17, 19), (17, 150), (3, 9)])
def test_every_class_is_on_the_map(size: int, classes: int) -> None:
    class_map = draw_class_map(size, classes, torch.Generator().manual_seed(0))
    assert class_map.shape == (1, size, size)
    assert class_map.unique().tolist() == list(range(classes))
    with pytest.raises(ValueError, match="no room for 10 classes"):
        draw_class_map(3, 10, torch.Generator())


def test_kept_bytes_count_each_storage_once_and_no_weights() -> None:
    weight, features = torch.randn(10, 10, requires_grad=True), torch.randn(7, 10)
    kept = KeptBytes([weight])
    with kept.counting():
        hidden = (features @ weight).exp()  # keeps the features, and the exponential
        output = hidden * hidden[:, :].detach() + hidden.square()  # keeps the exponential again, also as a view
    assert kept.total == 4 * (7 * 10 + 7 * 10)
    output.sum().backward()
    assert weight.grad is not None


def test_rounds_are_interleaved_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []

    def case(name: str) -> Callable[[], float]:
        return lambda: calls.append(name) or float(len(calls))

    found = measure_interleaved({name: case(name) for name in "abc"}, rounds=2, warmup=1, title="")
    assert "".join(calls) == "abcbcacab"
    assert found == {"a": [6.0, 8.0], "b": [4.0, 9.0], "c": [5.0, 7.0]}


def test_quartiles_and_ratios() -> None:
    assert quartiles([5, 1, 2, 4, 3]).to_dict() == {"lower": 2, "median": 3, "upper": 4}
    assert quartiles([7.0]).text() == "7.0 [7.0, 7.0]"
    # A machine that is twice as slow in one round changes no ratio.
    assert paired_ratios([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]).to_dict() == {"lower": 2, "median": 2, "upper": 2}


def test_the_decoders_benchmark_reports_every_case() -> None:
    found = benchmark_reconstruction(ReconstructionSettings(size=52, depth=1, channels=8, rounds=1, warmup=0))
    content = found.to_dict()
    shown = {(case["decoder"], case["kernel_size"], case["classes"]) for case in content["cases"]}
    expected = {("basic", kernel, None) for kernel in (3, 5, None)}
    expected |= {("one pass", kernel, count) for kernel in (3, 5, None) for count in (2, 19, 150)}
    expected |= {("loop", kernel, count) for kernel in (3, 5, None) for count in (2, 19)}
    assert shown == expected
    one_pass = {count: found.case("one pass", 3, count).kept_bytes for count in (2, 19, 150)}
    assert len(set(one_pass.values())) == 1, "memory does not grow with classes"
    assert found.case("loop", 3, 19).kept_bytes > 15 * one_pass[19]
    ratios = content["ratios"]
    assert ratios["memory, one pass with 19 classes / basic, kernel 3"]["median"] == pytest.approx(
        one_pass[19] / found.case("basic", 3, None).kept_bytes
    )
    for layers in ("kernel 3", "kernel 5", "attention"):
        assert f"time, 150 classes / 2 classes, {layers}" in ratios
        assert f"time, loop over 19 classes / one pass, {layers}" in ratios
    assert printed(found).count("one pass ") >= 6


def printed(benchmark: object) -> str:
    """Return what a terminal of 80 columns shows."""
    console = Console(file=io.StringIO(), width=80)
    for table in benchmark.tables():
        console.print(table)
    text = console.file.getvalue()
    assert "…" not in text
    return text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 40}, "--size 40.*150 classes.*larger --size"),
        ({"depth": 0}, "--depth is 0"),
        ({"channels": 6}, "--channels is 6.*multiple of the 4"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReconstructionSettings(**settings)


def step_settings(prepared: Path, *overrides: str, **more: object) -> StepSettings:
    overrides = (*TINY, f"data.path={prepared}", *overrides)
    return StepSettings("demo", overrides, **({"rounds": 1, "steps": 1, "warmup": 0} | more))


def test_every_method_is_measured_by_the_step_that_trains_it(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    found = benchmark_step(step_settings(prepared))
    content = found.to_dict()
    assert list(content["methods"]) == list(METHODS)
    for name, cost in found.costs.items():
        # One warm-up round, one that counts, one for the parts; the memory's changes no weight on a CPU.
        assert cost.run.trainer.step == 3, name
        numbers = content["methods"][name]
        assert set(numbers["parts"]) == set(PARTS)
        assert sum(numbers["parts"].values()) == pytest.approx(1)
        assert all(share >= 0 for share in numbers["parts"].values())
        assert numbers["peak_bytes"] is None
        assert type(cost.run.trainer.accelerator).__name__ == "Accelerator", "clocks are off again"
        assert not cost.run.trainer.teacher.model._forward_hooks
    parts = {name: numbers["parts"] for name, numbers in content["methods"].items()}
    assert parts["supervised"]["teacher"] == 0
    assert parts["fixmatch"]["teacher"] > 0
    kept = {name: cost.kept_bytes for name, cost in found.costs.items()}
    assert kept["supervised"] < kept["fixmatch"] < kept["s4mim"]
    assert content["methods"]["supervised"]["ratio_to_supervised"]["median"] == 1
    assert "s4mim" in printed(found)
    assert not list(here.iterdir()), "nothing is written"


def test_resident_bytes_are_weights_teacher_and_optimizer(prepared: Path) -> None:
    (cost,) = benchmark_step(step_settings(prepared, methods=("supervised",))).costs.values()
    weights = sum(tensor.nbytes for tensor in cost.run.trainer.unwrapped_student.state_dict().values())
    parameters = sum(tensor.nbytes for tensor in cost.run.trainer.unwrapped_student.parameters())
    count = len(list(cost.run.trainer.unwrapped_student.parameters()))
    # AdamW: two moments of each parameter, and a counter.
    assert cost.resident_bytes == 2 * weights + 2 * parameters + 4 * count


def test_overrides_count_for_the_methods_that_have_them() -> None:
    settings = StepSettings("demo", ("method.masking.patch_size=8", "method.threshold=0.5", "data.num_workers=1"))
    assert config_of("s4mim", settings).method.masking.patch_size == 8
    assert config_of("fixmatch", settings).method.threshold == 0.5
    assert config_of("supervised", settings).data.num_workers == 1
    with pytest.raises(InputError, match=r"did you mean 'method\.masking'"):
        config_of("supervised", StepSettings("demo", ("method.maskin=8",)))
    with pytest.raises(InputError, match="--methods"):
        StepSettings("demo", ("method.name=s4mim",))
    with pytest.raises(InputError, match="did you mean 's4mim'"):
        StepSettings(methods=("s4min",))
