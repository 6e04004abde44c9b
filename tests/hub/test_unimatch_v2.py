"""UniMatch V2's weights: the converted model's logits are those of its network, written out here in plain functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from s4mim_hf.errors import InputError
from s4mim_hf.hub.conversion.unimatch_v2 import convert
from s4mim_hf.modeling import S4MIMForSemanticSegmentation

PATCH, SIDE, CLASSES, FEATURES = 14, 4, 5, 12
PROJECTED = (8, 12, 16, 24)
State = dict[str, Tensor]


def published(hidden: int = 64, depth: int = 4, swiglu: bool = False) -> State:
    """Make random weights by the names and shapes of the published network."""
    draws = torch.Generator().manual_seed(depth)
    state: State = {}

    def add(name: str, *shape: int, bias: bool = True, mean: float = 0.0) -> None:
        fan_in = max(1, torch.Size(shape[1:]).numel())
        state[f"{name}.weight"] = mean + torch.randn(*shape, generator=draws) / fan_in**0.5
        if bias:
            outputs = shape[1] if "resize_layers.0" in name or "resize_layers.1" in name else shape[0]
            state[f"{name}.bias"] = 0.3 * torch.randn(outputs, generator=draws)

    for name, *shape in (("cls_token", 1, 1), ("pos_embed", 1, 1 + SIDE**2), ("mask_token", 1)):
        state[f"backbone.{name}"] = torch.randn(*shape, hidden, generator=draws)
    add("backbone.patch_embed.proj", hidden, 3, PATCH, PATCH)
    add("backbone.norm", hidden, mean=1.0)
    widened = (int(hidden * 4 * 2 / 3) + 7) // 8 * 8
    for block in (f"backbone.blocks.{index}" for index in range(depth)):
        for number in "12":
            add(f"{block}.norm{number}", hidden, mean=1.0)
            state[f"{block}.ls{number}.gamma"] = torch.randn(hidden, generator=draws)
        add(f"{block}.attn.qkv", 3 * hidden, hidden)
        add(f"{block}.attn.proj", hidden, hidden)
        first, second, width = ("w12", "w3", 2 * widened) if swiglu else ("fc1", "fc2", 4 * hidden)
        add(f"{block}.mlp.{first}", width, hidden)
        add(f"{block}.mlp.{second}", hidden, widened if swiglu else width)
    for index, count in enumerate(PROJECTED):
        add(f"head.projects.{index}", count, hidden, 1, 1)
        add(f"head.scratch.layer{index + 1}_rn", FEATURES, count, 3, 3, bias=False)
        for part in ("resConfUnit1.conv1", "resConfUnit1.conv2", "resConfUnit2.conv1", "resConfUnit2.conv2"):
            add(f"head.scratch.refinenet{index + 1}.{part}", FEATURES, FEATURES, 3, 3)
        add(f"head.scratch.refinenet{index + 1}.out_conv", FEATURES, FEATURES, 1, 1)
    for index, size in ((0, 4), (1, 2), (3, 3)):
        add(f"head.resize_layers.{index}", PROJECTED[index], PROJECTED[index], size, size)
    add("head.scratch.output_conv.0", FEATURES, FEATURES, 3, 3)
    add("head.scratch.output_conv.2", CLASSES, FEATURES, 1, 1)
    return state


def encode(state: State, images: Tensor, layers: list[int]) -> list[Tensor]:
    """DINOv2 by its original names: the normalised patch tokens after some layers, counted from 0, as maps."""
    rows, columns = (side // PATCH for side in images.shape[-2:])

    def linear(name: str, values: Tensor) -> Tensor:
        return F.linear(values, state[f"backbone.{name}.weight"], state[f"backbone.{name}.bias"])

    def norm(name: str, values: Tensor) -> Tensor:
        weight, bias = state[f"backbone.{name}.weight"], state[f"backbone.{name}.bias"]
        return F.layer_norm(values, values.shape[-1:], weight, bias, eps=1e-6)

    project = state["backbone.patch_embed.proj.weight"], state["backbone.patch_embed.proj.bias"]
    patches = F.conv2d(images, *project, stride=PATCH).flatten(2).mT
    positions = state["backbone.pos_embed"]
    if (rows, columns) != (SIDE, SIDE):
        grid = positions[:, 1:].mT.unflatten(2, (SIDE, SIDE))
        # A tenth of a patch too many, and the size that this rounds down to.
        grid = F.interpolate(grid, scale_factor=((rows + 0.1) / SIDE, (columns + 0.1) / SIDE), mode="bicubic")
        positions = torch.cat([positions[:, :1], grid.flatten(2).mT], 1)
    tokens = torch.cat([state["backbone.cls_token"].expand(len(images), -1, -1), patches], 1) + positions
    maps, depth = [], 1 + max(int(name.split(".")[2]) for name in state if name.startswith("backbone.blocks."))
    for index in range(depth):
        block = f"blocks.{index}"
        mixed = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", tokens)).unflatten(2, (3, -1, 64))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        shares = (query @ key.mT / 64**0.5).softmax(-1)
        attended = linear(f"{block}.attn.proj", (shares @ value).transpose(1, 2).flatten(2))
        tokens = tokens + state[f"backbone.{block}.ls1.gamma"] * attended
        hidden = norm(f"{block}.norm2", tokens)
        if f"backbone.{block}.mlp.w12.weight" in state:
            gate, values = linear(f"{block}.mlp.w12", hidden).chunk(2, -1)
            hidden = linear(f"{block}.mlp.w3", F.silu(gate) * values)
        else:
            hidden = linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", hidden)))
        tokens = tokens + state[f"backbone.{block}.ls2.gamma"] * hidden
        if index in layers:
            maps.append(norm("norm", tokens)[:, 1:].mT.unflatten(2, (rows, columns)))
    return maps


def segment(state: State, images: Tensor, layers: list[int]) -> Tensor:
    """Return the published network's logits, for images whose sides are multiples of 14."""

    def convolve(name: str, values: Tensor, **how: int) -> Tensor:
        return F.conv2d(values, state[f"head.{name}.weight"], state.get(f"head.{name}.bias"), **how)

    def unit(name: str, values: Tensor) -> Tensor:
        inner = convolve(f"{name}.conv1", values.relu(), padding=1)
        return values + convolve(f"{name}.conv2", inner.relu(), padding=1)

    def enlarge(values: Tensor, size: tuple[int, ...]) -> Tensor:
        return F.interpolate(values, size, mode="bilinear", align_corners=True)

    maps = [convolve(f"projects.{index}", one) for index, one in enumerate(encode(state, images, layers))]
    for index, stride in ((0, 4), (1, 2)):
        weights = (state[f"head.resize_layers.{index}.{part}"] for part in ("weight", "bias"))
        maps[index] = F.conv_transpose2d(maps[index], *weights, stride=stride)
    maps[3] = convolve("resize_layers.3", maps[3], stride=2, padding=1)
    maps = [convolve(f"scratch.layer{index + 1}_rn", one, padding=1) for index, one in enumerate(maps)]
    path = torch.zeros(())
    for index in (3, 2, 1, 0):
        block = f"scratch.refinenet{index + 1}"
        path = maps[3] if index == 3 else path + unit(f"{block}.resConfUnit1", maps[index])
        size = tuple(maps[index - 1].shape[2:]) if index else tuple(2 * side for side in maps[0].shape[2:])
        path = convolve(f"{block}.out_conv", enlarge(unit(f"{block}.resConfUnit2", path), size))
    logits = convolve("scratch.output_conv.2", convolve("scratch.output_conv.0", path, padding=1).relu())
    return enlarge(logits, tuple(images.shape[2:]))


