"""A visitor's mask, filled in as the run's own panels are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from s4mim_hf.demo.heads import ReconstructionHead, fill_in
from s4mim_hf.demo.models import open_model
from s4mim_hf.engine.reconstruction import Reconstructor, to_pixel_values
from s4mim_hf.methods.s4mim_config import ReconstructionConfig

HEIGHT, WIDTH = 48, 64
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
IDS = (np.arange(2 * WIDTH)[None].repeat(2 * HEIGHT, axis=0) * 3 // (2 * WIDTH)).astype(np.uint8)
ASKED = {"ratio": 0.5, "patch_size": 8, "seed": 1}


@pytest.fixture(scope="module")
def head(run_folder: Path) -> ReconstructionHead:
    found = open_model(str(run_folder)).head
    assert found is not None
    return found


def hidden_by(head: ReconstructionHead, **asked: float) -> np.ndarray:
    return (fill_in(head, IMAGE, IDS, **{**ASKED, **asked}).masked != IMAGE).any(axis=2)


def test_visible_pixels_stay_and_hidden_ones_are_filled(head) -> None:
    found = fill_in(head, IMAGE, IDS, **ASKED)
    hidden = (found.masked != IMAGE).any(axis=2)
    np.testing.assert_array_equal(found.image, IMAGE)
    np.testing.assert_array_equal(found.filled[~hidden], IMAGE[~hidden])
    assert (found.filled[hidden] != found.masked[hidden]).any(axis=1).mean() > 0.9
    # A class map of a larger picture, at the centres of the pixels, in squares of the decoder's stride.
    np.testing.assert_array_equal(np.unique(found.class_map), [0, 1, 2])
    assert found.class_map.shape == (HEIGHT, WIDTH)


def test_ratio_patch_and_seed_are_the_visitor_s(head) -> None:
    for ratio in (0.25, 0.75):
        assert hidden_by(head, ratio=ratio).mean() == pytest.approx(ratio, abs=0.03)
    for patch in (8, 16):
        blocks = hidden_by(head, patch_size=patch).reshape(HEIGHT // patch, patch, WIDTH // patch, patch).mean((1, 3))
        # A pixel of the mean colour by chance looks visible.
        assert set(blocks.round(1).flatten()) == {0, 1}
    assert (hidden_by(head) == hidden_by(head)).all()
    assert (hidden_by(head, seed=2) != hidden_by(head)).any()


@pytest.mark.parametrize("target", ["pixels", "patch_normalized"])
def test_what_is_filled_in_is_what_the_run_s_panels_show(head, target) -> None:
    """The decoder's numbers are read by the patches that it learned on, whatever patches are masked."""
    head = replace(head, method=replace(head.method, reconstruction=ReconstructionConfig(target=target)))
    found = fill_in(head, IMAGE, IDS, **ASKED)
    learned = Reconstructor(head.method, head.student.config.num_labels, 255, head.mean, head.std)
    mask = torch.from_numpy((found.masked != IMAGE).any(axis=2))[None, None]
    blocks = mask.view(1, 1, HEIGHT // 8, 8, WIDTH // 8, 8).float().mean((3, 5)) > 0.5
    mask = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    ids = torch.from_numpy(IDS[1::2, 1::2].astype(np.int64))[None]
    expected = learned.reconstruct(head.student, to_pixel_values(IMAGE, head.mean, head.std), mask, ids)
    np.testing.assert_array_equal(found.filled, expected.filled)
    np.testing.assert_array_equal(found.masked, expected.masked)
    assert bool(head.notes) == (target == "patch_normalized")


def test_one_region_shows_the_classes_of_the_pixels(head) -> None:
    together = replace(head, method=replace(head.method, reconstruction=ReconstructionConfig(regions="image")))
    np.testing.assert_array_equal(fill_in(together, IMAGE, IDS, **ASKED).class_map, IDS[1::2, 1::2])
