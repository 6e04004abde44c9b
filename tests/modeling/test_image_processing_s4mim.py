"""The image processor against plain numpy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from plain_pictures import normalised, picture
from transformers import pipeline

from s4mim_hf.data.prepared.pixels import rgb_of
from s4mim_hf.modeling import (
    S4MIMConfig,
    S4MIMForSemanticSegmentation,
    S4MIMImageProcessor,
)


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


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_any_mode_becomes_rgb(mode):
    image = Image.fromarray(picture()).convert(mode)
    values = S4MIMImageProcessor()(image, return_tensors="pt").pixel_values
    np.testing.assert_allclose(values[0].numpy(), normalised(np.asarray(image.convert("RGB"))), atol=1e-5)


def test_sixteen_bits_are_scaled_to_eight_as_in_the_prepared_data():
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    image = Image.fromarray(deep)
    assert image.mode == "I;16"
    expected = normalised(np.asarray(rgb_of(image)))
    assert expected.std() > 0.5
    for given in (image, image.convert("I"), deep, torch.from_numpy(deep)):
        np.testing.assert_allclose(S4MIMImageProcessor()(given)["pixel_values"][0], expected, atol=1e-5)
    # A mask of truth values is black and white, like Pillow's mode "1".
    white = S4MIMImageProcessor(do_normalize=False)(np.ones((2, 3), bool))["pixel_values"][0]
    np.testing.assert_allclose(white, 1.0)


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


def test_what_is_no_image_is_one_sentence(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    processor = S4MIMImageProcessor()
    with pytest.raises(ValueError, match=r"cut\.png' cannot be decoded"):
        processor(Image.open(tmp_path / "cut.png"))
    with pytest.raises(ValueError, match=r"text\.png' cannot be read"):
        processor(str(tmp_path / "text.png"))
    with pytest.raises(ValueError, match="None cannot be read"):
        processor([None])
    with pytest.raises(ValueError, match="there are no images"):
        processor([])
    with pytest.raises(ValueError, match=r"\(0, 5, 3\); it must have at least one pixel"):
        processor(np.zeros((0, 5, 3), np.uint8))


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


@pytest.mark.parametrize("size", [(8, 12), (40, 60), (20, 30)])
def test_maps_are_resized_by_nearest_neighbour_with_ids_of_any_size(size):
    ids = np.random.default_rng(2).integers(-100, 1000, (20, 30))
    processor = S4MIMImageProcessor(do_resize=True, size={"height": size[0], "width": size[1]})
    found = processor(picture(), ids)["labels"][0]
    # These sizes have no centre on the border of two pixels, where Pillow rounds either way.
    small = Image.fromarray(ids.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST)
    np.testing.assert_array_equal(found, np.asarray(small))


@pytest.mark.parametrize("do_resize", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int32])
def test_maps_of_any_type_are_padded_with_the_ignored_id(dtype, do_resize):
    ids = np.random.default_rng(2).integers(0, 2, (20, 30))
    processor = S4MIMImageProcessor(do_resize=do_resize, size={"height": 20, "width": 30}, size_divisor=32)
    found = processor(picture(), ids.astype(dtype), return_tensors="pt").labels[0].numpy()
    assert found.shape == (32, 32)
    np.testing.assert_array_equal(found[:20, :30], ids)
    assert (found[20:] == 255).all()
    assert (found[:, 30:] == 255).all()


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)),
        Image.fromarray(np.linspace(0, 9999, 12, dtype=np.float32).reshape(3, 4)),
        Image.fromarray(np.full((3, 4), np.nan, dtype=np.float32)),
        Image.fromarray(np.full((3, 4), 70000, dtype=np.int32)),
        Image.fromarray(np.full((3, 4), -1, dtype=np.int32)),
    ],
)
def test_pictures_that_would_become_black_or_white_are_refused_as_in_the_prepared_data(image):
    with pytest.raises(ValueError, match="store it with 8 or 16 bits"):
        S4MIMImageProcessor()(image)
    with pytest.raises(ValueError, match="store it with 8 or 16 bits"):
        rgb_of(image)


def test_fractions_of_the_usual_range_are_cut_to_whole_numbers_as_in_the_prepared_data():
    image = Image.fromarray(np.linspace(0, 255, 12, dtype=np.float32).reshape(3, 4))
    expected = np.asarray(rgb_of(image))
    assert expected.max() == 255
    values = S4MIMImageProcessor()(image, return_tensors="pt").pixel_values
    np.testing.assert_allclose(values[0].numpy(), normalised(expected), atol=1e-5)


def test_what_other_processors_do_is_refused():
    with pytest.raises(ValueError, match="do_center_crop is on"):
        S4MIMImageProcessor()(picture(), do_center_crop=True, crop_size=8)
    with pytest.raises(ValueError, match=r"data_format .* always \(B, 3, H, W\)"):
        S4MIMImageProcessor()(picture(), data_format="channels_last")


def test_maps_of_another_size_or_shape_are_one_sentence():
    with pytest.raises(ValueError, match="must be the same"):
        S4MIMImageProcessor()(picture(), np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match=r"\(20, 30, 3\).*height, width"):
        S4MIMImageProcessor()([picture()], [picture()])


def test_steps_can_be_switched_off():
    raw = S4MIMImageProcessor(do_rescale=False, do_normalize=False)(picture(), return_tensors="pt").pixel_values
    assert np.array_equal(raw[0].numpy(), np.moveaxis(picture(), -1, 0).astype(np.float32))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    processor = S4MIMImageProcessor(
        do_resize=True, size={"longest_edge": 64}, image_mean=[0.5, 0.5, 0.5], keep_aspect_ratio=False, size_divisor=16,
        pad_size={"height": 80, "width": 96}, max_side=128,
    )  # fmt: skip
    processor.save_pretrained(tmp_path)
    loaded = S4MIMImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert (loaded.keep_aspect_ratio, loaded.size_divisor, loaded.max_side) == (False, 16, 128)
    assert loaded(picture(), return_tensors="pt").pixel_values.shape == (1, 3, 80, 96)
    maps = loaded.post_process_semantic_segmentation({"logits": torch.randn(1, 2, 80, 96)}, [(20, 30)])
    assert maps[0].shape == (20, 30)


def test_a_processor_says_nothing_of_what_it_does_not_do(tmp_path):
    S4MIMImageProcessor().save_pretrained(tmp_path)
    written = (tmp_path / "preprocessor_config.json").read_text()
    assert not any(name in written for name in ("max_side", "keep_aspect_ratio", "size_divisor", "pad_size"))


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
