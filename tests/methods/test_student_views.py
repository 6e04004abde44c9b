from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from s4mim_hf.methods.base import NormalizationConfig
from s4mim_hf.methods.student_views import MaskedRows, Views
from s4mim_hf.modeling.normalization import ViewGroup

StudentBuilder = Callable[..., torch.nn.Module]


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def masked_rows(count: int) -> MaskedRows:
    patch_mask = torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(9)) < 0.5
    return MaskedRows(patch_mask, patch_mask[..., ::4, ::4], torch.zeros(count, 8, 8, dtype=torch.int64))


def test_groups_follow_the_views_and_only_the_named_ones_move_running_statistics() -> None:
    views = Views(NormalizationConfig())
    views.add("labeled", images(3, 0))
    views.add("strong", images(2, 1))
    views.add_masked(images(4, 2), masked_rows(4))
    assert views.groups() == [ViewGroup(3, True), ViewGroup(2, True), ViewGroup(4, False)]
    assert Views(NormalizationConfig(statistics="together")).groups() is None


def test_one_forward_gives_each_view_what_it_gets_alone(build_student: StudentBuilder) -> None:
    student = build_student()
    alone = {name: student(images(count, seed)).logits for name, count, seed in (("labeled", 3, 0), ("strong", 2, 1))}
    views = Views(NormalizationConfig())
    views.add("labeled", images(3, 0))
    views.add("strong", images(2, 1))
    views.add_masked(images(4, 2), masked_rows(4))
    output = views.forward(student)
    for name, logits in alone.items():
        torch.testing.assert_close(output.logits[name], logits, atol=1e-5, rtol=1e-4)  # type: ignore[index]
    assert output.logits["masked"].shape[0] == 4
    assert output.features is not None
    assert output.features.shape == (4, 12, 8, 8)
    assert output.reconstruction is not None
    assert output.reconstruction.shape == (4, 3, 32, 32)


def test_without_masked_images_there_is_nothing_of_them(build_student: StudentBuilder) -> None:
    views = Views(NormalizationConfig())
    views.add("labeled", images(3, 0))
    output = views.forward(build_student())
    assert output.features is None
    assert output.reconstruction is None


def test_masked_images_stay_the_last_rows() -> None:
    views = Views(NormalizationConfig())
    views.add_masked(images(2, 0), masked_rows(2))
    with pytest.raises(ValueError, match="must be the last rows"):
        views.add("labeled", images(2, 1))
    with pytest.raises(ValueError, match="added already"):
        views.add_masked(images(2, 0), masked_rows(2))
