"""Every way in which raw data is bad or doubtful is told, in one sentence that names the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bad_pictures import RawTree, encode, ids_of, photo
from PIL import Image

from s4mim_hf.data.checking import CheckReport, check


@pytest.fixture
def tree(tmp_path: Path) -> RawTree:
    return RawTree(tmp_path / "raw").fill(4, "train/").fill(2, "val/")


def only_problem(tree: RawTree, *parts: str) -> CheckReport:
    report = check(tree.folder)
    assert len(report.problems) == 1, report.problems
    for part in parts:
        assert part in report.problems[0]
    assert "\n" not in report.problems[0]
    return report


def warned(tree: RawTree, *parts: str) -> str:
    """Return the one warning that holds the first part, once it holds the others too and nothing is a problem."""
    report = check(tree.folder)
    assert report.problems == ()
    found = [warning for warning in report.warnings if parts[0] in warning]
    assert len(found) == 1, report.warnings
    for part in parts:
        assert part in found[0]
    return found[0]


def test_sound_data_has_neither(tree: RawTree) -> None:
    report = check(tree.folder)
    assert report.problems == ()
    # Pictures of the tests are small for photos.
    assert report.warnings == ("6 pictures have a side below 32 pixels, the smallest 30",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no picture format that is known"),
        (b"hello", "no picture format that is known"),
        (encode(photo(1, 200, 200), "JPEG")[:2000], "truncated"),
        (encode(photo(1, 200, 200))[:2000], "truncated"),
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG"],
)
def test_pictures_that_do_not_decode(content: bytes, why: str, tree: RawTree) -> None:
    tree.add("train/broken", content, ids_of(1))
    report = only_problem(tree, "1 labelled images cannot be read: train/broken (", why, "replace or remove them")
    numbers = report.to_dict()["splits"]["labeled"]
    assert (numbers["images"], numbers["decoded"], numbers["masks"]) == (5, 4, 4)


def test_many_bad_pictures_are_counted_and_the_first_named(tree: RawTree) -> None:
    for index in range(30):
        tree.add(f"train/x{index:02d}", b"nothing")
    only_problem(tree, "30 unlabelled images cannot be read: train/x00 (", "train/x02 (", "and 27 more;")


@pytest.mark.parametrize(
    ("mask", "suffix", "parts"),
    [
        (ids_of(1, 41, 30), ".png", ["have another size than their image", "41x30 for a picture of 40x30"]),
        (ids_of(1, 30, 40), ".png", ["have another size than their image", "30x40 for a picture of 40x30"]),
        (photo(1), ".png", ["hold colours where one channel of class ids is expected", "RGB"]),
        (encode(ids_of(1), "JPEG"), ".jpg", ["are JPEG files, which blur ids"]),
        (b"junk", ".png", ["masks cannot be read"]),
    ],
    ids=["size", "turned", "colours", "JPEG", "junk"],
)
def test_masks_that_cannot_be_used(mask: bytes | np.ndarray, suffix: str, parts: list[str], tree: RawTree) -> None:
    tree.add("val/odd", mask=mask, mask_suffix=suffix)
    report = only_problem(tree, "1 validation masks ", "val/odd", *parts)
    numbers = report.to_dict()["splits"]["validation"]
    assert (numbers["images"], numbers["decoded"], numbers["masks"]) == (3, 3, 2)


def test_ids_of_no_class(tree: RawTree) -> None:
    tree.add("train/a", mask=np.full((30, 40), 7, np.uint8))
    tree.add("train/b", mask=np.full((30, 40), 3, np.uint8))
    tree.add("train/c", mask=np.full((30, 40), 40000, np.uint16))
    tree.add("val/d", mask=ids_of(1, values=(0, 3)))
    report = check(tree.folder)
    assert report.problems == (
        "3 labelled masks hold ids other than 0 to 2 and 255 (ignored): ids 3, 7, 40000 in train/a, train/b, train/c; "
        "name more classes or correct the masks",
        "1 validation masks hold ids other than 0 to 2 and 255 (ignored): ids 3 in val/d; name more classes or correct "
        "the masks",
    )
    assert report.to_dict()["splits"]["labeled"]["ids_of_no_class"] == [3, 7, 40000]


def test_masks_without_names(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw", classes=None)
    for index in range(3):
        tree.add(str(index), mask=ids_of(index, values=(0, 38, 75, 255)))
    warning = warned(tree, "nothing names the classes")
    assert "hold the ids 0, 38, 75 (255 is ignored)" in warning
    assert [entry["id"] for entry in check(tree.folder).to_dict()["classes"]] == [0, 38, 75]


def test_nothing_to_learn(tmp_path: Path) -> None:
    for name, values, message in (
        ("bare", None, "there are no labelled images"),
        ("ignored", (255,), "all pixels of the labelled masks are ignored (255)"),
        ("one", (1, 255), "the labelled masks hold one class only (tree)"),
    ):
        tree = RawTree(tmp_path / name).fill(2, "val/")
        for index in range(3):
            tree.add(f"train/{index}", mask=None if values is None else ids_of(index, values=values))
        only_problem(tree, message)


def test_nothing_to_measure(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(4, "train/")
    tree.add("val/a", mask=ids_of(1, values=(255,)))
    only_problem(tree, "all pixels of the validation masks are ignored (255): no score can be computed")


def test_the_same_picture_in_training_and_validation(tree: RawTree) -> None:
    picture = Image.fromarray(photo(77))
    # Other files of the same picture: another compression, another format, a comment more.
    tree.add("train/one", encode(picture), ids_of(1), suffix=".png")
    tree.add("val/other", encode(picture, "BMP"), ids_of(1), suffix=".bmp")
    report = only_problem(tree, "1 validation pictures are labelled training pictures too: val/other = train/one;")
    numbers = report.to_dict()["splits"]
    assert (numbers["validation"]["also_in"], numbers["labeled"]["also_in"]) == (
        {"labeled": 1, "unlabeled": 0},
        {"unlabeled": 0, "validation": 1},
    )
    tree.add("train/bare", encode(picture, compress_level=1), suffix=".png")
    report = check(tree.folder)
    assert "1 validation pictures are unlabelled training pictures too: val/other = train/bare" in report.problems[1]
    assert any("1 unlabelled pictures are labelled pictures too" in warning for warning in report.warnings)


def test_the_same_picture_twice_in_training(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(4)
    for name in "abc":
        tree.add(name, photo(5), ids_of(1))
    warned(tree, "2 labelled pictures repeat another labelled one: b = a, c = a; a draw of validation images may")
    split = RawTree(tmp_path / "split").fill(4, "train/").fill(2, "val/")
    for name in "ab":
        split.add(f"val/{name}", photo(5), ids_of(1))
    assert warned(split, "1 validation pictures repeat another validation one: val/b = val/a").endswith("val/a")


def test_classes_that_are_rare_or_absent(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw", ("road", "tree", "sky", "ship"))
    for index in range(4):
        tree.add(f"train/{index}", mask=ids_of(index, values=(0, 1, 2) if index < 2 else (0, 1)))
    tree.add("val/a", mask=ids_of(9, values=(0, 1, 2)))
    warned(tree, "1 classes have no pixel in the labelled images and cannot be learnt: ship")
    warned(tree, "1 classes have no pixel in the validation images", "ship")
    warned(tree, "1 classes are in fewer than 3 labelled images: sky")


def test_masks_that_say_little(tree: RawTree) -> None:
    for index in range(3):
        tree.add(f"train/empty{index}", mask=np.full((30, 40), 255, np.uint8))
    tree.add("val/most", photo(8, 200, 200), ids_of(8, 200, 200, (0, 255, 255, 255, 255)))
    warned(tree, "3 labelled masks are ignored as a whole: train/empty0, train/empty1, train/empty2")
    warned(tree, "3 of 7 labelled masks hold one id in 99% or more of their pixels: train/empty0")
    warned(tree, "77% of the pixels of the validation masks are ignored (255)")


def test_sizes_that_differ_or_are_large(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(2, "val/")
    for index, side in enumerate((40, 40, 300, 300)):
        tree.add(f"train/{index}", photo(index, side, side), ids_of(index, side, side))
    warned(tree, "sizes differ much: the long sides of the middle 90% of the pictures are 40 to 300 pixels")
    tree.add("train/huge", np.zeros((1601, 2500, 3), np.uint8), np.zeros((1601, 2500), np.uint8))
    warned(tree, "1 pictures have more than 4 megapixels", "--max-side 1024")


def test_other_files_are_noted(tree: RawTree) -> None:
    (tree.folder / "images" / "train" / "Thumbs.db").write_text("")
    report = check(tree.folder)
    assert report.problems == ()
    assert report.notes == ("1 files of images/ are no pictures by their suffix: train/Thumbs.db",)
    assert report.to_dict()["notes"] == list(report.notes)
