"""Labelled, unlabelled and validation images are chosen as asked, never overlap, and keep groups whole."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_trees import CLASSES, write_pair, write_tree

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan import Plan, RawData, make_plan
from s4mim_hf.data.sources.base import Item
from s4mim_hf.data.splits import draw, parse_labeled
from s4mim_hf.errors import InputError


def plan(source: Path, **options: Any) -> Plan:
    return make_plan(PrepareOptions(options.pop("kind", "folder"), source.parent / "out", str(source), **options))


def ids(items: Sequence[Item]) -> list[str]:
    return [item.id for item in items]


def refused(source: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        plan(source, **options)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    source, name = write_tree(tmp_path / "raw", masked=6), os.fsdecode(b"Stra\xdfe")
    try:
        write_pair(source, name, 1)
    except OSError:
        pytest.skip("this file system takes no such name")
    refused(source, r"1 file names are no UTF-8, but of another encoding: 'Stra\udcdfe'; rename")


def write_rare(source: Path, count: int = 20, rare: int = 13) -> Path:
    """Write images of class 0, and one of classes 0 and 1; class 2 is in none."""
    for index in range(count):
        write_pair(source, f"i{index:02d}", index)
        mask = np.zeros((8, 12), np.uint8)
        mask[0, 0] = index == rare
        Image.fromarray(mask).save(source / "masks" / f"i{index:02d}.png")
    (source / "classes.json").write_text('["road", "tree", "sky"]')
    return source


def write_videos(source: Path, videos: int = 6, frames: int = 4, bare: int = 1) -> Path:
    """Write the frames of some videos, the last of each without a mask."""
    for video, frame in itertools.product(range(videos), range(frames)):
        write_pair(source, f"v{video}_f{frame}", 10 * video + frame, mask=frame < frames - bare)
    (source / "classes.json").write_text('["road", "tree", "sky"]')
    return source


def videos_of(items: Sequence[Item]) -> set[str]:
    return {item.id.split("_")[0] for item in items}


def test_a_drawn_validation_is_the_same_for_every_draw_of_labels(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw", masked=20, bare=4)
    plans = [plan(source, labeled=text, seed=seed) for text in ("2", "1/2") for seed in (0, 1)]
    assert len({tuple(ids(each.validation)) for each in plans}) == 1
    for each in plans:
        everything = ids(each.labeled) + ids(each.unlabeled) + ids(each.validation)
        assert len(everything) == len(set(everything)) == 24
        assert all(item.label is not None for item in each.validation)
    assert set(ids(plans[0].labeled)) < set(ids(plans[2].labeled))
    assert any("validation is 4 of the 20" in note for note in plans[0].notes)


def test_the_validation_draw_is_pinned(tmp_path: Path) -> None:
    """A change here changes what everybody's scores are measured on."""
    assert ids(plan(write_tree(tmp_path / "raw", masked=20)).validation) == ["i00", "i10", "i13", "i15"]


def test_kinds_of_validation(tmp_path: Path) -> None:
    flat = write_tree(tmp_path / "flat")
    assert plan(flat, validation="none").validation == []
    assert len(plan(flat, validation="3").validation) == 3
    other = write_tree(tmp_path / "other", masked=2)
    assert ids(plan(flat, validation=str(other)).validation) == ["validation/i00", "validation/i01"]
    split = write_tree(tmp_path / "split", validation=3)
    assert ids(plan(split).validation) == ["val/v00", "val/v01", "val/v02"]
    without = plan(split, validation="none")
    assert without.validation == []
    assert any("3 validation images of" in note and "are left out" in note for note in without.notes)
    refused(split, "has validation images already; leave the option out", validation="0.2")


def test_a_validation_folder_has_the_same_classes_and_its_own_ignored_id(tmp_path: Path) -> None:
    flat, other = write_tree(tmp_path / "flat"), write_tree(tmp_path / "other", masked=2)
    (other / "classes.json").write_text('{"id2label": {"0": "road", "1": "tree", "2": "sky"}, "ignore_index": 7}')
    Image.fromarray(np.full((8, 12), 7, np.uint8)).save(other / "masks" / "i00.png")
    made = plan(flat, validation=str(other))
    assert (made.source_of("validation").read_label(made.validation[0]) == 255).all()
    (other / "classes.json").write_text('["tree", "road", "sky"]')
    refused(flat, "they differ in 'road' and 'tree'", validation=str(other))
    (other / "classes.json").unlink()
    (other / "masks" / "i01.png").unlink()
    refused(flat, f"1 of 2 images of the validation folder {other} have no mask: i01", validation=str(other))
    refused(flat, f"{flat}/../{flat.name} is the folder of the training images", validation=f"{flat}/../{flat.name}")


