"""How much memory a forward pass holds for its backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def held_bytes(forward: Callable[[], torch.Tensor], model: nn.Module) -> int:
    """Count what autograd holds after a forward, each storage once, without the weights."""
    storages, held = {p.untyped_storage().data_ptr() for p in model.parameters()}, []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        output = forward()
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    assert output.requires_grad
    return sum(size for storage, size in sizes.items() if storage not in storages)
