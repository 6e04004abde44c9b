"""What a check counts is what plain loops count, whatever form the pictures have; tables fit 80 columns."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bad_pictures import RawTree, as_stored, encode, grey_png, ids_of, photo, turned, without_adobe_marker
from PIL import Image
from rich.console import Console

from s4mim_hf.data.checking import CheckReport, check, check_source
from s4mim_hf.data.checking.pictures import count_ids
from s4mim_hf.data.sources.base import Classes, Item, Listing, SampleError, Source
from s4mim_hf.errors import InputError


def printed(report: CheckReport, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for table in report.tables():
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def counted(folder: Path, names: list[str]) -> tuple[Counter[int], Counter[int]]:
    """Count pixels and images of each id with one loop over all pixels."""
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for name in names:
        values = list(Image.open(folder / "masks" / f"{name}.png").get_flattened_data())
        for value in values:
            pixels[value] += 1
        for value in set(values):
            images[value] += 1
    return pixels, images


def test_numbers_are_those_of_a_loop(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw")
    sizes = {"train/a": (40, 30), "train/b": (64, 50), "train/c": (30, 40), "val/d": (48, 33), "val/e": (50, 64)}
    for seed, (name, (width, height)) in enumerate(sizes.items()):
        tree.add(
            name, photo(seed, width, height), ids_of(seed, width, height, (0, 1, 255) if seed % 2 else (1, 2, 255))
        )
    tree.add("train/bare", photo(9))
    report = check(tree.folder)
    assert report.problems == ()
    numbers = report.to_dict()
    assert {split: each["images"] for split, each in numbers["splits"].items()} == {
        "labeled": 3, "unlabeled": 1, "validation": 2,
    }  # fmt: skip
    for split, names in (("labeled", ["train/a", "train/b", "train/c"]), ("validation", ["val/d", "val/e"])):
        pixels, images = counted(tree.folder, names)
        labeled = sum(pixels.values()) - pixels[255]
        assert numbers["splits"][split]["ignored_pixels"] == pixels[255]
        assert numbers["splits"][split]["ignored_share"] == pytest.approx(pixels[255] / sum(pixels.values()))
        assert numbers["splits"][split]["ids_found"] == sorted(set(pixels) - {255})
        for entry in numbers["classes"]:
            expected = {"pixels": pixels[entry["id"]], "images": images[entry["id"]]}
            assert entry[split] == expected | {"share": pytest.approx(pixels[entry["id"]] / labeled)}
    assert numbers["splits"]["labeled"]["sizes"] == {"smallest": [30, 40], "median": [40, 30], "largest": [64, 50]}
    assert numbers["splits"]["unlabeled"]["ignored_share"] is None
    assert [entry["name"] for entry in numbers["classes"]] == ["road", "tree", "sky"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.int32])
def test_ids_are_counted_in_any_type(dtype: type) -> None:
    label = np.random.default_rng(0).choice([0, 3, 254, 255], (13, 17)).astype(dtype)
    assert count_ids(label) == Counter(label.ravel().tolist())


def test_ids_that_no_mask_should_hold_are_counted_as_one() -> None:
    label = np.array([[-7, -1, 0, 255], [65535, 65536, 70000, 2**40]])
    assert count_ids(label) == {-1: 2, 0: 1, 255: 1, 65535: 1, 65536: 3}


def masks_of_every_kind() -> dict[str, tuple[bytes, str]]:
    ids = ids_of(1, values=(0, 1, 2))
    palette, two = Image.fromarray(ids), ids_of(1, values=(0, 1))
    palette.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    return {
        "palette": (encode(palette), ".png"),
        "palette2bits": (encode(palette, bits=2), ".png"),
        "bits1": (encode(Image.fromarray(two.astype(bool))), ".png"),
        "bits2": (grey_png(ids, 2), ".png"),
        "bits4": (grey_png(ids, 4), ".png"),
        "bits16": (encode(ids.astype(np.uint16)), ".png"),
        "tiff": (encode(ids, "TIFF"), ".tif"),
        "bmp": (encode(ids, "BMP"), ".bmp"),
    }


def test_masks_of_every_kind_are_read_as_ids(tmp_path: Path) -> None:
    tree, expected = RawTree(tmp_path / "raw"), Counter[int]()
    for name, (mask, suffix) in masks_of_every_kind().items():
        tree.add(name, mask=mask, mask_suffix=suffix)
        expected.update(ids_of(1, values=(0, 1) if name == "bits1" else (0, 1, 2)).ravel().tolist())
    report = check(tree.folder)
    assert report.problems == ()
    assert report.seen.splits["labeled"].pixels == expected


def pictures_of_every_kind() -> dict[str, tuple[bytes, str]]:
    picture = Image.fromarray(photo(3))
    cmyk = encode(picture.convert("CMYK"), "JPEG")
    grey = np.asarray(picture.convert("L"))
    return {
        "rgba": (encode(picture.convert("RGBA")), ".png"),
        "grey_alpha": (encode(picture.convert("LA")), ".png"),
        "cmyk_inverted": (cmyk, ".jpg"),
        "cmyk": (without_adobe_marker(cmyk), ".jpg"),
        "grey": (encode(picture.convert("L"), "JPEG"), ".jpg"),
        "palette": (encode(picture.convert("P")), ".png"),
        "deep": (encode(grey.astype(np.uint16) * 257), ".png"),
        "twelve_bits": (encode(grey.astype(np.uint16) * 16), ".png"),
        "bits1": (encode(picture.convert("1")), ".png"),
        "webp": (encode(picture, "WEBP"), ".webp"),
    }


def test_pictures_of_every_kind_decode_and_unusual_ones_are_told(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(3)
    for name, (image, suffix) in pictures_of_every_kind().items():
        tree.add(name, image, ids_of(5), suffix=suffix)
    report = check(tree.folder)
    assert report.problems == ()
    told = "\n".join(report.warnings)
    for sentence in (
        "2 pictures have a transparent channel, which is dropped",
        "2 pictures are in CMYK, and become RGB without their colour profile",
        "2 pictures have 16 bits, of which the upper 8 are used",
        "1 pictures have 1 bit, black or white",
        "1 labelled pictures of 16 bits are nearly black, because they do not use their upper bits: twelve_bits;",
    ):
        assert sentence in told
    assert report.to_dict()["splits"]["labeled"]["kinds"]["JPEG CMYK"] == 2
    assert "others" in printed(report)


@pytest.mark.parametrize("mask_as", ["stored", "upright", "tagged"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_picture_and_mask(orientation: int, mask_as: str, tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(3)
    upright, ids = photo(3), ids_of(4, values=(0, 1, 2))
    image = encode(as_stored(upright, orientation), "JPEG", quality=95, exif=turned(orientation))
    mask = ids if mask_as == "upright" else as_stored(ids, orientation)
    tree.add("turned", image, encode(mask, exif=turned(orientation)) if mask_as == "tagged" else mask)
    report = check(tree.folder)
    assert report.problems == ()
    assert report.seen.splits["labeled"].sizes(0, 1) == [(40, 30), (40, 30)]
    doubtful = any("taken to be upright already" in warning for warning in report.warnings)
    assert doubtful == (orientation in (2, 3, 4))


def test_a_picture_of_one_pixel_can_be_used(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw").fill(3)
    tree.add("dot", encode(photo(0, 1, 1)), np.zeros((1, 1), np.uint8), suffix=".png")
    report = check(tree.folder)
    assert report.problems == ()
    assert "4 pictures have a side below 32 pixels, the smallest 1" in report.warnings
    assert report.seen.splits["labeled"].sizes(0) == [(1, 1)]


class InMemory(Source):
    """Five images that are no files; the last training one has a label that no draw may choose."""

    name, title, protocol = "memory", "Memory", "mean IoU"
    classes = Classes(("road", "tree", "sky"))

    def listing(self) -> Listing:
        training = [Item(f"t{index}", index, index) for index in range(3)] + [Item("bare", 3)]
        return Listing(training, [Item("v", 4, 4)], frozenset(["t0", "t1"]), ["a note"])

    def read_image(self, item: Item) -> bytes:
        assert isinstance(item.image, int)
        return encode(photo(item.image))

    def read_label(self, item: Item) -> np.ndarray:
        assert isinstance(item.label, int)
        if item.id == "t2":
            raise SampleError("masks are not to be read")
        return ids_of(item.label).astype(np.int64)


def test_any_source_can_be_checked_before_it_is_prepared() -> None:
    report = check_source(InMemory())
    assert (report.name, report.problems, report.notes) == ("memory", (), ("a note",))
    splits = report.to_dict()["splits"]
    assert {split: (each["images"], each["masks"]) for split, each in splits.items()} == {
        "labeled": (2, 2), "unlabeled": (2, 0), "validation": (1, 1),
    }  # fmt: skip
    assert report.seen.splits["labeled"].ids == ["t0", "t1"]


def test_folders_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is neither a prepared folder"):
        check(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"masks is missing"):
        check(tmp_path)


def test_tables_fit_80_columns(tmp_path: Path) -> None:
    names = tuple(f"a class with a very long name, number {index}" for index in range(150))
    tree = RawTree(tmp_path / "a folder with a name that alone would take more than a whole line of a terminal", names)
    for index in range(3):
        tree.add(f"train/{index}", mask=ids_of(index))
    tree.add("val/0", mask=ids_of(7))
    report = check(tree.folder)
    text = printed(report)
    assert max(map(len, text.splitlines())) <= 80
    assert "a class with a very l…" in text
    assert text.count("a class with") == 150
    for heading in ("with mask", "without mask", "validation", "images", "3 of 150", "40x30"):
        assert heading in text
    json.dumps(report.to_dict(), allow_nan=False)


def test_bars_are_as_long_as_the_share(tmp_path: Path) -> None:
    tree = RawTree(tmp_path / "raw")
    ids = np.repeat(np.array([0, 1, 2, 255], np.uint8), [8, 4, 1, 2])[None].repeat(16, 0)
    for index in range(3):
        tree.add(f"{index}", photo(index, 15, 16), ids)
    text = printed(check(tree.folder))
    bars = {name: re.search(rf"\d +{name} +[\d.]+% +(\S+)", text)[1] for name in ("road", "tree", "sky")}  # type: ignore[index]
    assert bars == {"road": "█" * 10, "tree": "█" * 5, "sky": "█▎"}
