"""How deep in an encoder each parameter stands, for learning rates that fall towards the input."""

from __future__ import annotations

import re

from .backbones import Backbone

_BLOCKS = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
_STAGES = re.compile(r"(?:^|\.)stages\.(\d+)\.")
# What numbers the layers in a parameter's name, from 0: blocks of a transformer, stages of a pyramid.
_LAYERS = {
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "clip_vision_model"), _BLOCKS),
    **dict.fromkeys(("resnet", "convnext", "dinov3_convnext", "segformer"), _STAGES),
    **dict.fromkeys(("swin", "mobilenet_v2"), _BLOCKS),
    "xception": re.compile(r"(?:^|\.)blocks\.(\d+)\."),
}
# A backbone's norm of a stage's output belongs to that stage, which its name counts from 1.
_OUTPUT_NORM = re.compile(r"(?:^|\.)hidden_states_norms\.stage(\d+)\.")
_BEFORE_LAYERS = ("embed", "stem", "pre_layrnorm")


def layer_numbers(backbone: Backbone) -> tuple[dict[str, int], int]:
    """Number the layers of an encoder from its input.

    Returns:
        The layer of each parameter, by its name in `backbone`: 0 for the embeddings or the stem, 1 to N for blocks or
        stages, N + 1 for what stands behind them; and N.

    Raises:
        ValueError: An encoder whose layers are not known.
    """
    pattern = _LAYERS.get(backbone.model_type)
    if pattern is None:
        raise ValueError(
            f"the layers of the backbone {backbone.model_type!r} are not known (those of {', '.join(sorted(_LAYERS))} "
            "are)"
        )
    numbers: dict[str, int] = {}
    behind: list[str] = []
    for name, _ in backbone.named_parameters():
        if found := pattern.search(name):
            numbers[name] = int(found[1]) + 1
        elif found := _OUTPUT_NORM.search(name):
            numbers[name] = int(found[1])
        elif any(part in name for part in _BEFORE_LAYERS):
            numbers[name] = 0
        else:
            behind.append(name)
    count = max(numbers.values())
    return numbers | dict.fromkeys(behind, count + 1), count


__all__ = ["layer_numbers"]