def converted(state: State) -> S4MIMForSemanticSegmentation:
    config, weights = convert(state)
    model = S4MIMForSemanticSegmentation(config).eval()
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ({}, [0, 1, 2, 3]),
        ({"hidden": 128, "depth": 8}, [1, 3, 5, 7]),
        ({"depth": 24}, [4, 11, 17, 23]),
        ({"swiglu": True}, [0, 1, 2, 3]),
    ],
)
def test_logits_are_those_of_the_published_network(kind: dict[str, int], layers: list[int]) -> None:
    state = published(**kind)
    model = converted({f"module.{name}": tensor for name, tensor in state.items()})
    assert model.config.dpt_layers == [layer + 1 for layer in layers]
    assert (model.config.num_labels, model.config.decoder_channels) == (CLASSES, FEATURES)
    # At the pretraining's own size, and at others whose position embeddings are resized.
    for size in ((56, 56), (70, 98), (28, 42))[2 * (len(state) > 300) :]:
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, found = segment(state, images, layers), model(images).logits
        assert expected.std((2, 3)).mean() > 0.1
        assert (found - expected).abs().max() < 1e-5


def test_what_does_not_fit_is_one_sentence() -> None:
    state = published()
    lacking = {name: tensor for name, tensor in state.items() if name != "backbone.blocks.2.attn.proj.bias"}
    bent = {**state, "head.scratch.layer2_rn.weight": torch.zeros(FEATURES, 7, 3, 3)}
    for given, sentence in (
        ({}, "lacks backbone.pos_embed"),
        ({"backbone.conv1.weight": torch.zeros(1)}, "lacks backbone.pos_embed.*name the method"),
        (lacking, r"lacks backbone\.blocks\.2\.attn\.proj\.bias"),
        (bent, r"layer2_rn\.weight has the shape \(12, 7, 3, 3\)"),
        ({**state, "proj.0.weight": torch.zeros(1)}, r"holds 1 tensors that .* \(proj\.0\.weight\)"),
        ({**state, "backbone.pos_embed": torch.zeros(1, 18, 64)}, "17 patches, which is no DINOv2"),
    ):
        with pytest.raises(InputError, match=sentence):
            convert(given)
