"""Copies from the host's memory to the training device."""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy to a device, on CUDA without waiting for what is still to be computed there.

    A copy that does not wait reads its source later. CUDA keeps the source's memory until then, whoever lets go of it;
    Apple's MPS does not (pytorch/pytorch#189690, #139550), and a source that only one expression holds is garbage by
    then. So everywhere else the host waits.

    Args:
        tensor: what to copy; may be let go of at once.
        device: where to.
        dtype: another type of the copy; None: the tensor's own.
    """
    target = torch.device(device)
    return tensor.to(target, dtype, non_blocking=target.type == "cuda")
