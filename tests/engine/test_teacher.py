"""The teacher against the closed form of a moving average, in float64, and its weights on disk."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.errors import InputError


def segmenter(channels: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.Dropout(0.5))


def wander(module: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Move every parameter and buffer of `module` somewhere else; return them as they were left."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).abs()
            tensor.add_((10 * noise).to(tensor.dtype) if tensor.is_floating_point() else 1)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("ramp", [True, False])
def test_equals_the_closed_form_of_a_recorded_sequence(ramp: bool) -> None:
    student = segmenter().double()
    teacher = Teacher(student, decay=0.8, ramp=ramp, buffers="average")
    initial = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    history = []
    for step in range(12):
        history.append(wander(student, generator))
        teacher.update(student, step)
    decays = [min(0.8, 1 - 1 / (step + 1)) if ramp else 0.8 for step in range(12)]
    for name, tensor in teacher.state().items():
        if not tensor.is_floating_point():
            assert tensor == history[-1][name]
            continue
        # θ'_T = θ_0·Π d_t + Σ_t (1 − d_t)·θ_t·Π_{u > t} d_u
        expected = initial[name] * torch.tensor(decays, dtype=torch.float64).prod()
        for step, state in enumerate(history):
            later = torch.tensor(decays[step + 1 :], dtype=torch.float64).prod()
            expected = expected + (1 - decays[step]) * later * state[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-12)


def test_ramp_is_the_plain_mean_until_the_decay_is_reached() -> None:
    student = segmenter().double()
    teacher = Teacher(student, decay=0.9, ramp=True)
    generator = torch.Generator().manual_seed(2)
    weights = []
    for step in range(10):
        weights.append(wander(student, generator)["0.weight"])
        teacher.update(student, step)
        torch.testing.assert_close(teacher.state()["0.weight"], torch.stack(weights).mean(0), rtol=1e-12, atol=1e-12)
    assert teacher.decay_at(9) == teacher.decay_at(1000) == 0.9


def test_first_update_with_the_ramp_copies_bit_for_bit() -> None:
    student = segmenter()
    teacher = Teacher(student)
    state = wander(student, torch.Generator().manual_seed(3))
    teacher.update(student, 0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in teacher.state().items())


def test_buffers_are_copied_by_default_while_weights_are_averaged() -> None:
    student = segmenter()
    teacher = Teacher(student, decay=0.5, ramp=False)
    state = wander(student, torch.Generator().manual_seed(4))
    teacher.update(student, 7)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(teacher.state()[name], state[name])
    assert not torch.equal(teacher.state()["0.weight"], state["0.weight"])


def test_has_no_gradient_no_training_mode_and_its_own_memory() -> None:
    student = segmenter().train()
    before = copy.deepcopy(student.state_dict())
    teacher = Teacher(student)
    assert student.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not any(module.training for module in teacher.model.modules())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not teacher(torch.ones(1, 3, 5, 5)).requires_grad
    wander(student, torch.Generator().manual_seed(5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state().items())


def test_another_module_is_refused() -> None:
    teacher = Teacher(segmenter())
    with pytest.raises(ValueError, match=r"only one of them has 0\.bias"):
        teacher.update(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), 0)


def test_a_saved_teacher_comes_back_bit_for_bit(tmp_path: Path) -> None:
    student = segmenter().to(memory_format=torch.channels_last)
    teacher, other = Teacher(student), Teacher(student)
    wander(teacher.model, torch.Generator().manual_seed(6))
    teacher.save(tmp_path / "teacher.safetensors")
    other.load(tmp_path / "teacher.safetensors")
    assert all(torch.equal(tensor, teacher.state()[name]) for name, tensor in other.state().items())


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        Teacher(segmenter()).load(file)
    Teacher(segmenter(4)).save(file)
    with pytest.raises(InputError, match=r"0\.weight has shape \(4, 3, 3, 3\), the model expects \(8, 3, 3, 3\)"):
        Teacher(segmenter(8)).load(file)
    with pytest.raises(InputError, match=r"5 tensors are in the file or in the model.*1\.bias"):
        Teacher(nn.Sequential(nn.Conv2d(3, 4, 3))).load(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        Teacher(segmenter(4)).load(file)


def _update_in_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not exist here
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    student = segmenter()
    teacher = Teacher(student, buffers="copy")
    with torch.no_grad():
        student[1].running_mean.fill_(float(rank + 1))  # type: ignore[index, union-attr]
    teacher.update(student, 0)
    teacher.save(Path(folder) / f"{rank}.safetensors")
    assert student[1].running_mean[0] == rank + 1  # type: ignore[index, union-attr]
    torch.distributed.destroy_process_group()


def test_processes_agree_on_the_buffers(tmp_path: Path) -> None:
    # Forked, not spawned: a fresh interpreter would spend its time importing transformers.
    torch.multiprocessing.start_processes(_update_in_process, args=(str(tmp_path),), nprocs=2, start_method="fork")
    first, second = Teacher(segmenter()), Teacher(segmenter())
    first.load(tmp_path / "0.safetensors")
    second.load(tmp_path / "1.safetensors")
    assert torch.equal(first.state()["1.running_mean"], torch.ones(4))
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in first.state().items())
