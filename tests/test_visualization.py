"""Pictures have the colours, sizes and parts that they promise; how they look is for eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4mim_hf.visualization import PanelRow, colorize, draw_curves, draw_grid, draw_panels, legend, overlay, with_legend

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]
ID2LABEL = {0: "sky", 1: "road", 2: "grass"}


@pytest.fixture
def label() -> np.ndarray:
    found = np.random.default_rng(0).integers(0, 3, (40, 60))
    found[:10, :10] = 255
    return found


def test_classes_get_their_colours_and_ignored_pixels_none(label: np.ndarray) -> None:
    picture = colorize(label, PALETTE)
    assert picture.dtype == np.uint8
    for index, color in enumerate(PALETTE):
        assert (picture[label == index] == color).all()
    hatched = np.unique(picture[label == 255], axis=0)
    assert hatched.tolist() == [[190] * 3, [255] * 3], "white, hatched with grey"
    assert (colorize(np.array([[7, -1]]), PALETTE) >= 190).all(), "an id without a colour looks ignored"


def test_overlay_mixes_by_its_opacity_and_leaves_ignored_pixels(label: np.ndarray) -> None:
    image = np.full((40, 60, 3), 100, dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, label, PALETTE, opacity=0), image)
    solid = overlay(image, label, PALETTE, opacity=1)
    np.testing.assert_array_equal(solid[label != 255], colorize(label, PALETTE)[label != 255])
    half = overlay(image, label, PALETTE, opacity=0.5)
    assert (half[label == 1] == (150, 50, 50)).all()
    assert (half[label == 255] == 100).all()
    with pytest.raises(ValueError, match=r"\(40, 60\)"):
        overlay(image, label[1:], PALETTE)


def test_legend_keeps_its_width_and_grows_in_lines() -> None:
    wide, narrow = (legend(ID2LABEL, PALETTE, width, [0, 1, 2, 255]) for width in (600, 90))
    assert (wide.shape[1], narrow.shape[1]) == (600, 90)
    assert narrow.shape[0] > wide.shape[0]
    for color in PALETTE:
        assert (wide == color).all(-1).any()
    shortened = legend({0: "n" * 500}, PALETTE, 100, [0])
    assert shortened.shape == legend({0: "n"}, PALETTE, 100, [0]).shape


def test_the_legend_names_only_classes_that_are_there(label: np.ndarray) -> None:
    picture = with_legend(np.zeros((40, 60, 3), dtype=np.uint8), np.zeros((40, 60)), ID2LABEL, PALETTE)
    assert picture.shape[1] == 160
    assert (picture[40:] == PALETTE[0]).all(-1).any()
    assert not (picture == PALETTE[1]).all(-1).any()


def test_panels_leave_out_columns_that_no_row_has(label: np.ndarray, tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    draw_panels([PanelRow(image, label, label)], ID2LABEL, PALETTE, tmp_path / "three.png")
    full = PanelRow(image, label, label, image, image)
    draw_panels([full, PanelRow(image, None, label)], ID2LABEL, PALETTE, tmp_path / "five.png")
    with_map = PanelRow(image, label, label, image, image, class_map=label)
    draw_panels([with_map, full], ID2LABEL, PALETTE, tmp_path / "six.png")
    sizes = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            sizes[path.name] = picture.size
    assert {name: (width - 6) / 326 for name, (width, _) in sizes.items()} == {
        "three.png": 3,
        "five.png": 5,
        "six.png": 6,
    }
    assert sizes["five.png"][1] > sizes["three.png"][1]


def test_a_grid_paints_maps_keeps_shapes_and_says_its_note(tmp_path: Path) -> None:
    wide, tall = np.full((20, 40, 3), 77, dtype=np.uint8), np.full((40, 20, 3), 99, dtype=np.uint8)
    rows = [{"a": wide, "b": np.full((20, 40), 1)}, {"a": tall, "b": None}]
    for name, note in {"plain.png": "", "noted.png": "what must be said"}.items():
        draw_grid(rows, ID2LABEL, PALETTE, tmp_path / name, note=note)
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "noted.png") as noted:
        pixels = np.array(plain)
        assert noted.height > plain.height
        np.testing.assert_array_equal(np.array(noted)[: plain.height], pixels)
    top, cell, gap = 32, 320, 6
    assert (pixels[top : top + 160, gap : gap + cell] == 77).all()
    assert (pixels[top + 166 : top + 166 + 640, gap : gap + cell] == 99).all()
    assert (pixels[top : top + 160, 2 * gap + cell : 2 * (gap + cell)] == PALETTE[1]).all()
    assert (pixels[top + 166 : top + 166 + 640, 2 * gap + cell :] == 255).all(), "an empty cell"
    legend_part = pixels[top + 166 + 640 :]
    assert (legend_part == PALETTE[1]).all(-1).any()
    assert not (legend_part == PALETTE[0]).all(-1).any()


def test_curves_take_gaps_zeros_and_nothing(tmp_path: Path) -> None:
    records = [
        {"step": 1, "kind": "train", "loss": 1.0, "loss_supervised": 0.0, "learning_rate": 0.1},
        {"step": 2, "kind": "train", "loss": None, "loss_supervised": 0.4},
        {"step": 2, "kind": "evaluation", "teacher_mean_iou": 0.5, "student_mean_iou": None, "protocol": "whole"},
    ]
    for name, given in {"some.png": records, "none.png": []}.items():
        draw_curves(given, tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000
