"""The teacher θ': an exponential moving average of the student's segmenter θ, which labels the unlabelled images.

It stands outside the distributed wrapper and outside the optimizer: no gradient, evaluation mode, its own copy of every
weight and buffer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from s4mim_hf.errors import InputError, some


class Teacher:
    """A moving average of a segmenter: θ' ← d·θ' + (1 − d)·θ after each optimizer step.

    Args:
        segmenter: the student's segmenter, on the device where the teacher shall run. It is copied.
        decay: d, in [0, 1].
        ramp: use min(d, 1 − 1/(step + 1)) instead, so that the teacher is the student at first and then the plain mean
            of all students so far, until d is reached.
        buffers: what becomes of floating-point buffers (the running statistics of BatchNorm): "copy" takes the
            student's, "average" treats them like weights. Integer buffers (counters) are always copied.

    Attributes:
        model: the averaged segmenter; in evaluation mode, every parameter with `requires_grad` False.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        decay: float = 0.996,
        ramp: bool = True,
        buffers: Literal["copy", "average"] = "copy",
    ) -> None:
        self.model = copy.deepcopy(segmenter).eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp
        self.buffers = buffers

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> Any:
        """Run the averaged segmenter without gradient: (B, 3, H, W) normalised pixels -> its output, with `.logits`."""
        return self.model(pixel_values)

    def decay_at(self, step: int) -> float:
        """Return d for the update after optimizer step `step`, which counts from 0 (with the ramp, 0 copies)."""
        return min(self.decay, 1.0 - 1.0 / (step + 1)) if self.ramp else self.decay

    @torch.no_grad()
    def update(self, segmenter: nn.Module, step: int) -> None:
        """Move the teacher towards `segmenter` (the unwrapped student's) after optimizer step `step`, from 0.

        Nothing waits for the device. In a distributed run every process must call it: buffers are taken from process 0,
        as `DistributedDataParallel` does for the student's, so that all processes keep the same teacher.

        Raises:
            ValueError: if `segmenter` has other parameters or buffers than the one that was copied.
        """
        weight = 1.0 - self.decay_at(step)
        _move(dict(self.model.named_parameters()), dict(segmenter.named_parameters()), weight)
        ours, theirs = dict(self.model.named_buffers()), dict(segmenter.named_buffers())
        averaged = {name for name, buffer in ours.items() if self.buffers == "average" and buffer.is_floating_point()}
        _move(_only(ours, averaged), _only(theirs, averaged), weight)
        _move(_only(ours, ours.keys() - averaged), _only(theirs, theirs.keys() - averaged), 1.0)
        take_from_first_process([buffer for buffer in ours.values() if buffer.is_floating_point()])

    def state(self) -> dict[str, Tensor]:
        """Return the averaged weights and buffers by name; the tensors are the teacher's own, not copies."""
        return dict(self.model.state_dict())

    def save(self, path: Path) -> None:
        """Write the averaged weights and buffers to `path`, a safetensors file."""
        save_file({name: tensor.contiguous() for name, tensor in self.state().items()}, str(path))

    def load(self, path: Path) -> None:
        """Read what `save` wrote, into the tensors in place.

        Raises:
            InputError: if the file is absent or damaged, or its names or shapes are not this segmenter's.
        """
        try:
            saved = load_file(str(path))
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}: the teacher's weights cannot be read ({error}); use another checkpoint"
            ) from error
        state = self.state()
        _check_same_tensors(saved, state, path)
        with torch.no_grad():
            for name, tensor in state.items():
                tensor.copy_(saved[name])


def _only(tensors: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name in names}


def _move(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], weight: float) -> None:
    """targets ← targets + weight·(sources − targets), in place; a weight of 1 copies exactly, whatever the dtype."""
    if targets.keys() != sources.keys():
        differing = some(sorted(targets.keys() ^ sources.keys()))
        raise ValueError(f"the teacher and the student do not hold the same tensors: only one of them has {differing}")
    if not targets:
        return
    pairs = [(target, sources[name].detach()) for name, target in targets.items()]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if weight == 1.0:
        torch._foreach_copy_(ours, theirs)
    else:
        torch._foreach_lerp_(ours, theirs, weight)


@torch.no_grad()
def take_from_first_process(buffers: list[Tensor]) -> None:
    """Replace `buffers` by those of process 0, in one broadcast; nothing to do in a single process."""
    distributed = torch.distributed
    if not buffers or not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() == 1:
        return
    # One message: running statistics are hundreds of tiny tensors, and each broadcast has its own latency.
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    distributed.broadcast(flat, src=0)
    pieces = flat.split([buffer.numel() for buffer in buffers])
    for buffer, piece in zip(buffers, pieces, strict=True):
        buffer.copy_(piece.view_as(buffer))


def _check_same_tensors(saved: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    differing = sorted(saved.keys() ^ state.keys())
    if differing:
        raise InputError(
            f"{path}: {len(differing)} tensors are in the file or in the model but not in both ({some(differing)}); "
            "resume with the configuration that wrote it"
        )
    for name, tensor in state.items():
        if saved[name].shape != tensor.shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(saved[name].shape)}, the model expects {tuple(tensor.shape)}; "
                "resume with the configuration that wrote it"
            )
