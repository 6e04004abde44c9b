"""Cityscapes, on a miniature in the published layout and with the peers' real lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare
from s4mim_hf.data.prepared import decode_label, load_prepared
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.splits import match_ids, read_id_list
from s4mim_hf.errors import InputError

# The names of ids 0 .. 33, and the 19 that are evaluated, in the order of their training ids.
# fmt: off
NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk",
    "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup",
    "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus",
    "caravan", "trailer", "train", "motorcycle", "bicycle",
)
EVALUATED = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)
# fmt: on

TRAIN = ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "jena/jena_000078_000019")
VAL = ("frankfurt/frankfurt_000001_062250",)
SIZE = (16, 8)


def write_image(source: Path, split: str, image_id: str) -> None:
    path = source / "leftImg8bit" / split / f"{image_id}_leftImg8bit.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (40, 80, 120)).save(path)


def label_path(source: Path, split: str, image_id: str, kind: str) -> Path:
    return source / "gtFine" / split / f"{image_id}_gtFine_{kind}.png"


def write_label(source: Path, split: str, image_id: str, kind: str, ids: np.ndarray) -> None:
    path = label_path(source, split, image_id, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def raw_ids(image_id: str) -> np.ndarray:
    """Every one of the 34 ids occurs."""
    rng = np.random.default_rng(sum(map(ord, image_id)))
    return rng.permutation(np.arange(SIZE[0] * SIZE[1]) % len(NAMES)).reshape(SIZE[::-1])


def train_ids(raw: np.ndarray) -> np.ndarray:
    expected = np.empty_like(raw)
    for position, value in np.ndenumerate(raw):
        name = NAMES[value]
        expected[position] = EVALUATED.index(name) if name in EVALUATED else 255
    return expected


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """As leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip unpack, other files of gtFine included."""
    folder = tmp_path / "cityscapes"
    for split, ids in (("train", TRAIN), ("val", VAL), ("test", ("berlin/berlin_000000_000019",))):
        for image_id in ids:
            write_image(folder, split, image_id)
            for kind in ("labelIds", "instanceIds", "color"):
                write_label(folder, split, image_id, kind, raw_ids(image_id))
            label_path(folder, split, image_id, "polygons").with_suffix(".json").write_text("{}")
    (folder / "README").write_text("The Cityscapes Dataset")
    return folder


def cityscapes(source: Path, **changes: Any) -> Any:
    return open_source(PrepareOptions("cityscapes", Path("unused"), str(source), **changes))


def refused(source: Path, *messages: str) -> None:
    with pytest.raises(InputError) as caught:
        cityscapes(source).listing()
    assert "\n" not in str(caught.value)
    for message in messages:
        assert message in str(caught.value)


class TestListing:
    def test_ids_are_city_and_name_and_val_is_kept_aside(self, source: Path) -> None:
        listing = cityscapes(source).listing()
        assert tuple(item.id for item in listing.training) == TRAIN
        assert tuple(item.id for item in listing.validation) == VAL
        assert listing.labelable is None
        for item in [*listing.training, *listing.validation]:
            assert item.image.is_file()
            assert item.label.name.endswith("_gtFine_labelIds.png")

    def test_notes(self, source: Path) -> None:
        notes = cityscapes(source).listing().notes
        assert "4 labels are read from labelIds files, whose 34 ids become the 19 classes" in notes
        assert any("1 images of leftImg8bit/test are left out" in note for note in notes)
        assert any("train has 3 images where the published" in note and "2975" in note for note in notes)
        assert any("val has 1 images where the published" in note and "500" in note for note in notes)

    def test_images_of_train_extra_are_added_without_labels(self, source: Path) -> None:
        write_image(source, "train_extra", "augsburg/augsburg_000000_000000")
        listing = cityscapes(source).listing()
        assert [item.id for item in listing.training if item.label is None] == ["augsburg/augsburg_000000_000000"]
        assert [item.id for item in listing.training] == sorted(item.id for item in listing.training)
        assert any("1 images of leftImg8bit/train_extra" in note for note in listing.notes)

    def test_an_image_without_label_is_unlabelled_in_train_and_refused_in_val(self, source: Path) -> None:
        label_path(source, "train", TRAIN[1], "labelIds").unlink()
        listing = cityscapes(source).listing()
        assert [item.id for item in listing.training if item.label is None] == [TRAIN[1]]
        assert f"1 of 3 images of train have no label: {TRAIN[1]}" in listing.notes
        label_path(source, "val", VAL[0], "labelIds").unlink()
        refused(source, "1 of 1 images of", "have no mask", VAL[0])

    def test_without_val_there_is_no_validation(self, source: Path) -> None:
        for image_id in VAL:
            (source / "leftImg8bit" / "val" / f"{image_id}_leftImg8bit.png").unlink()
        refused(source, "there are no images in", "_leftImg8bit.png")
        (source / "leftImg8bit" / "val").rename(source / "elsewhere")
        assert cityscapes(source).listing().validation is None

    def test_the_data_set_is_the_catalogs(self, source: Path) -> None:
        opened, info = cityscapes(source), CATALOG["cityscapes"]
        assert opened.classes.names == EVALUATED == info.classes
        assert opened.classes.palette == info.palette
        assert (opened.name, opened.title, opened.protocol) == ("cityscapes", info.title, info.protocol)
        assert cityscapes(source, name="streets").name == "streets"
        # Two well-known ones: a road is purple, the sky is steel blue.
        assert (info.palette[0], info.palette[10]) == ((128, 64, 128), (70, 130, 180))


class TestLabels:
    def test_34_ids_become_19_and_ignored(self, source: Path) -> None:
        opened = cityscapes(source)
        for item in opened.listing().training:
            found = opened.read_label(item)
            assert found.dtype == np.int64
            np.testing.assert_array_equal(found, train_ids(raw_ids(item.id)))

    def test_training_ids_are_taken_as_they_are(self, source: Path) -> None:
        """As the peers' archive has them: labelTrainIds, and nothing else."""
        for split, ids in (("train", TRAIN), ("val", VAL)):
            for image_id in ids:
                write_label(source, split, image_id, "labelTrainIds", train_ids(raw_ids(image_id)))
        both = cityscapes(source).listing()
        assert {item.label.name.rsplit("_", 1)[1] for item in both.training} == {"labelIds.png"}
        for split, ids in (("train", TRAIN), ("val", VAL)):
            for image_id in ids:
                label_path(source, split, image_id, "labelIds").unlink()
        opened = cityscapes(source)
        listing = opened.listing()
        assert "4 labels are read from labelTrainIds files" in listing.notes
        for item in listing.training:
            np.testing.assert_array_equal(opened.read_label(item), train_ids(raw_ids(item.id)))

    @pytest.mark.parametrize("odd", [34, 254])
    def test_an_id_of_no_table_is_refused(self, source: Path, odd: int) -> None:
        """Left as it is, 34 would be no class here, but 7 to 18 would be the wrong ones."""
        ids = raw_ids(TRAIN[0])
        ids[0, 0] = odd
        write_label(source, "train", TRAIN[0], "labelIds", ids)
        opened = cityscapes(source)
        with pytest.raises(SampleError) as caught:
            opened.read_label(opened.listing().training[0])
        assert caught.value.kind.startswith("masks hold ids other than 0 to 33")
        assert caught.value.detail == f"ids {odd}"

    def test_ids_of_16_bits_are_refused(self, source: Path) -> None:
        """The file of instances under the wrong name: 26001 is the second car."""
        path = label_path(source, "train", TRAIN[0], "labelIds")
        Image.fromarray(np.full(SIZE[::-1], 26001, np.uint16)).save(path)
        opened = cityscapes(source)
        with pytest.raises(SampleError, match="26001"):
            opened.read_label(opened.listing().training[0])


