"""Pascal VOC 2012 and SBD, on miniatures in the published layout and with the peers' real lists."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voc_trees import sbd_ids, voc_ids, write_ids, write_sbd, write_voc

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
from s4mim_hf.data.prepared import decode_label, load_prepared
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Item, SampleError
from s4mim_hf.errors import InputError

TRAIN = ("2007_000032", "2007_000039", "2008_000001", "2009_000002")
VAL = ("2007_000033", "2007_000042", "2010_000003")
# SBD labels some of train and of val again, and images that VOC's segmentation does not have.
MORE = ("2008_000002", "2008_000003", "2011_003276")
SBD = (TRAIN[0], VAL[2], *MORE)
UNSEGMENTED = ("2008_000009",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_voc(tmp_path, TRAIN, VAL, others=(*MORE, *UNSEGMENTED))
    return tmp_path


def voc(source: Path, **changes: Any) -> Any:
    return open_source(PrepareOptions("voc", Path("unused"), str(source), **changes))


def labels(items: Any) -> dict[str, str | None]:
    return {item.id: None if item.label is None else item.label.parent.name for item in items}


class TestWithoutSbd:
    @pytest.mark.parametrize("below", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
    def test_train_and_val_are_those_of_the_lists(self, folder: Path, below: str) -> None:
        listing = voc(folder / below).listing()
        assert [item.id for item in listing.training] == sorted(TRAIN)
        assert [item.id for item in listing.validation] == sorted(VAL)
        assert all(item.image.is_file() and item.label.is_file() for item in [*listing.training, *listing.validation])

    def test_colour_mapped_masks_are_read_as_ids(self, folder: Path) -> None:
        source = voc(folder)
        listing = source.listing()
        held: set[int] = set()
        for item in [*listing.training, *listing.validation]:
            ids = source.read_label(item)
            assert ids.dtype == np.int64
            assert np.array_equal(ids, voc_ids(item.id))
            held |= set(np.unique(ids).tolist())
        assert held == {0, 1, 2, 15, 20, 255}
        assert source.read_image(item) == item.image.read_bytes()

    def test_notes_say_what_is_missing(self, folder: Path) -> None:
        notes = voc(folder).listing().notes
        assert "train has 4 images where the published Pascal VOC 2012 has 1464; is a part of it missing?" in notes
        assert any("--sbd" in note and "10,582" in note for note in notes)

    def test_lists_of_both_kinds_may_name_any_picture_but_vals(self, folder: Path) -> None:
        source = voc(folder, labeled_ids="some.txt", unlabeled_ids="others.txt")
        assert labels(source.listing().training) == {
            **dict.fromkeys(TRAIN, "SegmentationClass"),
            **dict.fromkeys((*MORE, *UNSEGMENTED)),
        }

    def test_classes_colours_and_protocol(self, folder: Path) -> None:
        source = voc(folder)
        assert (source.name, source.title) == ("voc", "Pascal VOC 2012")
        assert (source.classes.names, source.classes.palette) == (CATALOG["voc"].classes, CATALOG["voc"].palette)
        assert source.protocol.endswith("drawn from the 1,464 of train (classic protocol)")
        assert voc(folder, name="mine").name == "mine"


class TestProtocols:
    @pytest.mark.parametrize("protocol", [None, "classic"])
    def test_classic_offers_train_only(self, folder: Path, protocol: str | None) -> None:
        source = voc(folder, sbd=write_sbd(folder, SBD), protocol=protocol)
        listing = source.listing()
        assert labels(listing.training) == {**dict.fromkeys(TRAIN, "SegmentationClass"), **dict.fromkeys(MORE)}
        assert listing.labelable == set(TRAIN)
        assert "SBD adds 3 training images; its labels are not used" in listing.notes

    def test_classic_reads_no_file_of_sbd(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sbd = write_sbd(folder, SBD)
        _without_scipy(monkeypatch)
        for path in (sbd / "dataset" / "cls").iterdir():
            path.write_bytes(b"damaged")
        source = voc(folder, sbd=sbd)
        listing = source.listing()
        assert len([source.read_label(item) for item in listing.training if item.label]) == len(TRAIN)

    def test_blended_offers_all_and_prefers_vocs_own_masks(self, folder: Path) -> None:
        source = voc(folder, sbd=write_sbd(folder, SBD), protocol="blended")
        listing = source.listing()
        assert labels(listing.training) == {**dict.fromkeys(TRAIN, "SegmentationClass"), **dict.fromkeys(MORE, "cls")}
        assert listing.labelable is None
        assert [item.id for item in listing.validation] == sorted(VAL)
        for item in listing.training:
            expected = voc_ids(item.id) if item.id in TRAIN else sbd_ids(item.id)
            assert np.array_equal(source.read_label(item), expected)
        assert "SBD adds 3 training images; its labels are used where VOC has none of its own" in listing.notes
        assert "(blended protocol)" in source.protocol

    def test_a_list_decides_where_no_protocol_is_named(self, folder: Path) -> None:
        source = voc(folder, sbd=write_sbd(folder, SBD), labeled_ids="some.txt")
        assert all(item.label is not None for item in source.listing().training)
        assert source.protocol.endswith("those of a list")

    @pytest.mark.parametrize("protocol", ["classic", "blended"])
    def test_a_list_leaves_nothing_to_a_protocol(self, folder: Path, protocol: str) -> None:
        with pytest.raises(InputError, match=rf"--protocol {protocol} says .* and --labeled-ids names them; leave"):
            voc(folder, sbd=write_sbd(folder, SBD), labeled_ids="some.txt", protocol=protocol)

    def test_blended_without_sbd(self, folder: Path) -> None:
        with pytest.raises(InputError, match=r"only SBD has labels of, but .*VOC2012 has none .*give --sbd"):
            voc(folder, protocol="blended")


def test_a_prepared_folder_from_lists_as_the_peers_write_them(folder: Path) -> None:
    labeled, unlabeled = (TRAIN[0], MORE[0]), (*TRAIN[1:], *MORE[1:], *UNSEGMENTED)
    for name, ids in (("labeled", labeled), ("unlabeled", unlabeled)):
        lines = (f"JPEGImages/{image_id}.jpg SegmentationClass/{image_id}.png\n" for image_id in ids)
        (folder / f"{name}.txt").write_text("".join(lines))
    lists = {f"{name}_ids": str(folder / f"{name}.txt") for name in ("labeled", "unlabeled")}
    output = folder / "prepared"
    prepare(PrepareOptions("voc", output, str(folder), sbd=write_sbd(folder, SBD), **lists), print)
    data = load_prepared(str(output))
    rows = {row["id"]: decode_label(row["label"]["bytes"]) for row in data.labeled}
    assert set(rows) == set(labeled)
    assert np.array_equal(rows[TRAIN[0]], voc_ids(TRAIN[0]))
    assert np.array_equal(rows[MORE[0]], sbd_ids(MORE[0]))
    assert set(data.unlabeled["id"]) == set(unlabeled)
    assert "label" not in data.unlabeled.column_names


class TestForms:
    @pytest.mark.parametrize("below", [".", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
    def test_any_folder_of_sbd_may_be_given(self, folder: Path, below: str) -> None:
        write_sbd(folder, SBD)
        listing = voc(folder, sbd=folder / below, protocol="blended").listing()
        assert {item.id for item in listing.training} == {*TRAIN, *MORE}

    @pytest.mark.parametrize("given", [True, False])
    def test_processed_maps_beside_the_masks_or_elsewhere(self, folder: Path, given: bool) -> None:
        maps = (folder if given else folder / "VOCdevkit" / "VOC2012") / "SegmentationClassAug"
        for image_id in SBD:
            write_ids(maps / f"{image_id}.png", sbd_ids(image_id))
        source = voc(folder, sbd=maps if given else None, protocol="blended")
        listing = source.listing()
        assert labels(listing.training) == {
            **dict.fromkeys(TRAIN, "SegmentationClass"),
            **dict.fromkeys(MORE, "SegmentationClassAug"),
        }
        assert all(np.array_equal(source.read_label(item), sbd_ids(item.id)) for item in listing.training[-1:])

    def test_maps_merged_into_the_folder_of_masks(self, folder: Path) -> None:
        for image_id in MORE:
            write_ids(folder / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{image_id}.png", sbd_ids(image_id))
        listing = voc(folder, protocol="blended").listing()
        assert labels(listing.training) == dict.fromkeys((*TRAIN, *MORE), "SegmentationClass")
        assert "SegmentationClass adds 3 training images" in " ".join(listing.notes)

    def test_a_picture_that_only_sbd_has(self, folder: Path) -> None:
        sbd = write_sbd(folder, SBD)
        (folder / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{MORE[0]}.jpg").unlink()
        pictures = {item.id: item.image for item in voc(folder, sbd=sbd).listing().training}
        assert pictures[MORE[0]] == sbd / "dataset" / "img" / f"{MORE[0]}.jpg"
        assert pictures[MORE[1]].parent.name == "JPEGImages"


class TestBadInput:
    @pytest.mark.parametrize(
        ("gone", "message"),
        [
            ("JPEGImages", r"there is no JPEGImages in .*VOCtrainval_11-May-2012"),
            ("SegmentationClass", r"SegmentationClass is missing; it is part of VOCtrainval"),
            (
                "ImageSets",
                r"ImageSets/Segmentation is missing; it is part of VOCtrainval.* the lists train.txt and val.txt",
            ),
            ("ImageSets/Segmentation/val.txt", r"val.txt: No such file"),
            (
                "SegmentationClass/2007_000039.png",
                r"1 images of train.txt have no file in .*SegmentationClass: 2007_00003",
            ),
            (
                "SegmentationClass/2007_000042.png",
                r"1 images of val.txt have no file in .*SegmentationClass: 2007_000042",
            ),
            ("JPEGImages/2010_000003.jpg", r"1 images of val.txt have no file in .*JPEGImages: 2010_000003"),
        ],
    )
    def test_something_is_missing(self, folder: Path, gone: str, message: str) -> None:
        path = folder / "VOCdevkit" / "VOC2012" / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(InputError, match=message):
            voc(folder).listing()

    def test_train_and_val_overlap(self, folder: Path) -> None:
        path = folder / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
        path.write_text(path.read_text() + TRAIN[1])
        with pytest.raises(InputError, match=r"share 1 ids: 2007_000039"):
            voc(folder).listing()

    def test_no_label_maps_in_the_folder_of_sbd(self, folder: Path) -> None:
        with pytest.raises(InputError, match=r"holds no label maps; expected benchmark_RELEASE"):
            voc(folder, sbd=folder)
        with pytest.raises(InputError, match=r"nowhere is missing; --sbd is"):
            voc(folder, sbd=folder / "nowhere")

    def test_a_picture_that_nobody_has(self, folder: Path) -> None:
        sbd = write_sbd(folder, SBD)
        for path in (sbd / "dataset" / "img", folder / "VOCdevkit" / "VOC2012" / "JPEGImages"):
            (path / f"{MORE[1]}.jpg").unlink()
        with pytest.raises(InputError, match=f"1 images of SBD have no file in .*img: {MORE[1]}"):
            voc(folder, sbd=sbd).listing()

    def test_without_scipy(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sbd = write_sbd(folder, SBD)
        _without_scipy(monkeypatch)
        with pytest.raises(InputError, match=r"\.mat files of SBD need SciPy.*pip install scipy"):
            voc(folder, sbd=sbd, protocol="blended")

    def test_damaged_maps_of_sbd(self, folder: Path) -> None:
        from scipy.io import savemat

        sbd = write_sbd(folder, SBD)
        source = voc(folder, sbd=sbd, protocol="blended")
        paths = [sbd / "dataset" / "cls" / f"{image_id}.mat" for image_id in MORE]
        paths[0].write_bytes(paths[0].read_bytes()[:150])
        savemat(paths[1], {"GTinst": {"Segmentation": sbd_ids(MORE[1])}})
        savemat(paths[2], {"GTcls": {"Segmentation": np.zeros((2, 2, 2))}})
        for path in paths:
            with pytest.raises(SampleError) as caught:
                source.read_label(Item(path.stem, path, path))
            assert caught.value.kind == "masks are no class maps of SBD (.mat files with GTcls.Segmentation)"
        with pytest.raises(SampleError, match="cannot be read"):
            source.read_label(Item("gone", paths[0], paths[0].with_name("gone.mat")))


def _without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "scipy" else find(name, *rest))
