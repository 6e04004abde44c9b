"""Shrinking, resizing and padding of pictures, and the way back to their own sizes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from plain_pictures import normalised, picture
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict

from s4mim_hf.modeling import (
    S4MIMForSemanticSegmentation,
    S4MIMImageProcessor,
    image_processing_s4mim,
)
from s4mim_hf.modeling.image_processing_s4mim import class_map


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
    ("size", "keep", "expected"),
    [
        ({"shortest_edge": 10}, None, (10, 15)),
        ({"longest_edge": 60}, None, (40, 60)),
        ({"height": 8, "width": 9}, None, (8, 9)),
        ({"shortest_edge": 100, "longest_edge": 60}, None, (40, 60)),
        ({"shortest_edge": 10, "longest_edge": 60}, True, (10, 15)),
        ({"height": 8, "width": 9}, True, (6, 9)),
        ({"height": 8, "width": 90}, True, (8, 12)),
        ({"height": 8, "width": 9}, False, (8, 9)),
        ({"shortest_edge": 10}, False, (10, 10)),
        ({"longest_edge": 12}, False, (12, 12)),
    ],
)
def test_resizing(size, keep, expected):
    label = np.random.default_rng(0).choice([0, 3, 255], (20, 30)).astype(np.uint8)
    processor = S4MIMImageProcessor(do_resize=True, size=size, keep_aspect_ratio=keep)
    assert processor.input_size(20, 30) == expected
    batch = processor(picture(), label, return_tensors="pt")
    assert batch.pixel_values.shape[-2:] == expected
    nearest = Image.fromarray(label).resize(expected[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(batch.labels[0].numpy(), np.asarray(nearest))
    bilinear = Image.fromarray(picture()).resize(expected[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(batch.pixel_values[0].numpy(), normalised(np.asarray(bilinear)), atol=1e-5)


def test_sizes_are_those_of_transformers_where_it_has_them():
    for height, width in ((20, 30), (31, 17), (1, 1), (7, 7), (480, 640)):
        array = picture(height, width)
        for shortest, longest in ((10, None), (13, 15), (64, 70), (9, 99)):
            size = {"shortest_edge": shortest} | ({"longest_edge": longest} if longest else {})
            processor = S4MIMImageProcessor(do_resize=True, size=size)
            expected = PilBackend.resize(processor, np.moveaxis(array, -1, 0), SizeDict(**size)).shape[-2:]
            assert processor.input_size(height, width) == expected


def test_a_size_that_contradicts_itself_is_one_sentence():
    both = {"shortest_edge": 10, "longest_edge": 60}
    with pytest.raises(ValueError, match="keep_aspect_ratio is False and the size has a shortest_edge 10"):
        S4MIMImageProcessor()(picture(), do_resize=True, size=both, keep_aspect_ratio=False)
    with pytest.raises(ValueError, match="size_divisor is 0"):
        S4MIMImageProcessor(size_divisor=0)(picture())
    with pytest.raises(ValueError, match="pad_size is 16x64, but an image is 20x30"):
        S4MIMImageProcessor(pad_size={"height": 16, "width": 64})(picture())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"size_divisor": 32}, (32, 32)), ({"size_divisor": 10}, (30, 30)),
     ({"pad_size": {"height": 25, "width": 40}}, (25, 40)),
     ({"pad_size": {"height": 25, "width": 40}, "size_divisor": 16}, (32, 48))],
)  # fmt: skip
def test_padding_to_a_multiple_is_right_and_below_and_cut_off_again(fields, expected):
    processor = S4MIMImageProcessor(**fields)
    pictures = [picture(20, 30), picture(24, 18)]
    labels = [np.zeros((20, 30), np.uint8), np.ones((24, 18), np.uint8)]
    single = processor(pictures[0], labels[0], return_tensors="pt")
    assert single.pixel_values.shape[-2:] == tuple(single.labels.shape[-2:])
    assert (single.labels == 255).sum() == single.labels.numel() - 600
    batch = processor(pictures, labels, return_tensors="pt")
    assert tuple(batch.pixel_values.shape[-2:]) == tuple(batch.labels.shape[-2:]) == expected
    logits = torch.randn(2, 5, *expected)
    for index, (array, label) in enumerate(zip(pictures, labels, strict=True)):
        height, width = label.shape
        values = batch.pixel_values[index]
        np.testing.assert_allclose(values[:, :height, :width].numpy(), normalised(array), atol=1e-5)
        assert not values[:, height:].any()
        assert not values[:, :, width:].any()
        assert (batch.labels[index, :height, :width].numpy() == label).all()
        assert (batch.labels[index] == 255).sum() == batch.labels[index].numel() - label.size
    maps = processor.post_process_semantic_segmentation({"logits": logits}, [(20, 30), (24, 18)])
    assert torch.equal(maps[0], logits[0, :, :20, :30].argmax(0))
    assert torch.equal(maps[1], logits[1, :, :24, :18].argmax(0))
    unpadded = processor(pictures[0], do_pad=False, return_tensors="pt")
    assert unpadded.pixel_values.shape[-2:] == (20, 30)


def test_the_padding_of_shrunk_and_resized_pictures_is_cut_off_before_the_maps_are_enlarged():
    """A picture in which each pixel says where it is comes back at its own size, whatever lay between."""
    processor = S4MIMImageProcessor(
        max_side=200, do_resize=True, size={"height": 64, "width": 64}, keep_aspect_ratio=True, size_divisor=32,
        do_normalize=False,
    )  # fmt: skip
    sizes = [(150, 300), (90, 40)]
    ramps = []
    for height, width in sizes:
        rows, columns = np.mgrid[:height, :width]
        ramps.append(np.stack([255 * rows / height, 255 * columns / width, 0 * rows], axis=-1).astype(np.uint8))
    values = processor(ramps, return_tensors="pt").pixel_values
    assert values.shape == (2, 3, 64, 64)
    # Classes by quarters: right or left, above or below the middle.
    down, right = values[:, 0] - 0.5, values[:, 1] - 0.5
    logits = torch.stack([-down - right, -down + right, down - right, down + right], dim=1)
    for found, (height, width) in zip(
        processor.post_process_semantic_segmentation({"logits": logits}, torch.tensor(sizes)), sizes, strict=True
    ):
        quarter = 2 * (np.mgrid[:height, :width][0] >= height / 2) + (np.mgrid[:height, :width][1] >= width / 2)
        assert found.shape == (height, width)
        assert (found.numpy() != quarter).mean() < 0.06
    # A call that changes the configuration says so; without, the padding cannot be known.
    changed = {"size": {"height": 32, "width": 32}}
    assert processor.input_size(90, 40, **changed) == (32, 14)
    small = processor(ramps[1], **changed, return_tensors="pt").pixel_values
    logits = torch.randn(1, 4, *small.shape[-2:])
    (found,) = processor.post_process_semantic_segmentation({"logits": logits}, [(32, 14)], [(32, 14)])
    assert torch.equal(found, logits[0, :, :32, :14].argmax(0))
    (found,) = processor.post_process_semantic_segmentation({"logits": logits}, input_sizes=[(32, 14)])
    assert torch.equal(found, logits[0, :, :32, :14].argmax(0))
    with pytest.raises(ValueError, match="input size 33x14 is larger than the logits, 32x32"):
        processor.post_process_semantic_segmentation({"logits": logits}, input_sizes=[(33, 14)])


def test_the_smallest_picture_keeps_its_size(make_config):
    processor = S4MIMImageProcessor(do_resize=True, size={"shortest_edge": 2}, size_divisor=8, max_side=1)
    model = S4MIMForSemanticSegmentation(make_config()).eval()
    for given in (Image.new("RGB", (1, 1)), np.zeros((1, 1, 3), np.uint8), torch.zeros(3, 1, 1, dtype=torch.uint8)):
        inputs = processor(given, return_tensors="pt")
        assert inputs.pixel_values.shape == (1, 3, 8, 8)
        with torch.no_grad():
            (found,) = processor.post_process_semantic_segmentation(model(**inputs), [(1, 1)])
        assert found.shape == (1, 1)


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


def test_class_maps_of_large_pictures_are_those_of_all_classes_at_once(monkeypatch):
    logits = torch.randn(7, 9, 12)
    whole = F.interpolate(logits[None], (40, 33), mode="bilinear", align_corners=False)[0].argmax(0)
    for at_once in (2**26, 40 * 33 * 3, 1):
        monkeypatch.setattr(image_processing_s4mim, "_SCORES_AT_ONCE", at_once)
        assert torch.equal(class_map(logits, (40, 33)), whole)
