"""Processors of transformers that cut out the centre: maps are of the whole picture, in prediction and on the page."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from predicting import NAMES, PALETTE, Brightest, listed, outcomes, predictor, probabilities
from transformers import MobileNetV2ImageProcessor, MobileViTImageProcessor

from s4mim_hf.demo.looking import segment
from s4mim_hf.demo.models import DemoModel
from s4mim_hf.evaluation.inference import whole_pictures

SIZE = (24, 40)


def processors() -> list[Any]:
    """Return both, with pictures at their own size and as channels in 0 .. 1, but for the centre that they cut out."""
    options: dict[str, Any] = {"size": {"shortest_edge": SIZE[0]}, "crop_size": {"height": 16, "width": 16}}
    return [
        MobileNetV2ImageProcessor(do_normalize=False, **options),
        MobileViTImageProcessor(do_flip_channel_order=False, **options),
        MobileViTImageProcessor(do_flip_channel_order=True, **options),
    ]


@pytest.mark.parametrize("processor", processors(), ids=["mobilenet_v2", "mobilevit", "mobilevit, BGR"])
def test_nothing_is_cut_away(processor: Any) -> None:
    assert processor.do_center_crop, "as they are by default"
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    seen = pixels[..., ::-1] if getattr(processor, "do_flip_channel_order", None) else pixels
    expected = probabilities(seen)
    good, bad, _ = outcomes(listed([("x", buffer.getvalue())]), predictor(processor=processor))
    assert bad == {}
    np.testing.assert_array_equal(good["x"].label, expected.argmax(axis=-1))
    np.testing.assert_allclose(good["x"].confidence, expected.max(axis=-1), atol=1e-5)
    model = DemoModel("x", "x", Brightest(), processor, tuple(NAMES.values()), PALETTE)  # type: ignore[arg-type]
    ids, confidence = segment(model, pixels, SIZE, SIZE)
    np.testing.assert_array_equal(ids, expected.argmax(axis=-1))
    assert np.abs(confidence / 255 - expected.max(axis=-1)).max() <= 0.5 / 255 + 1e-5
    assert processor.do_center_crop, "for the call alone"


def test_other_processors_are_told_nothing() -> None:
    def strict(images: list[Image.Image], return_tensors: str) -> dict[str, torch.Tensor]:
        assert return_tensors == "pt"
        return {"pixel_values": torch.stack([torch.from_numpy(np.array(image)) for image in images])}

    assert whole_pictures(strict, [Image.new("RGB", (3, 2))] * 4).shape == (4, 2, 3, 3)