class TestLists:
    def test_entries_of_the_peers_lists_are_images(self, source: Path) -> None:
        opened = cityscapes(source)
        entries = [
            "leftImg8bit/train/jena/jena_000078_000019_leftImg8bit.png",
            "train/aachen/aachen_000000_000019_leftImg8bit.png",
            "aachen_000001_000019",
        ]
        assert match_ids(entries, TRAIN, VAL, "list", opened.id_of_entry) == [TRAIN[2], TRAIN[0], TRAIN[1]]
        with pytest.raises(InputError, match="names 1 validation images"):
            match_ids([f"leftImg8bit/val/{VAL[0]}_leftImg8bit.png"], TRAIN, VAL, "list", opened.id_of_entry)

    @pytest.mark.real
    def test_the_real_lists_name_all_of_train_and_val(self, shared_dir: Path, tmp_path: Path) -> None:
        lists = shared_dir / "splits" / "cityscapes"
        parts = sorted(path.parent for path in lists.glob("*/labeled.txt"))
        files = [parts[0] / "labeled.txt", parts[0] / "unlabeled.txt", lists / "val.txt"]
        lines = [line.split() for file in files for line in file.read_text().splitlines()]
        assert len(lines) == 2975 + 500
        for folder in {Path(name).parent for pair in lines for name in pair}:
            (tmp_path / folder).mkdir(parents=True)
        for pair in lines:
            for name in pair:
                (tmp_path / name).touch()
        opened = cityscapes(tmp_path)
        listing = opened.listing()
        train, val = ([item.id for item in items] for items in (listing.training, listing.validation))
        assert not any("published" in note for note in listing.notes if "labels" not in note)
        for part in parts:
            named = [
                match_ids(read_id_list(part / f"{side}.txt"), train, val, side, opened.id_of_entry)
                for side in ("labeled", "unlabeled")
            ]
            assert sorted([*named[0], *named[1]]) == train
        with pytest.raises(InputError, match="names 500 validation images"):
            match_ids(read_id_list(lists / "val.txt"), train, val, "val.txt", opened.id_of_entry)


