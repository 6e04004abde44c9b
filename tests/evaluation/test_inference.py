"""Windows, scales and mirrored views against what each must be for a model that is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from s4mim_hf.evaluation.inference import InferenceConfig, center_box, predict_logits, window_starts, window_stride


class PixelWise(nn.Module):
    """A 1x1 convolution: its answer at a pixel does not depend on what surrounds it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 1).double()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        self.sizes.append(tuple(pixel_values.shape[-2:]))
        return SimpleNamespace(logits=self.layer(pixel_values))


class Lopsided(PixelWise):
    """A model whose answer depends on where in its input a pixel lies."""

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        ramp = torch.linspace(0, 1, pixel_values.shape[-1], dtype=pixel_values.dtype)
        return SimpleNamespace(logits=super().forward(pixel_values).logits * (1 + ramp))


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 23, 31, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_whole_gives_the_logits(image: Tensor) -> None:
    model = PixelWise()
    torch.testing.assert_close(predict_logits(model, image, InferenceConfig()), model(image).logits.float())


def test_low_resolution_logits_come_to_the_input_s_size(image: Tensor) -> None:
    class Coarse(PixelWise):
        def forward(self, pixel_values: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=super().forward(pixel_values).logits[..., ::4, ::4])

    expected = nn.functional.interpolate(
        Coarse()(image).logits.float(), size=(23, 31), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(predict_logits(Coarse(), image, InferenceConfig()), expected)


@pytest.mark.parametrize("window", [7, 23, 40])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.7])
def test_windows_of_a_pixelwise_model_change_nothing(image: Tensor, window: int, overlap: float) -> None:
    model = PixelWise()
    found = predict_logits(model, image, InferenceConfig(protocol="sliding_window", window=window, overlap=overlap))
    torch.testing.assert_close(found, model(image).logits.softmax(1).float())
    assert {height <= window and width <= window for height, width in model.sizes[:-1]} == {True}


def test_windows_are_averaged_where_they_overlap(image: Tensor) -> None:
    model, window, stride = Lopsided(), 10, 7
    total, counts = torch.zeros(2, 4, 23, 31), torch.zeros(23, 31)
    for top in (0, 7, 13):
        for left in (0, 7, 14, 21):
            part = model(image[..., top : top + window, left : left + window]).logits.float().softmax(1)
            total[..., top : top + window, left : left + window] += part
            counts[top : top + window, left : left + window] += 1
    found = predict_logits(model, image, InferenceConfig(protocol="sliding_window", window=window, overlap=0.3))
    torch.testing.assert_close(found, total / counts)
    assert window_starts(23, window, stride) == [0, 7, 13]


@pytest.mark.parametrize(("side", "window", "stride"), [(1, 5, 2), (5, 5, 2), (6, 5, 5), (24, 8, 8), (25, 8, 5)])
def test_window_starts_cover_a_side_and_stay_inside(side: int, window: int, stride: int) -> None:
    starts = window_starts(side, window, stride)
    covered = {position for start in starts for position in range(start, start + min(window, side))}
    assert covered == set(range(side))
    assert starts == sorted(set(starts))


def test_flip_averages_the_mirrored_view(image: Tensor) -> None:
    model = Lopsided()
    mirrored = model(image.flip(-1)).logits.float().softmax(1).flip(-1)
    expected = (model(image).logits.float().softmax(1) + mirrored) / 2
    torch.testing.assert_close(predict_logits(model, image, InferenceConfig(flip=True)), expected)


def test_scales_show_other_sizes_and_give_probabilities(image: Tensor) -> None:
    model = PixelWise()
    found = predict_logits(model, image, InferenceConfig(scales=(0.5, 1.0, 2.0), flip=True))
    assert found.shape == (2, 4, 23, 31)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 23, 31))
    assert model.sizes == [(12, 16)] * 2 + [(23, 31)] * 2 + [(46, 62)] * 2


def test_scales_of_a_constant_image_change_nothing() -> None:
    image = torch.full((1, 3, 9, 13), 0.7, dtype=torch.float64)
    model = PixelWise()
    config = InferenceConfig(protocol="sliding_window", window=6, scales=(0.5, 1.5))
    torch.testing.assert_close(predict_logits(model, image, config), model(image).logits.softmax(1).float())


@pytest.mark.parametrize("window", [5, 8, 100])
def test_centre_crop_is_cut_from_the_middle(image: Tensor, window: int) -> None:
    config = InferenceConfig(protocol="center_crop", window=window)
    rows, columns = center_box(23, 31, config)
    height, width = min(23, window), min(31, window)
    assert (rows.start, rows.stop) == ((23 - height) // 2, (23 - height) // 2 + height)
    model = PixelWise()
    found = predict_logits(model, image, config)
    assert found.shape[-2:] == (height, width)
    torch.testing.assert_close(found, model(image).logits[..., rows, columns].float())


def test_descriptions_tell_protocols_apart() -> None:
    assert InferenceConfig().describe() == "whole image at original size"
    window = InferenceConfig(protocol="sliding_window")
    assert window.describe() == "sliding window 513, overlap 1/3, at original size"
    assert (
        InferenceConfig(protocol="sliding_window", window=64, overlap=0.123).describe().split(", ")[1]
        == "overlap 0.123"
    )
    crop = InferenceConfig(protocol="center_crop", window=321, scales=(0.75, 1.0), flip=True)
    assert crop.describe() == "centre crop 321 at original size, scales 0.75 1, with flip"


@pytest.mark.parametrize(
    "wrong",
    [{"protocol": "slide"}, {"window": 0}, {"overlap": 1.0}, {"overlap": -0.1}, {"scales": ()}, {"scales": (0.0,)},
     {"scales": (float("inf"),)}, {"windows": 3}],
)  # fmt: skip
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        InferenceConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "overlap", "stride"), [(513, 1 / 3, 342), (801, 1 / 3, 534), (10, 0.25, 8), (7, 0.0, 7), (2, 0.9, 1)]
)
def test_windows_overlap_by_the_share_that_is_asked_for(window: int, overlap: float, stride: int) -> None:
    assert window_stride(window, overlap) == stride
