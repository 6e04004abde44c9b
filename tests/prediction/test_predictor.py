"""What the model says of an image: class maps and confidences against softmax; what cannot be predicted, and why."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from predicting import Brightest, listed, noise, outcomes, picture, plain_processor, predictor, probabilities
from torch import Tensor, nn

from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.inference import InferenceConfig
from s4mim_hf.prediction import scores as scores_module
from s4mim_hf.prediction.scores import classes_and_confidence
from s4mim_hf.prediction.sources import open_images


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("at_once", [2**26, 2 * 31 * 17])
@pytest.mark.parametrize("size", [(17, 31), (9, 14)])
def test_confidence_is_the_softmax_of_what_the_processor_takes_the_class_of(
    at_once: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores_module, "_SCORES_AT_ONCE", at_once)
    logits = 4 * torch.randn(5, 9, 14, generator=torch.Generator().manual_seed(0))
    ids, confidence = classes_and_confidence(logits, size, probabilities=False)
    outputs = SimpleNamespace(logits=logits[None])
    assert torch.equal(ids, plain_processor().post_process_semantic_segmentation(outputs, [size])[0])
    enlarged = F.interpolate(logits[None].double(), size, mode="bilinear", align_corners=False)[0]
    expected = enlarged.softmax(dim=0).amax(dim=0)
    torch.testing.assert_close(confidence.double(), expected, atol=1e-5, rtol=0)
    ids, confidence = classes_and_confidence(logits.softmax(dim=0), size, probabilities=True)
    enlarged = F.interpolate(logits[None].softmax(dim=1), size, mode="bilinear", align_corners=False)[0]
    assert torch.equal(ids, enlarged.argmax(dim=0))
    torch.testing.assert_close(confidence, enlarged.amax(dim=0))


@pytest.mark.parametrize("protocol", ["whole", "sliding_window"])
def test_predictions_are_what_numpy_gets(protocol: str) -> None:
    pixels = noise(0)
    by = predictor(inference=InferenceConfig(protocol=protocol, window=7))  # type: ignore[arg-type]
    good, bad, _ = outcomes(listed([("x", png(pixels))]), by)
    expected = probabilities(pixels)
    assert bad == {}
    np.testing.assert_array_equal(good["x"].label, expected.argmax(axis=-1))
    np.testing.assert_allclose(good["x"].confidence, expected.max(axis=-1), atol=1e-5)
    assert (good["x"].label.dtype, good["x"].confidence.dtype) == (np.uint8, np.float32)


def test_a_photo_above_the_models_longest_side_gets_a_map_of_its_own_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture(tmp_path / "photo.jpg", size=(400, 300), channel=2, exif=exif)
    picture(tmp_path / "small.png", size=(31, 17), channel=1)
    model, seen = Brightest(), []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].shape[-2:])))
    source = open_images([str(tmp_path)], Path("/nowhere"))
    good, _, _ = outcomes(source, predictor(model, plain_processor(max_side=40)))
    assert seen == [(40, 30), (17, 31)]
    assert good["photo"].pixels.shape == (400, 300, 3)
    assert good["photo"].label.shape == good["photo"].confidence.shape == (400, 300)
    assert (good["photo"].label == 2).mean() > 0.99
    assert (good["small"].label == 1).all()
    resizing = plain_processor(do_resize=True, size={"height": 8, "width": 8})
    assert outcomes(source, predictor(None, resizing))[0]["small"].label.shape == (17, 31)


def test_padding_is_cut_off_again() -> None:
    pixels = noise(0, 13, 17)
    model, seen = Brightest(), []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].shape[-2:])))
    good, _, _ = outcomes(listed([("x", png(pixels))]), predictor(model, plain_processor(size_divisor=8)))
    assert seen == [(16, 24)]
    np.testing.assert_array_equal(good["x"].label, probabilities(pixels).argmax(axis=-1))


def test_images_of_one_size_share_a_batch() -> None:
    model = Brightest()
    source = listed((f"{number}", png(noise(number, 12 + number % 2))) for number in range(6))
    together, _, _ = outcomes(source, predictor(model, batch_size=3))
    assert model.calls == 2
    alone, _, _ = outcomes(source, predictor())
    assert all((together[name].label == alone[name].label).all() for name in alone)


def test_unreadable_images_are_told_and_the_others_predicted(tmp_path: Path) -> None:
    whole = png(noise(0, 64, 64))
    # The size stands in the header, from the ninth byte of the first chunk on, and has a checksum.
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + whole[24:29]
    huge = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    for name, data in {"good": whole, "cut": whole[:60], "text": b"not a picture", "empty": b"", "huge": huge}.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    (tmp_path / "gone.png").write_bytes(whole)
    source = open_images([str(tmp_path)], Path("/nowhere"))
    (tmp_path / "gone.png").unlink()
    good, bad, _ = outcomes(source, predictor(batch_size=2))
    assert list(good) == ["good"]
    assert sorted(bad) == ["cut", "empty", "gone", "huge", "text"]
    assert bad["text"] == "this is no image that Pillow can read"
    assert all(reason and "\n" not in reason for reason in bad.values())


class Choosy(nn.Module):
    """Takes no picture below 4 pixels a side, has memory for 20, and a bug at 13."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        side = pixel_values.shape[-1]
        if side < 4:
            raise ValueError("give at least 4 pixels a side")
        if side > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
        if side == 13:
            raise RuntimeError("shapes do not fit")
        return SimpleNamespace(logits=pixel_values * self.scale)


def test_what_the_model_cannot_take_is_told_and_bugs_are_not_hidden() -> None:
    sizes = {"tiny": 1, "fits": 9, "other": 9, "large": 30}
    source = listed((name, png(noise(side, side, side))) for name, side in sizes.items())
    good, bad, _ = outcomes(source, predictor(Choosy(), batch_size=2))
    assert sorted(good) == ["fits", "other"]
    assert bad["tiny"] == "the model cannot take its 1x1 pixels: give at least 4 pixels a side"
    assert bad["large"].startswith("the model cannot take its 30x30 pixels: DefaultCPUAllocator")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        outcomes(listed([("x", png(noise(0, 13, 13)))]), predictor(Choosy()))


def test_what_is_not_to_be_predicted_is_left_out() -> None:
    source = listed([("a", png(noise(0))), ("b", png(noise(1)))])
    model = Brightest()
    good, bad, out = outcomes(source, predictor(model, leaves_out=lambda data: data == png(noise(0))))
    assert (list(good), bad, out, model.calls) == (["b"], {}, ["a"], 1)


def test_too_many_classes_and_no_batch_are_refused() -> None:
    with pytest.raises(InputError, match="257 classes"):
        predictor().__class__(Brightest(), None, InferenceConfig(), classes=257)
    with pytest.raises(InputError, match="batch size is 0"):
        predictor(batch_size=0)
