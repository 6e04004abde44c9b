"""Pictures and legend follow what is chosen, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s4mim_hf.demo.looking import Look, Segmentation
from s4mim_hf.demo.markup import note, problem, swatches, title
from s4mim_hf.demo.models import DemoModel
from s4mim_hf.demo.views import (
    confidence_colors,
    confidence_in_words,
    confidence_picture,
    disagreement_picture,
    legend_entries,
    overlay_of,
    percent,
)

PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
IMAGE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
IDS = np.arange(9, dtype=np.uint8)[None].repeat(6, axis=0) // 3


def segmentation(*shares: float, confidence: np.ndarray = IDS) -> Segmentation:
    return Segmentation(IDS, confidence, shares, Path("x.png"))


def model(*classes: str) -> DemoModel:
    return DemoModel("x", "x", None, None, classes, PALETTE)  # type: ignore[arg-type]  # no network is asked


def test_only_chosen_classes_are_painted() -> None:
    found = overlay_of(IMAGE, IDS, PALETTE, {0, 2}, 0.4)
    np.testing.assert_array_equal(found[:, 3:6], IMAGE[:, 3:6])
    for class_id, columns in ((0, slice(0, 3)), (2, slice(6, 9))):
        expected = 0.6 * IMAGE[:, columns] + 0.4 * np.array(PALETTE[class_id])
        assert np.abs(found[:, columns] - expected).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(overlay_of(IMAGE, IDS, PALETTE, {0, 1, 2}, 0), IMAGE)
    np.testing.assert_array_equal(overlay_of(IMAGE, IDS, PALETTE, set(), 1), IMAGE)
    np.testing.assert_array_equal(overlay_of(IMAGE, IDS, PALETTE, {0, 1, 2}, 1), np.array(PALETTE, np.uint8)[IDS])


def test_the_256th_class_is_painted_like_any_other() -> None:
    ids = np.array([[255, 0]], dtype=np.uint8)
    palette = [(index, 0, 0) for index in range(256)]
    found = overlay_of(np.zeros((1, 2, 3), np.uint8), ids, palette, {255}, 1)
    np.testing.assert_array_equal(found, [[[255, 0, 0], [0, 0, 0]]])


def test_the_legend_lists_what_occurs_the_largest_first() -> None:
    entries = legend_entries(model("sky", "road", "tree"), [segmentation(0.25, 0, 0.75)])
    assert [(entry.class_id, entry.name, entry.color) for entry in entries] == [
        (2, "tree", (0, 0, 255)),
        (0, "sky", (255, 0, 0)),
    ]
    assert [str(entry).split() for entry in entries] == [["tree", "75.0", "%"], ["sky", "25.0", "%"]]
    both = legend_entries(model("sky", "road", "tree"), [segmentation(0.25, 0, 0.75), segmentation(0, 0.9, 0.1)])
    assert [entry.class_id for entry in both] == [1, 2, 0]
    assert str(both[0]).replace("\u00a0", " ") == "road  0.0 % / 90.0 %"
    style = swatches("legend", entries)
    assert style.index("rgb(0, 0, 255)") < style.index("rgb(255, 0, 0)")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0 %"), (1e-6, "<0.1 %"), (0.0005, "0.1 %"), (0.12345, "12.3 %"), (0.9999999, ">99.9 %"), (1, "100.0 %")],
)
def test_a_share_in_percent(share: float, text: str) -> None:
    assert percent(share) == text.replace(" ", "\u00a0")


def test_confidence_is_painted_from_dark_to_light() -> None:
    colors = confidence_colors()
    luminance = colors @ np.array([0.2126, 0.7152, 0.0722])
    # Rounded to bytes, a step may be nothing.
    assert (np.diff(luminance) > -1).all()
    assert luminance[-1] - luminance[0] > 150
    confidence = np.array([[0, 128, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(confidence_picture(confidence)[0], colors[[0, 128, 255]])
    words = confidence_in_words(segmentation(1, 0, 0, confidence=np.array([[51, 204]], np.uint8)))
    assert words.replace("\u00a0", " ") == "On average 50.0 %; below 50 % on 50.0 % of the pixels."


def test_only_differing_pixels_are_painted() -> None:
    differing = IDS == 1
    found = disagreement_picture(Look("x", (6, 9), IMAGE, (), differing, float(differing.mean())))
    assert len(np.unique(found[differing], axis=0)) == 1
    grey = found[~differing]
    assert (grey == grey[:, :1]).all()
    assert disagreement_picture(Look("x", (6, 9), IMAGE, ())) is None


def test_names_from_outside_are_no_markup() -> None:
    for text in (note("<img src=x>"), problem("<img src=x>"), title([replace(model("a"), label="<img src=x>")])):
        assert "<img" not in text
        assert "&lt;img" in text
