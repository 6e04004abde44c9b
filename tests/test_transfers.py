"""Copies to a device keep what they copy, and wait where the device would read a source that is gone."""

from __future__ import annotations

import pytest
import torch

from s4mim_hf.transfers import to_device


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_copy_has_the_values_and_the_type_asked_for(dtype: torch.dtype | None) -> None:
    values = torch.arange(6).view(2, 3)
    copied = to_device(values, "cpu", dtype)
    assert copied.dtype == (dtype or torch.int64)
    assert copied.tolist() == values.tolist()


class Watched(torch.Tensor):
    """Notes whether a copy was asked to wait."""

    waited: list[bool]

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.Tensor.to:
            cls.waited.append(not (kwargs or {}).get("non_blocking", False))
            return args[0]
        return super().__torch_function__(func, types, args, kwargs)


@pytest.mark.parametrize(("device", "waits"), [("cuda:0", False), ("mps", True), ("cpu", True), ("xpu", True)])
def test_only_a_copy_to_cuda_does_not_wait(device: str, waits: bool) -> None:
    Watched.waited = []
    to_device(torch.zeros(2).as_subclass(Watched), device)
    assert Watched.waited == [waits]


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator to copy to")
def test_a_source_that_is_let_go_of_at_once_arrives() -> None:
    device = torch.accelerator.current_accelerator()
    assert device is not None
    # Each source is gone before the next one takes its memory.
    copies = [to_device(torch.full((257,), float(number)), device) for number in range(200)]
    assert [copy.unique().tolist() for copy in copies] == [[float(number)] for number in range(200)]