def test_id_lists(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "raw")
    labeled, unlabeled = str(tmp_path / "l.txt"), str(tmp_path / "u.txt")
    (tmp_path / "l.txt").write_text("i01\nimages/i02.jpg masks/i02.png\n")
    (tmp_path / "u.txt").write_text("i03.jpg\n")
    lists = {"labeled_ids": labeled, "unlabeled_ids": unlabeled}
    both = plan(source, validation="none", labeled="2", **lists)
    assert (ids(both.labeled), ids(both.unlabeled)) == (["i01", "i02"], ["i03"])
    assert any("7 training images are in neither list" in note for note in both.notes)
    one = plan(source, labeled_ids=labeled)
    assert ids(one.labeled) == ["i01", "i02"]
    assert (len(one.unlabeled), len(one.validation)) == (6, 2)
    refused(source, "--labeled 5 is 5 images, but", labeled="5", **lists)
    refused(source, "--draw balanced has nothing to draw where --labeled-ids says it", draw="balanced", **lists)
    (tmp_path / "u.txt").write_text("i02\n")
    refused(source, "1 images are in both", **lists)
    refused(source, "only 8 of 10 are free", labeled_ids=labeled, validation="9")
    refused(source, "--unlabeled-ids needs --labeled-ids", unlabeled_ids=unlabeled)
    (tmp_path / "l.txt").write_text("i01\ni77\ni01\n")
    refused(source, f"{labeled} names 1 images that are not there: i77", labeled_ids=labeled)
    (tmp_path / "l.txt").write_text("i01\ni02\nimages/i01.jpg\n")
    refused(source, f"{labeled} names 1 images more than once: i01", labeled_ids=labeled)
    (tmp_path / "l.txt").write_text("i01\ni02\n")
    (source / "masks" / "i01.png").unlink()
    refused(source, "1 of 2 images of the list", labeled_ids=labeled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labeled": "11"}, "--labeled 11: 11 images are asked for, but only 8"),
        ({"labeled": "9/8"}, "at most 1"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"validation": "10"}, "only 9 of 10 are free"),
        ({"validation": "99"}, "--validation 99 takes 99 images with masks, but only 9 of 10 are free"),
        ({"validation": "nowhere"}, "no folder that exists"),
        ({"validation": "1.5"}, "no fraction such as 0.2"),
        ({"draw": "balanced"}, "--draw balanced needs --labeled"),
        ({"group_by": "("}, "--group-by '(' is no regular expression"),
        ({"group_by": "i0[0-5]"}, "--group-by 'i0[0-5]' does not match 4 of 10 ids (i06, i07, i08 and 1 more)"),
        ({"group_by": "i", "labeled": "2", "validation": "none"}, "--labeled is 2 of 10 images, but --group-by finds"),
        ({"group_by": "i"}, "--validation is 2 of 10 images, but --group-by finds one group only"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    refused(write_tree(tmp_path / "raw"), message, **options)


def test_data_that_does_not_fit(tmp_path: Path) -> None:
    refused(write_tree(tmp_path / "bare", masked=0, bare=3), "none of the 3 training images")
    refused(write_tree(tmp_path / "val", masked=0, validation=2), "are validation images; training needs some more")
    source = write_tree(tmp_path / "raw", classes=False)
    refused(source, "the masks hold the ids 0, 1, 2 (255 is ignored): name the classes 0 to 2", labeled="2")


@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_is_always_labelled(seed: int, tmp_path: Path) -> None:
    source = write_rare(tmp_path / "raw")
    for count in (2, 3, 7):
        made = plan(source, labeled=str(count), seed=seed, validation="none")
        assert "i13" in ids(made.labeled)
        assert len(made.labeled) == count
        assert "1 classes have no pixel in any training image with a mask: sky" in made.notes
        plain = draw([f"i{index:02d}" for index in range(20)], parse_labeled(str(count)), seed)
        assert len(set(plain) & set(ids(made.labeled))) >= count - 1


def test_a_class_that_finds_no_room_is_said(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    for index in range(6):
        write_pair(source, f"i{index}", index)
        Image.fromarray(np.full((8, 12), index % 3, np.uint8)).save(source / "masks" / f"i{index}.png")
    made = plan(source, labeled="1", validation="none", classes=CLASSES)
    note = next(note for note in made.notes if "no pixel in the labelled images" in note)
    assert re.match(r"2 classes have no pixel .*: \w+, \w+; with this seed, 3 labelled images hold all", note)
    assert made.covered
    balanced = plan(source, labeled="3", validation="none", classes=CLASSES, draw="balanced")
    assert len({int(item.id[1:]) % 3 for item in balanced.labeled}) == 3


def test_masks_are_looked_through_once_for_all_draws_and_not_for_all_labels(tmp_path: Path) -> None:
    source = write_rare(tmp_path / "raw")
    options = PrepareOptions("folder", tmp_path / "out", str(source), labeled="4", validation="none")
    raw = RawData(options)
    first = ids(make_plan(options, raw).labeled)
    for path in (source / "masks").iterdir():
        path.write_bytes(b"junk")
    assert ids(make_plan(options, raw).labeled) == first
    refused(source, "20 masks cannot be read as pictures: i00 (no picture format that is known), i01", labeled="4")
    assert len(plan(source, validation="none").labeled) == 20
    assert len(plan(source, labeled="all", validation="none").labeled) == 20


@pytest.mark.parametrize("draw", ["plain", "balanced"])
def test_groups_are_on_one_side(draw: str, tmp_path: Path) -> None:
    source = write_videos(tmp_path / "raw")
    before: set[str] = set()
    for text in ("1", "1/4", "1/2", "3/4"):
        made = plan(source, labeled=text, group_by="v[0-9]+", draw=draw, validation="0.2")
        sides = [videos_of(items) for items in made.splits().values()]
        assert all(sides)
        assert sum(map(len, sides)) == 6, "no video is on two sides"
        assert before <= set(ids(made.labeled))
        before = set(ids(made.labeled))
        assert len(made.labeled) == 3 * len(sides[0])
        assert any(f"{len(made.labeled)} images in {len(sides[0])} of 5 groups are labelled" in n for n in made.notes)
        assert any("images without masks are of labelled groups, and are left out" in note for note in made.notes)
        assert any("1 images without masks are of the groups of validation images" in note for note in made.notes)


def test_groups_with_all_labels_keep_their_unlabelled_images(tmp_path: Path) -> None:
    source = write_videos(tmp_path / "raw")
    made = plan(source, group_by="^(v.)_")
    assert (len(made.labeled), len(made.unlabeled), len(made.validation)) == (15, 5, 3)
    assert not videos_of(made.validation) & videos_of([*made.labeled, *made.unlabeled])


def test_groups_that_the_layout_or_a_list_parts_are_said(tmp_path: Path) -> None:
    source = write_videos(tmp_path / "raw", bare=0)
    write_pair(source, "val/v0_f9", 3)
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        (source / folder / "train").mkdir()
        for path in (source / folder).glob(f"*.{suffix}"):
            path.rename(source / folder / "train" / path.name)
    made = plan(source, group_by="(v[0-9])_", labeled="1/2")
    assert any(
        note.startswith("1 groups of --group-by have images for training and for validation (v0)")
        for note in made.notes
    )
    (tmp_path / "l.txt").write_text("v1_f0\nv1_f1\nv2_f0\nv2_f1\nv2_f2\nv2_f3\n")
    listed = plan(source, group_by="(v[0-9])_", labeled_ids=str(tmp_path / "l.txt"))
    assert "1 groups of --group-by have labelled and unlabelled images: v1" in listed.notes


def test_validation_groups_leave_out_those_that_a_list_names(tmp_path: Path) -> None:
    source = write_videos(tmp_path / "raw", bare=0)
    (tmp_path / "l.txt").write_text("\n".join(f"v{video}_f0" for video in range(5)))
    made = plan(source, group_by="v.", labeled_ids=str(tmp_path / "l.txt"), validation="2")
    assert videos_of(made.validation) == {"v5"}


@pytest.mark.real
@pytest.mark.parametrize(("name", "labeled"), [("camvid", 46), ("msrc21", 44)])
def test_real_data_splits(name: str, labeled: int, shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / name
    made = plan(source, kind=name, labeled="1/8")
    expected = {"camvid": (labeled, 321, 101), "msrc21": (labeled, 311, 118)}[name]
    assert tuple(len(items) for items in made.splits().values()) == expected
    # Draws of seed 0 are what they were before draws looked at classes: they hold every class anyhow.
    training = ids([*made.labeled, *made.unlabeled])
    assert set(ids(made.labeled)) == set(draw(training, parse_labeled("1/8"), 0))