class TestBadFolders:
    @pytest.mark.parametrize("missing", ["leftImg8bit", "gtFine", "gtFine/train"])
    def test_a_missing_folder(self, source: Path, missing: str) -> None:
        (source / missing).rename(source / "moved")
        refused(source, f"{source / missing} is missing", "leftImg8bit/ and gtFine/")

    def test_the_folder_of_pictures_given_as_source(self, source: Path) -> None:
        refused(source / "leftImg8bit", "is missing", "the folder that holds leftImg8bit/ and gtFine/")

    def test_polygons_alone_are_no_labels(self, source: Path) -> None:
        for path in (source / "gtFine" / "train").glob("*/*.png"):
            path.unlink()
        refused(source, "no image of train has a label", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png")

    def test_labels_without_images(self, source: Path) -> None:
        (source / "leftImg8bit" / "train" / f"{TRAIN[0]}_leftImg8bit.png").unlink()
        refused(source, "1 labels of", "have no image", TRAIN[0], "unpack all of leftImg8bit/train")

    def test_one_image_in_two_splits(self, source: Path) -> None:
        write_image(source, "train_extra", VAL[0])
        refused(source, f"are both {VAL[0]!r}; keep one of them")


def test_prepared_with_the_peers_lists(source: Path, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(
        f"leftImg8bit/train/{TRAIN[0]}_leftImg8bit.png gtFine/train/{TRAIN[0]}_gtFine_labelTrainIds.png\n"
    )
    (tmp_path / "u.txt").write_text(
        "".join(
            f"leftImg8bit/train/{each}_leftImg8bit.png gtFine/train/{each}_gtFine_labelTrainIds.png\n"
            for each in TRAIN[1:]
        )
    )
    write_image(source, "train_extra", "augsburg/augsburg_000000_000000")
    lists = {"labeled_ids": str(tmp_path / "l.txt"), "unlabeled_ids": str(tmp_path / "u.txt")}
    notes: list[str] = []
    prepare(PrepareOptions("cityscapes", tmp_path / "out", str(source), **lists), notes.append)
    rows = {
        split: [row for path in paths for row in pq.read_table(path).to_pylist()]
        for split, paths in load_prepared(tmp_path / "out").shards.items()
    }
    assert {split: [row["id"] for row in held] for split, held in rows.items()} == {
        "labeled": [TRAIN[0]], "unlabeled": list(TRAIN[1:]), "validation": list(VAL),
    }  # fmt: skip
    np.testing.assert_array_equal(decode_label(rows["labeled"][0]["label"]["bytes"]), train_ids(raw_ids(TRAIN[0])))
    assert any("1 training images are in neither list" in note for note in notes)
