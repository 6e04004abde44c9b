"""CamVid in its three forms, and MSRC-21 in its two, on miniatures in the published layouts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_trees import write_pair

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.catalog.camvid import ORIGINAL_CLASSES
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan import make_plan
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.sources.camvid import split_of
from s4mim_hf.data.splits import match_ids, read_id_list
from s4mim_hf.errors import InputError

# Two frames of each part that SegNet's lists cut the sequences into, the first and the last of it.
FRAMES = {
    "train": ("0001TP_006690", "0001TP_008520", "0006R0_f00930", "0006R0_f03930", "0016E5_00390", "0016E5_07920",
              "0016E5_08190", "0016E5_08640"),
    "val": ("0016E5_07959", "0016E5_08159"),
    "test": ("0001TP_008550", "0001TP_010380", "Seq05VD_f00000", "Seq05VD_f05100"),
}  # fmt: skip
# The published grouping, written the other way round than in the catalog.
GROUPS = {
    "sky": ["Sky"],
    "building": ["Bridge", "Building", "Wall", "Tunnel", "Archway"],
    "pole": ["Column_Pole", "TrafficCone"],
    "road": ["Road", "LaneMkgsDriv", "LaneMkgsNonDriv"],
    "pavement": ["Sidewalk", "ParkingBlock", "RoadShoulder"],
    "tree": ["Tree", "VegetationMisc"],
    "sign": ["SignSymbol", "Misc_Text", "TrafficLight"],
    "fence": ["Fence"],
    "car": ["Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"],
    "pedestrian": ["Pedestrian", "Child", "CartLuggagePram", "Animal"],
    "bicyclist": ["Bicyclist", "MotorcycleScooter"],
    None: ["Void"],
}


def opened(kind: str, source: Path, **changes: Any) -> Any:
    return open_source(PrepareOptions(kind, Path("unused"), str(source), **changes))


def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def frames() -> Iterator[tuple[str, str]]:
    return ((split, frame) for split, names in FRAMES.items() for frame in names)


def write_segnet(folder: Path) -> Path:
    root = folder / "CamVid"
    lists: dict[str, str] = dict.fromkeys(FRAMES, "")
    for split, frame in frames():
        write(root / split / f"{frame}.png", np.zeros((2, 6, 3)))
        write(root / f"{split}annot" / f"{frame}.png", np.arange(12).reshape(2, 6))
        lists[split] += f"/SegNet/CamVid/{split}/{frame}.png /SegNet/CamVid/{split}annot/{frame}.png\n"
    for split, lines in lists.items():
        (root / f"{split}.txt").write_text(lines)
    return root


def write_original(root: Path, labels: str = "LabeledApproved_full") -> Path:
    colors = [color for color, _ in ORIGINAL_CLASSES.values()]
    for _, frame in frames():
        write(root / "701_StillsRaw_full" / f"{frame}.png", np.zeros((4, 8, 3)))
        write(root / labels / f"{frame}_L.png", np.array(colors).reshape(4, 8, 3))
    (root / "label_colors.txt").write_text("64 128 64\tAnimal\n")
    return root


class TestSegNetsCopy:
    def test_the_splits_are_its_folders(self, tmp_path: Path) -> None:
        write_segnet(tmp_path)
        for folder in (tmp_path, tmp_path / "CamVid"):
            listing = opened("camvid", folder).listing()
            assert [item.id for item in listing.training] == [f"train/{frame}" for frame in FRAMES["train"]]
            assert [item.id for item in listing.validation] == [f"val/{frame}" for frame in FRAMES["val"]]
            assert "is SegNet's copy of CamVid (480x360); its id 11, void, is ignored" in listing.notes[0]
            assert listing.notes[1].startswith("train has 8 images where the published CamVid")
            assert listing.notes[-1].startswith("the 4 images of test are left out")

    def test_void_is_ignored(self, tmp_path: Path) -> None:
        source = opened("camvid", write_segnet(tmp_path))
        ids = source.read_label(source.listing().training[0])
        assert ids.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 255]]
        assert (source.name, source.classes.names) == ("camvid", CATALOG["camvid"].classes)

    def test_its_own_list_names_its_images(self, tmp_path: Path) -> None:
        root = write_segnet(tmp_path)
        listing = opened("camvid", root).listing()
        training, validation = ([item.id for item in items] for items in (listing.training, listing.validation))
        assert match_ids(read_id_list(root / "train.txt"), training, validation, "list") == training

    @pytest.mark.parametrize(
        ("gone", "message"),
        [
            ("val", r"the folder .*val is missing; it is part of SegNet's copy of CamVid"),
            ("valannot/0016E5_07959.png", r"1 of 2 images of CamVid's val have no mask: val/0016E5_07959"),
            ("train/0016E5_00390.png", r"1 label files of .*trainannot have no image in .*0016E5_00390"),
        ],
    )
    def test_something_is_missing(self, tmp_path: Path, gone: str, message: str) -> None:
        path = write_segnet(tmp_path) / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(InputError, match=message):
            opened("camvid", tmp_path).listing()


class TestOriginal:
    @pytest.mark.parametrize("labels", ["LabeledApproved_full", "labels"])
    def test_frames_are_split_as_segnets_lists_have_them(self, tmp_path: Path, labels: str) -> None:
        listing = opened("camvid", write_original(tmp_path, labels)).listing()
        assert [item.id for item in listing.training] == [f"train/{frame}" for frame in FRAMES["train"]]
        assert [item.id for item in listing.validation] == [f"val/{frame}" for frame in FRAMES["val"]]
        assert "original CamVid (960x720); its 32 classes are grouped into 11" in listing.notes[0]
        assert listing.notes[-1].startswith("the 4 images of test are left out")

    def test_32_colours_become_11_ids(self, tmp_path: Path) -> None:
        source = opened("camvid", write_original(tmp_path))
        ids = source.read_label(source.listing().training[0])
        assert ids.dtype == np.int64
        names = [None if class_id == 255 else source.classes.names[class_id] for class_id in ids.ravel()]
        found = dict(zip(ORIGINAL_CLASSES, names, strict=True))
        assert found == {member: group for group, members in GROUPS.items() for member in members}
        assert len(found) == 32

    def test_an_unlisted_colour(self, tmp_path: Path) -> None:
        root = write_original(tmp_path)
        write(root / "LabeledApproved_full" / "0001TP_006690_L.png", [[[128, 128, 128], [128, 128, 26]]])
        source = opened("camvid", root)
        with pytest.raises(SampleError) as caught:
            source.read_label(source.listing().training[0])
        assert caught.value.kind == "masks have colours that the colour table does not list"
        assert caught.value.detail == "128 128 26: 1 pixels"

    def test_a_frame_of_another_video(self, tmp_path: Path) -> None:
        root = write_original(tmp_path)
        write(root / "701_StillsRaw_full" / "0099XX_000030.png", np.zeros((4, 8, 3)))
        with pytest.raises(InputError, match="'0099XX_000030' is no frame of CamVid"):
            opened("camvid", root).listing()

    def test_labels_are_missing(self, tmp_path: Path) -> None:
        shutil.rmtree(write_original(tmp_path) / "LabeledApproved_full")
        with pytest.raises(InputError, match="no LabeledApproved_full/ with the labels"):
            opened("camvid", tmp_path).listing()

    def test_only_frames_of_test(self, tmp_path: Path) -> None:
        root = write_original(tmp_path)
        for split, frame in frames():
            if split != "test":
                (root / "701_StillsRaw_full" / f"{frame}.png").unlink()
                (root / "LabeledApproved_full" / f"{frame}_L.png").unlink()
        with pytest.raises(InputError, match="no images of CamVid's train"):
            opened("camvid", root).listing()


class TestPlainFolder:
    def test_images_and_masks(self, tmp_path: Path) -> None:
        for index, image_id in enumerate(("train/0016E5_00390", "train/0016E5_00420", "val/0016E5_07959")):
            write_pair(tmp_path, image_id, index)
        source = opened("camvid", tmp_path)
        listing = source.listing()
        assert [item.id for item in listing.training] == ["train/0016E5_00390", "train/0016E5_00420"]
        assert [item.id for item in listing.validation] == ["val/0016E5_07959"]
        assert set(np.unique(source.read_label(listing.training[0]))) == {0, 1, 2, 255}
        assert (source.title, source.classes.names) == (CATALOG["camvid"].title, CATALOG["camvid"].classes)

    @pytest.mark.parametrize("kind", ["camvid", "msrc21"])
    def test_no_form_that_is_known(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no form of .* that is known; expected"):
            opened(kind, tmp_path)

    @pytest.mark.real
    def test_real_frames_lie_where_the_original_is_split(self, shared_dir: Path) -> None:
        counts = {}
        for split in ("train", "val"):
            names = [path.stem for path in (shared_dir / "data" / "camvid" / "images" / split).iterdir()]
            assert {split_of(name) for name in names} == {split}
            counts[split] = len(names)
        published = CATALOG["camvid"].published_counts
        assert counts == {split: published[split] for split in counts}
        listing = opened("camvid", shared_dir / "data" / "camvid").listing()
        assert (len(listing.training), len(listing.validation)) == (counts["train"], counts["val"])


class TestMsrc21:
    NAMES = ("1_1_s", "1_2_s", "7_19_s", "20_30_s")

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "MSRC_ObjCategImageDatabase_v2"
        colors = [(0, 0, 0), (128, 0, 128), (64, 0, 0), *CATALOG["msrc21"].palette]
        for name in self.NAMES:
            write(root / "Images" / f"{name}.bmp", np.zeros((4, 6, 3)))
            write(root / "GroundTruth" / f"{name}_GT.bmp", np.array(colors).reshape(4, 6, 3))
        return root

    def write_lists(self, folder: Path, **parts: str) -> None:
        folder.mkdir()
        for part, name in {"Train": "7_19_s", "Validation": "1_1_s", "Test": "20_30_s", **parts}.items():
            (folder / f"{part}.txt").write_text(f"{name}.bmp\n")

    def test_colours_become_ids_and_rare_classes_are_ignored(self, root: Path) -> None:
        for folder in (root, root.parent):
            source = opened("msrc21", folder)
            listing = source.listing()
            assert [item.id for item in listing.training] == sorted(self.NAMES)
            assert listing.validation is None
            assert source.read_label(listing.training[0]).ravel().tolist() == [255, 255, 255, *range(21)]
            assert source.file_name(listing.training[0]) == "1_1_s.bmp"
            assert "horse and mountain are ignored" in listing.notes[0]
            assert listing.notes[1].startswith("images has 4 images where the published MSRC-21 (21 classes) has 591")

    @pytest.mark.parametrize("beside", [True, False])
    def test_the_published_split(self, root: Path, beside: bool) -> None:
        self.write_lists((root.parent if beside else root) / "TextonBoostSplits")
        listing = opened("msrc21", root).listing()
        assert [item.id for item in listing.training] == ["7_19_s"]
        assert [item.id for item in listing.validation] == ["1_1_s"]
        assert listing.notes[-1].startswith("the 1 images of Test.txt are left out")

    def test_a_split_of_one_s_own(self, root: Path) -> None:
        self.write_lists(root / "TextonBoostSplits")
        (root / "TextonBoostSplits" / "Test.txt").unlink()
        listing = opened("msrc21", root).listing()
        assert [item.id for item in listing.training] == ["7_19_s"]
        assert [item.id for item in listing.validation] == ["1_1_s"]
        assert listing.notes[-1].endswith("no Test.txt, so this is no published split; 2 images are left out")

    @pytest.mark.parametrize("parts", [{"Validation": "7_19_s"}, {"Train": "7_19_s.bmp\n7_19_s"}])
    def test_lists_of_one_s_own_that_name_an_image_twice(
        self, root: Path, tmp_path: Path, parts: dict[str, str]
    ) -> None:
        self.write_lists(root / "TextonBoostSplits", **parts)
        with pytest.raises(InputError, match=r"1 images are in the splits .* more than once, .*: 7_19_s; name each"):
            make_plan(PrepareOptions("msrc21", tmp_path / "out", str(root)))

    def test_a_list_names_an_unknown_image(self, root: Path) -> None:
        self.write_lists(root / "TextonBoostSplits", Test="9_99_s")
        with pytest.raises(InputError, match=r"Test.txt names 1 images that are not in Images/: 9_99_s"):
            opened("msrc21", root).listing()

    def test_an_unlisted_colour(self, root: Path) -> None:
        write(root / "GroundTruth" / "1_1_s_GT.bmp", [[[1, 2, 3], [0, 0, 0]]])
        source = opened("msrc21", root)
        with pytest.raises(SampleError, match="colours that the colour table does not list"):
            source.read_label(source.listing().training[0])

    def test_a_plain_folder(self, tmp_path: Path) -> None:
        write_pair(tmp_path, "train/1_1_s")
        listing = opened("msrc21", tmp_path).listing()
        assert [item.id for item in listing.training] == ["train/1_1_s"]
