from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.strong_views import StrongViewConfig
from s4mim_hf.methods import StepContext
from s4mim_hf.methods.unlabeled import draw_channel_factors, label_pixels, make_strong_view


def test_labels_are_the_most_probable_classes_without_gradient() -> None:
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    valid = torch.ones(2, 3, 5, dtype=torch.bool)
    pseudo = label_pixels(logits, valid)
    assert not pseudo.labels.requires_grad
    assert not pseudo.confidence.requires_grad
    probabilities = logits.detach().double().exp()
    probabilities = probabilities / probabilities.sum(1, keepdim=True)
    for b, i, j in valid.nonzero().tolist():
        best = max(range(4), key=lambda k, at=(b, i, j): float(probabilities[at[0], k, at[1], at[2]]))
        assert int(pseudo.labels[b, i, j]) == best
        assert float(pseudo.confidence[b, i, j]) == pytest.approx(float(probabilities[b, best, i, j]), rel=1e-6)


def test_each_strong_view_has_draws_of_its_own(batch: Batch, context: StepContext) -> None:
    assert batch.unlabeled_images is not None
    weak, config = batch.unlabeled_images, StrongViewConfig(cutmix_probability=1)

    def make(number: int, where: StepContext = context) -> tuple[torch.Tensor, torch.Tensor]:
        view = make_strong_view(weak, config, where, number)
        return view.images, view.box

    first, second, later = make(0), make(1), make(0, replace(context, step=context.step + 1))
    for image, box in (second, later):
        assert not torch.equal(image, first[0])
        assert not torch.equal(box, first[1])
    # Drawn again, in whatever order, each is as before.
    assert all(torch.equal(again, before) for again, before in zip(make(1), second, strict=True))
    assert all(torch.equal(again, before) for again, before in zip(make(0), first, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.25, 0.5])
def test_channels_are_dropped_with_their_probability_and_the_rest_makes_up_for_it(dropout: float) -> None:
    factors = draw_channel_factors(40, 500, dropout, torch.Generator().manual_seed(0))
    assert factors.dtype == torch.float32
    kept = factors > 0
    assert torch.equal(factors[kept], torch.full_like(factors[kept], 1 / (1 - dropout)))
    # Six standard deviations of a share of 20000 coins.
    assert (~kept).float().mean().item() == pytest.approx(dropout, abs=6 * (dropout * (1 - dropout) / 20000) ** 0.5)
    assert len({tuple(row) for row in kept.tolist()}) == (1 if dropout == 0 else 40)


def test_the_same_seed_drops_the_same_channels() -> None:
    def draw(seed: int) -> torch.Tensor:
        return draw_channel_factors(3, 64, 0.5, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
