"""The peers' networks once more: weights under their names, narrow, and what they compute, one call after another.

Written from the published architectures alone, on plain tensors: nothing of our modules is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
DEPTHS = (1, 2, 2, 3)
WIDTHS = (16, 24, 32, 40)
XCEPTION_BLOCKS = 6


class _Maker:
    """Fills a state dict with random weights that keep the scale of what passes them."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self._generator = torch.Generator().manual_seed(seed)

    def convolution(self, name: str, before: int, after: int, size: int = 1, groups: int = 1) -> None:
        shape = (after, before // groups, size, size)
        scale = (2 / (before // groups * size * size)) ** 0.5
        self.state[f"{name}.weight"] = torch.randn(shape, generator=self._generator) * scale

    def norm(self, name: str, width: int) -> None:
        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(width, generator=self._generator) * (high - low) + low

        self.state |= {f"{name}.weight": uniform(0.5, 1.0), f"{name}.bias": uniform(-0.2, 0.2)}
        self.state |= {f"{name}.running_mean": uniform(-0.2, 0.2), f"{name}.running_var": uniform(0.5, 1.5)}
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def unit(self, name: str, norm: str, before: int, after: int, size: int = 1, groups: int = 1) -> None:
        self.convolution(name, before, after, size, groups)
        self.norm(norm, after)

    def biased(self, name: str, before: int, after: int, size: int = 1) -> None:
        self.convolution(name, before, after, size)
        self.state[f"{name}.bias"] = torch.randn(after, generator=self._generator) * 0.1


def deeplab_state(encoder: str = "resnet", classes: int = 21, *, correlation: bool = False, seed: int = 0) -> State:
    """Return the weights of UniMatch's network, or with `correlation` those of CorrMatch's."""
    make = _Maker(seed)
    low, deep = (_resnet_state if encoder == "resnet" else _xception_state)(make)
    width, reduced = 8, 4
    for branch, size in enumerate((1, 3, 3, 3)):
        make.unit(f"head.b{branch}.0", f"head.b{branch}.1", deep, width, size)
    make.unit("head.b4.gap.1", "head.b4.gap.2", deep, width)
    make.unit("head.project.0", "head.project.1", 5 * width, width)
    make.unit("reduce.0", "reduce.1", low, reduced)
    make.unit("fuse.0", "fuse.1", width + reduced, width, 3)
    make.unit("fuse.3", "fuse.4", width, width, 3)
    make.biased("classifier", width, classes)
    if correlation:
        make.biased("corr.conv1", width, classes)
        make.biased("corr.conv2", width, classes)
        make.biased("proj.0", deep, width, 3)
        make.norm("proj.1", width)
    return make.state


def _resnet_state(make: _Maker) -> tuple[int, int]:
    width = 12
    make.unit("backbone.conv1.0", "backbone.conv1.1", 3, width // 2, 3)
    make.unit("backbone.conv1.3", "backbone.conv1.4", width // 2, width // 2, 3)
    make.unit("backbone.conv1.6", "backbone.bn1", width // 2, width, 3)
    for stage, (depth, after) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=1):
        for block in range(depth):
            name, inner = f"backbone.layer{stage}.{block}", after // 4
            make.unit(f"{name}.conv1", f"{name}.bn1", width, inner)
            make.unit(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
            make.unit(f"{name}.conv3", f"{name}.bn3", inner, after)
            if block == 0:
                make.unit(f"{name}.downsample.0", f"{name}.downsample.1", width, after)
            width = after
    return WIDTHS[0], WIDTHS[-1]


def _xception_state(make: _Maker) -> tuple[int, int]:
    make.unit("backbone.conv1", "backbone.bn1", 3, 4, 3)
    make.unit("backbone.conv2", "backbone.bn2", 4, 6, 3)
    widths = [6, 8, 10, *([14] * (XCEPTION_BLOCKS - 3)), 18]
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        name = f"backbone.block{number}"
        if number <= 3 or number == XCEPTION_BLOCKS:
            make.unit(f"{name}.skip", f"{name}.skipbn", before, after)
        first = before if number == XCEPTION_BLOCKS else after
        for part, (one, two) in enumerate(((before, first), (first, after), (after, after)), start=1):
            _separable_state(make, f"{name}.sepconv{part}", one, two)
    for number, (before, after) in enumerate(((18, 20), (20, 22), (22, 24)), start=3):
        _separable_state(make, f"backbone.conv{number}", before, after)
    return 10, 24


def _separable_state(make: _Maker, name: str, before: int, after: int) -> None:
    make.unit(f"{name}.depthwise", f"{name}.bn1", before, before, 3, before)
    make.unit(f"{name}.pointwise", f"{name}.bn2", before, after)


def dpt_state(classes: int = 21, *, seed: int = 0) -> State:
    """Return weights of UniMatch V2's network: DINOv2 of four narrow layers, and DPT.

    What they compute is written out in the tests of its converter.
    """
    make, hidden, width, patch, side = _Maker(seed), 64, 8, 14, 4
    for name, *shape in (("cls_token", 1, 1), ("pos_embed", 1, 1 + side**2), ("mask_token", 1)):
        make.state[f"backbone.{name}"] = torch.zeros(*shape, hidden)
    make.biased("backbone.patch_embed.proj", 3, hidden, patch)
    norms = ["backbone.norm"]
    for block in (f"backbone.blocks.{index}" for index in range(4)):
        norms += [f"{block}.norm1", f"{block}.norm2"]
        make.state |= {f"{block}.ls{number}.gamma": torch.ones(hidden) for number in (1, 2)}
        for name, before, after in (
            ("attn.qkv", hidden, 3 * hidden),
            ("attn.proj", hidden, hidden),
            ("mlp.fc1", hidden, 4 * hidden),
            ("mlp.fc2", 4 * hidden, hidden),
        ):
            make.biased(f"{block}.{name}", before, after)
            make.state[f"{block}.{name}.weight"] = make.state[f"{block}.{name}.weight"].flatten(1)
    for norm in norms:
        make.state |= {f"{norm}.weight": torch.ones(hidden), f"{norm}.bias": torch.zeros(hidden)}
    for index, size in enumerate((4, 2, 0, 3)):
        make.biased(f"head.projects.{index}", hidden, width)
        if size:
            make.biased(f"head.resize_layers.{index}", width, width, size)
        make.convolution(f"head.scratch.layer{index + 1}_rn", width, width, 3)
        fusion = f"head.scratch.refinenet{index + 1}"
        make.biased(f"{fusion}.out_conv", width, width)
        for part in ("1.conv1", "1.conv2", "2.conv1", "2.conv2"):
            make.biased(f"{fusion}.resConfUnit{part}", width, width, 3)
    make.biased("head.scratch.output_conv.0", width, width, 3)
    make.biased("head.scratch.output_conv.2", width, classes)
    return make.state


def deeplab_logits(
    state: State,
    images: Tensor,
    *,
    stride: int = 16,
    rates: Sequence[int] = (6, 12, 18),
    multi_grid: Sequence[int] = (1, 1, 1),
) -> Tensor:
    """Return (B, K, H, W) for (B, 3, H, W), in evaluation mode."""
    if "backbone.block1.skip.weight" in state:
        low, deep = _xception(state, images)
    else:
        low, deep = _resnet(state, images, stride, multi_grid)
    branches = [_unit(state, "head.b0.0", "head.b0.1", deep)]
    for branch, rate in enumerate(rates, start=1):
        branches.append(_unit(state, f"head.b{branch}.0", f"head.b{branch}.1", deep, dilation=rate))
    pooled = _unit(state, "head.b4.gap.1", "head.b4.gap.2", F.adaptive_avg_pool2d(deep, 1))
    branches.append(_enlarge(pooled, deep))
    deep = _unit(state, "head.project.0", "head.project.1", torch.cat(branches, dim=1))
    joined = torch.cat([_unit(state, "reduce.0", "reduce.1", low), _enlarge(deep, low)], dim=1)
    joined = _unit(state, "fuse.3", "fuse.4", _unit(state, "fuse.0", "fuse.1", joined))
    logits = F.conv2d(joined, state["classifier.weight"], state["classifier.bias"])
    return _enlarge(logits, images)


def _enlarge(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _convolve(state: State, name: str, features: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    groups = features.shape[1] // weight.shape[1]
    return F.conv2d(features, weight, None, stride, weight.shape[-1] // 2 * dilation, dilation, groups)


def _normalize(state: State, name: str, features: Tensor) -> Tensor:
    mean, variance = (state[f"{name}.running_{part}"][:, None, None] for part in ("mean", "var"))
    scaled = (features - mean) / (variance + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def _unit(state: State, name: str, norm: str, features: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    return _normalize(state, norm, _convolve(state, name, features, stride, dilation)).relu()


def _resnet(state: State, images: Tensor, stride: int, multi_grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    features = _unit(state, "backbone.conv1.0", "backbone.conv1.1", images, stride=2)
    features = _unit(state, "backbone.conv1.3", "backbone.conv1.4", features)
    features = _unit(state, "backbone.conv1.6", "backbone.bn1", features)
    features = F.max_pool2d(features, 3, 2, 1)
    # Of each stage: the stride of its first block, the dilation there, and the one in the blocks behind it.
    plan = {16: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)], 8: [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)]}[stride]
    low = features
    for stage, (step, first, later) in enumerate(plan, start=1):
        for block in range(DEPTHS[stage - 1]):
            dilation = (later if block else first) * (multi_grid[block] if stage == 4 else 1)
            features = _bottleneck(state, f"backbone.layer{stage}.{block}", features, 1 if block else step, dilation)
        if stage == 1:
            low = features
    return low, features


def _bottleneck(state: State, name: str, features: Tensor, stride: int, dilation: int) -> Tensor:
    inner = _unit(state, f"{name}.conv1", f"{name}.bn1", features)
    inner = _unit(state, f"{name}.conv2", f"{name}.bn2", inner, stride, dilation)
    inner = _normalize(state, f"{name}.bn3", _convolve(state, f"{name}.conv3", inner))
    if f"{name}.downsample.0.weight" in state:
        features = _convolve(state, f"{name}.downsample.0", features, stride)
        features = _normalize(state, f"{name}.downsample.1", features)
    return (inner + features).relu()


def _xception(state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    features = _unit(state, "backbone.conv1", "backbone.bn1", images, stride=2)
    features = _unit(state, "backbone.conv2", "backbone.bn2", features)
    low = features
    for number in range(1, XCEPTION_BLOCKS + 1):
        name, stride = f"backbone.block{number}", 2 if number <= 3 else 1
        inner = features.relu()
        if f"{name}.skip.weight" in state:
            features = _normalize(state, f"{name}.skipbn", _convolve(state, f"{name}.skip", features, stride))
        else:
            # The first ReLU works in place, so that this is what their shortcut adds.
            features = inner
        for part in (1, 2):
            inner = _separable(state, f"{name}.sepconv{part}", inner if part == 1 else inner.relu())
        if number == 2:
            low = inner
        features = features + _separable(state, f"{name}.sepconv3", inner.relu(), stride)
    for number in (3, 4, 5):
        name = f"backbone.conv{number}"
        features = _unit(state, f"{name}.depthwise", f"{name}.bn1", features)
        features = _unit(state, f"{name}.pointwise", f"{name}.bn2", features)
    return low, features


def _separable(state: State, name: str, features: Tensor, stride: int = 1) -> Tensor:
    features = _normalize(state, f"{name}.bn1", _convolve(state, f"{name}.depthwise", features, stride))
    return _normalize(state, f"{name}.bn2", _convolve(state, f"{name}.pointwise", features))


def unimatch_file(path: Path, state: State, **more: State) -> Path:
    """Write what UniMatch's training script does: names as several GPUs leave them, and numpy's best mean IoU."""
    content = {"model": state, **more}
    prefixed = {entry: {f"module.{key}": value for key, value in given.items()} for entry, given in content.items()}
    rest = {"optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "epoch": 79, "previous_best": np.float64(71.2)}
    torch.save(prefixed | rest, path)
    return path
