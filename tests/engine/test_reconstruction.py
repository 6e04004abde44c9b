"""Masked and filled-in pictures: what is visible stays, what is masked comes from the decoder and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s4mim_hf.engine.reconstruction import Reconstruction, Reconstructor, to_pixel_values
from s4mim_hf.methods import S4MIMMethodConfig
from s4mim_hf.methods.s4mim_config import MaskingConfig, ReconstructionConfig
from s4mim_hf.modeling import S4MIMConfig, S4MIMForSemiSupervisedSegmentation

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
GREY = np.array([128, 102, 76], dtype=np.uint8)
HEIGHT, WIDTH, PATCH, CLASSES = 40, 52, 16, 3


@pytest.fixture(scope="module")
def student() -> S4MIMForSemiSupervisedSegmentation:
    torch.manual_seed(0)
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    config = S4MIMConfig(
        backbone_config=backbone, decoder_channels=8, low_level_channels=8, mim_channels=8, mim_decoder=True,
        id2label=dict(enumerate("abc")),
    )  # fmt: skip
    return S4MIMForSemiSupervisedSegmentation(config).eval()


def reconstructor(regions: str = "class", target: str = "pixels", strategy: str = "random") -> Reconstructor:
    method = S4MIMMethodConfig(
        masking=MaskingConfig(patch_size=PATCH, ratio=0.6, strategy=strategy),
        reconstruction=ReconstructionConfig(regions=regions, target=target),
    )
    return Reconstructor(method, CLASSES, 255, MEAN, STD)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def classes(unknown_rows: int = 0) -> torch.Tensor:
    found = torch.arange(WIDTH).expand(HEIGHT, WIDTH).clone() * CLASSES // WIDTH
    found[:unknown_rows] = 255
    return found[None]


def fill(student: S4MIMForSemiSupervisedSegmentation, by: Reconstructor, prediction: torch.Tensor) -> Reconstruction:
    pixels = to_pixel_values(picture(), MEAN, STD)
    return by.reconstruct(student, pixels, by.patch_mask(classes(), 0, 0), prediction)


@pytest.mark.parametrize("regions", ["class", "image"])
@pytest.mark.parametrize("target", ["pixels", "patch_normalized"])
def test_visible_pixels_stay_and_masked_ones_are_hidden(student, regions, target) -> None:
    by = reconstructor(regions, target)
    found = fill(student, by, classes())
    hidden = by.patch_mask(classes(), 0, 0)[0, 0].numpy()
    assert 0.4 < hidden.mean() < 0.8
    np.testing.assert_array_equal(found.masked[~hidden], picture()[~hidden])
    np.testing.assert_array_equal(found.filled[~hidden], picture()[~hidden])
    assert (found.masked[hidden] == GREY).all()
    assert (found.filled[hidden] != picture()[hidden]).any()
    assert (found.class_map is None) == (regions == "image")


@pytest.mark.parametrize("target", ["pixels", "patch_normalized"])
def test_masked_pixels_are_the_decoder_s(student, target) -> None:
    """Against the model's own output, and for normalised targets a plain loop over patches."""
    by = reconstructor(target=target)
    found = fill(student, by, classes())
    mask = by.patch_mask(classes(), 0, 0)
    pixels = to_pixel_values(picture(), MEAN, STD)
    positions = torch.from_numpy(found.class_map[::4, ::4]).long()[None]
    with torch.no_grad():
        expected = student(pixels, patch_mask=mask, class_map=positions).reconstruction[0].numpy().copy()
    clean = pixels[0].numpy()
    for top in range(0, HEIGHT, PATCH):
        for left in range(0, WIDTH, PATCH):
            place = (slice(None), slice(top, top + PATCH), slice(left, left + PATCH))
            if target == "patch_normalized":
                expected[place] = expected[place] * clean[place].std() + clean[place].mean()
    shown = (expected.transpose(1, 2, 0) * STD + MEAN).clip(0, 1) * 255
    hidden = mask[0, 0].numpy()
    assert np.abs(found.filled[hidden].astype(float) - shown[hidden]).max() <= 0.51


@pytest.mark.parametrize("target", ["pixels", "patch_normalized"])
def test_what_the_decoder_does_not_cover_stays_hidden(student, target) -> None:
    by = reconstructor(target=target)
    found = fill(student, by, classes(unknown_rows=16))
    hidden = by.patch_mask(classes(), 0, 0)[0, 0].numpy()
    unknown = found.class_map == 255
    assert unknown[:16].all()
    assert not unknown[16:].any()
    assert (found.filled[hidden & unknown] == GREY).all(), "the clean patch's mean would be more than was reconstructed"


def test_masks_follow_from_seed_and_number() -> None:
    by = reconstructor()
    first = by.patch_mask(classes(), 3, 1)
    assert torch.equal(first, by.patch_mask(classes(), 3, 1))
    assert not torch.equal(first, by.patch_mask(classes(), 3, 2))
    assert not torch.equal(first, by.patch_mask(classes(), 4, 1))


def test_masks_follow_the_method_s_strategy() -> None:
    classes_of_patches = torch.arange(2).repeat_interleave(PATCH)[None, None].expand(1, 4 * PATCH, -1)
    mask = reconstructor(strategy="class_balanced").patch_mask(classes_of_patches, 0, 0)
    per_class = mask[0, 0, ::PATCH, ::PATCH].sum(dim=0).tolist()
    assert per_class == [2, 2], "0.6 of four patches each"


def test_normalised_targets_come_with_a_note() -> None:
    assert "per patch" in reconstructor(target="patch_normalized").note
    assert reconstructor(target="pixels").note == ""


@pytest.mark.parametrize("masked_features", ["keep", "token"])
@pytest.mark.parametrize("regions", ["class", "image"])
def test_the_decoder_is_asked_as_in_training(student, regions, masked_features) -> None:
    if masked_features == "token":
        torch.manual_seed(0)
        student = S4MIMForSemiSupervisedSegmentation(
            S4MIMConfig.from_dict({**student.config.to_dict(), "masked_features": "token"})
        ).eval()
        torch.nn.init.constant_(student.mim_decoder.feature_token, 2.0)
    by = reconstructor(regions)
    found = fill(student, by, classes())
    mask, pixels = by.patch_mask(classes(), 0, 0), to_pixel_values(picture(), MEAN, STD)
    hidden = torch.nn.functional.avg_pool2d(mask.float(), 4) == 1  # a patch is whole positions
    regions_seen = torch.zeros(1, HEIGHT // 4, WIDTH // 4, dtype=torch.int64)
    if regions == "class":
        regions_seen += torch.from_numpy(found.class_map[::4, ::4])
    with torch.no_grad():
        expected = student(pixels, mask, hidden, regions_seen).reconstruction[0].numpy()
    shown = (expected.transpose(1, 2, 0) * STD + MEAN).clip(0, 1) * 255
    place = mask[0, 0].numpy()
    assert np.abs(found.filled[place].astype(float) - shown[place]).max() <= 0.51
