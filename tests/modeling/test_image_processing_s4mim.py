"""The image processor against plain numpy and Pillow."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import pipeline

from s4mim_hf.modeling import (
    S4MIMConfig,
    S4MIMForSemanticSegmentation,
    S4MIMImageProcessor,
    image_processing_s4mim,
)
from s4mim_hf.modeling.image_processing_s4mim import class_map

MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def normalised(array: np.ndarray) -> np.ndarray:
    return (np.moveaxis(array.astype(np.float64), -1, 0) / 255 - MEAN) / STD


@pytest.mark.parametrize("kind", ["pil", "numpy", "numpy-first", "torch", "list", "batch"])
def test_every_kind_of_input_gives_the_same_normalised_native_size_values(kind):
    array = picture()
    first = np.moveaxis(array, -1, 0)
    given = {
        "pil": Image.fromarray(array),
        "numpy": array,
        "numpy-first": first,
        "torch": torch.from_numpy(first.copy()),
        "list": [Image.fromarray(array)],
        "batch": torch.from_numpy(first.copy())[None],
    }[kind]
    values = S4MIMImageProcessor()(given, return_tensors="pt").pixel_values
    assert values.shape == (1, 3, 20, 30)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values[0].numpy(), normalised(array), atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_any_mode_becomes_rgb(mode):
    image = Image.fromarray(picture()).convert(mode)
    values = S4MIMImageProcessor()(image, return_tensors="pt").pixel_values
    np.testing.assert_allclose(values[0].numpy(), normalised(np.asarray(image.convert("RGB"))), atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (1, 20, 30), (20, 30, 4), (4, 20, 30)])
def test_gray_and_transparent_arrays_become_rgb(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    values = S4MIMImageProcessor()(array, return_tensors="pt").pixel_values
    assert values.shape == (1, 3, 20, 30)


def test_small_pictures_are_no_channels():
    """Four rows are not four channels: arrays are channels last where both could be, tensors first."""
    array = picture(4, 5)
    for given in (array, torch.from_numpy(np.moveaxis(array, -1, 0).copy())):
        values = S4MIMImageProcessor()(given, return_tensors="pt").pixel_values
        np.testing.assert_allclose(values[0].numpy(), normalised(array), atol=1e-5)
    with pytest.raises(ValueError, match=r"\(7, 20, 30\).*channels"):
        S4MIMImageProcessor()(np.zeros((7, 20, 30)))


def test_sizes_that_differ_are_padded_right_and_below_after_normalisation():
    a, b = picture(20, 30), picture(24, 18)
    labels = [np.zeros((20, 30), np.uint8), np.ones((24, 18), np.uint8)]
    batch = S4MIMImageProcessor()([a, b], labels, return_tensors="pt")
    assert batch.pixel_values.shape == (2, 3, 24, 30)
    assert (batch.pixel_values[0, :, 20:] == 0).all()
    np.testing.assert_allclose(batch.pixel_values[1, :, :24, :18].numpy(), normalised(b), atol=1e-5)
    assert batch.labels.dtype == torch.int64
    assert (batch.labels[0, 20:] == 255).all()
    assert (batch.labels[1, :, 18:] == 255).all()
    assert (batch.labels[1, :, :18] == 1).all()


def test_sizes_that_differ_without_padding_are_one_sentence():
    with pytest.raises(ValueError, match="do_pad"):
        S4MIMImageProcessor()([picture(20, 30), picture(24, 18)], do_pad=False, return_tensors="pt")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"shortest_edge": 10}, (10, 15)),
        ({"longest_edge": 60}, (40, 60)),
        ({"height": 8, "width": 9}, (8, 9)),
        ({"shortest_edge": 100, "longest_edge": 60}, (40, 60)),
    ],
)
def test_resizing(size, expected):
    label = np.random.default_rng(0).choice([0, 3, 255], (20, 30)).astype(np.uint8)
    batch = S4MIMImageProcessor(do_resize=True, size=size)(picture(), label, return_tensors="pt")
    assert batch.pixel_values.shape[-2:] == expected
    nearest = Image.fromarray(label).resize(expected[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(batch.labels[0].numpy(), np.asarray(nearest))
    bilinear = Image.fromarray(picture()).resize(expected[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(batch.pixel_values[0].numpy(), normalised(np.asarray(bilinear)), atol=1e-5)


@pytest.mark.parametrize("kind", ["pil", "torch", "stack"])
def test_maps_of_every_kind_keep_their_ids(kind):
    label = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
    given = {"pil": Image.fromarray(label), "torch": torch.from_numpy(label), "stack": label[None]}[kind]
    batch = S4MIMImageProcessor()([picture()], given, return_tensors="pt")
    assert np.array_equal(batch.labels[0].numpy(), label)


def test_palette_masks_are_read_as_their_ids():
    label = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5), mode="P")
    label.putpalette([7, 8, 9] * 256)
    batch = S4MIMImageProcessor()(picture(4, 5), label, return_tensors="pt")
    assert batch.labels.flatten().tolist() == list(range(20))


def test_maps_of_another_size_or_shape_are_one_sentence():
    with pytest.raises(ValueError, match="must be the same"):
        S4MIMImageProcessor()(picture(), np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match=r"\(20, 30, 3\).*height, width"):
        S4MIMImageProcessor()([picture()], [picture()])


def test_steps_can_be_switched_off():
    raw = S4MIMImageProcessor(do_rescale=False, do_normalize=False)(picture(), return_tensors="pt").pixel_values
    assert np.array_equal(raw[0].numpy(), np.moveaxis(picture(), -1, 0).astype(np.float32))


def test_post_processing_resizes_logits_not_ids():
    logits = torch.randn(2, 5, 12, 10)
    maps = S4MIMImageProcessor().post_process_semantic_segmentation(
        SimpleNamespace(logits=logits), [(24, 31), (12, 10)]
    )
    large = F.interpolate(logits[:1], (24, 31), mode="bilinear", align_corners=False).argmax(1)[0]
    assert torch.equal(maps[0], large)
    assert torch.equal(maps[1], logits[1].argmax(0))
    assert maps[0].dtype == torch.int64
    plain = S4MIMImageProcessor().post_process_semantic_segmentation({"logits": logits})
    assert torch.equal(torch.stack(plain), logits.argmax(1))
    with pytest.raises(ValueError, match="1 target sizes are given for 2 images"):
        S4MIMImageProcessor().post_process_semantic_segmentation(SimpleNamespace(logits=logits), [(24, 31)])


def test_saved_and_loaded_it_is_the_same(tmp_path):
    processor = S4MIMImageProcessor(do_resize=True, size={"longest_edge": 64}, image_mean=[0.5, 0.5, 0.5], do_pad=False)
    processor.save_pretrained(tmp_path)
    assert S4MIMImageProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()


def test_larger_images_shrink_to_the_longest_side_with_their_maps(tmp_path):
    S4MIMImageProcessor(max_side=16).save_pretrained(tmp_path)
    processor = S4MIMImageProcessor.from_pretrained(tmp_path)
    assert processor.max_side == 16
    large, small = picture(20, 30), picture(16, 9)
    labels = [
        np.random.default_rng(0).choice([0, 3, 255], array.shape[:2]).astype(np.uint8) for array in (large, small)
    ]
    for given in (large, Image.fromarray(large), torch.from_numpy(np.moveaxis(large, -1, 0).copy())):
        values = processor(given, return_tensors="np").pixel_values[0]
        expected = Image.fromarray(large).resize((16, 11), Image.Resampling.LANCZOS)
        np.testing.assert_allclose(values, normalised(np.asarray(expected)), atol=1e-5)
    batch = processor([large, small], labels, return_tensors="pt")
    assert batch.pixel_values.shape == (2, 3, 16, 16)
    np.testing.assert_allclose(batch.pixel_values[1, :, :, :9].numpy(), normalised(small), atol=1e-5)
    nearest = Image.fromarray(labels[0]).resize((16, 11), Image.Resampling.NEAREST)
    assert np.array_equal(batch.labels[0, :11].numpy(), np.asarray(nearest))
    assert np.array_equal(batch.labels[1, :, :9].numpy(), labels[1])
    # For one call, and before any other resizing.
    assert processor(large, max_side=30, return_tensors="np").pixel_values.shape == (1, 3, 20, 30)
    twice = processor(large, do_resize=True, size={"height": 5, "width": 7}, do_normalize=False, return_tensors="np")
    expected = np.asarray(expected.resize((7, 5), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(np.moveaxis(twice.pixel_values[0], 0, -1), expected, atol=1e-5)
    with pytest.raises(ValueError, match="max_side is 0"):
        processor(large, max_side=0)


def test_a_processor_without_a_longest_side_says_nothing_of_it(tmp_path):
    S4MIMImageProcessor().save_pretrained(tmp_path)
    assert "max_side" not in (tmp_path / "preprocessor_config.json").read_text()


def test_class_maps_of_large_pictures_are_those_of_all_classes_at_once(monkeypatch):
    logits = torch.randn(7, 9, 12)
    whole = F.interpolate(logits[None], (40, 33), mode="bilinear", align_corners=False)[0].argmax(0)
    for at_once in (2**26, 40 * 33 * 3, 1):
        monkeypatch.setattr(image_processing_s4mim, "_SCORES_AT_ONCE", at_once)
        assert torch.equal(class_map(logits, (40, 33)), whole)


def test_the_pipeline_gives_masks_of_the_original_size():
    torch.manual_seed(0)
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    config = S4MIMConfig(backbone_config=backbone, decoder_channels=8, low_level_channels=8, id2label={0: "a", 1: "b"})
    model = S4MIMForSemanticSegmentation(config).eval()
    shapes = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(kwargs["pixel_values"].shape), with_kwargs=True
    )
    segmenter = pipeline("image-segmentation", model=model, image_processor=S4MIMImageProcessor(max_side=64))
    found = segmenter(Image.fromarray(picture(150, 200)), subtask="semantic")
    assert {one["mask"].size for one in found} == {(200, 150)}
    assert shapes == [(1, 3, 48, 64)]
