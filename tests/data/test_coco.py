"""COCO in its three forms, on miniatures in the published layouts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from coco_trees import (
    ABSENT,
    SIZE,
    SPLITS,
    TRAIN,
    VAL,
    annotation,
    content,
    square,
    write_images,
    write_json,
    write_png,
)

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.catalog.coco import COCO_STUFF, STUFF_CLASSES, THING_CATEGORIES, THING_CLASSES
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan import make_plan
from s4mim_hf.data.prepare import fingerprint_of, prepare
from s4mim_hf.data.prepared import decode_label, load_prepared
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.data.splits import match_ids
from s4mim_hf.errors import InputError

IDS = [f"train2017/{name}" for name in TRAIN]
VALUES = [value for value in range(182) if value + 1 not in ABSENT]


def ids_of(name: str, values: list[int]) -> np.ndarray:
    rng = np.random.default_rng(int(name))
    return rng.choice([*values, 255], size=SIZE[::-1])


def coco(source: Path, **changes: Any) -> Any:
    return open_source(PrepareOptions("coco", Path("unused"), str(source), **changes))


def refused(source: Path, *messages: str, **changes: Any) -> None:
    with pytest.raises(InputError) as caught:
        coco(source, **changes).listing()
    assert "\n" not in str(caught.value)
    for message in messages:
        assert message in str(caught.value)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return write_images(tmp_path / "coco")


@pytest.fixture
def stuff(bare: Path) -> Path:
    for split, names in SPLITS.items():
        for name in names:
            write_png(bare / "stuffthingmaps" / split / f"{name}.png", ids_of(name, VALUES))
    return bare


@pytest.fixture
def masks(bare: Path) -> Path:
    for names in SPLITS.values():
        for name in names:
            write_png(bare / "masks" / f"{name}.png", ids_of(name, list(range(81))))
    return bare


@pytest.fixture
def instances(bare: Path) -> Path:
    """A dining table (67) with a cup (47) on it, an image without annotations, and a crowd of people behind a dog."""
    crowd = {"size": [SIZE[1], SIZE[0]], "counts": [0, SIZE[0] * SIZE[1]]}
    annotations = [
        annotation(1, TRAIN[0], 47, [square(3, 3, 5, 5)]),
        annotation(2, TRAIN[0], 67, [square(1, 1, 9, 8)]),
        annotation(3, TRAIN[2], 1, crowd, crowd=1),
        annotation(4, TRAIN[2], 18, [square(0, 0, 4, 2), square(6, 0, 8, 2)]),
    ]
    write_json(bare / "annotations/instances_train2017.json", content(TRAIN, annotations, THING_CATEGORIES))
    val = content(VAL, [annotation(1, VAL[0], 90, [square(0, 0, 2, 3)])], THING_CATEGORIES)
    write_json(bare / "annotations/instances_val2017.json", val)
    return bare


def expected_instances() -> dict[str, np.ndarray]:
    """Class names rather than ids: "dining table" is class 61 because it is the 61st thing with annotations."""
    names = CATALOG["coco"].classes
    expected = {f"{split}/{name}": np.zeros(SIZE[::-1], int) for split, all_ in SPLITS.items() for name in all_}
    expected[IDS[0]][1:8, 1:9] = names.index("dining table")
    expected[IDS[0]][3:5, 3:5] = names.index("cup")
    expected[IDS[2]][:] = names.index("person")
    expected[IDS[2]][:2, :4] = expected[IDS[2]][:2, 6:8] = names.index("dog")
    expected[f"val2017/{VAL[0]}"][:3, :2] = names.index("toothbrush")
    return expected


class TestCatalog:
    def test_80_things_close_the_gaps_of_90(self) -> None:
        info = CATALOG["coco"]
        assert (len(info.classes), info.classes[0]) == (81, "background")
        assert {info.classes[k] for k in (1, 12, 80)} == {"person", "stop sign", "toothbrush"}
        for category in range(1, 91):
            expected = category - sum(absent < category for absent in ABSENT)
            assert THING_CLASSES.get(category) == (None if category in ABSENT else expected)

    def test_171_classes_close_the_gaps_of_182(self) -> None:
        assert len(COCO_STUFF.classes) == len(set(COCO_STUFF.classes)) == len(set(COCO_STUFF.palette)) == 171
        for category in range(1, 183):
            expected = category - 1 - sum(absent < category for absent in ABSENT)
            assert STUFF_CLASSES.get(category) == (None if category in ABSENT else expected)
        # Of labels.txt: 92 banner, 106 clouds, 149 road, 182 wood.
        for category, name in {
            1: "person",
            90: "toothbrush",
            92: "banner",
            106: "clouds",
            149: "road",
            182: "wood",
        }.items():
            assert COCO_STUFF.classes[STUFF_CLASSES[category]] == name


class TestStuff:
    def test_labels(self, stuff: Path) -> None:
        source = coco(stuff)
        listing = source.listing()
        assert (source.name, source.classes.names, source.protocol) == (
            "coco_stuff", COCO_STUFF.classes, COCO_STUFF.protocol,
        )  # fmt: skip
        assert [item.id for item in listing.training] == IDS
        assert [item.id for item in listing.validation] == [f"val2017/{VAL[0]}"]
        for item in [*listing.training, *listing.validation]:
            raw = ids_of(item.id.split("/")[1], VALUES)
            expected = [[255 if value == 255 else VALUES.index(value) for value in row] for row in raw]
            np.testing.assert_array_equal(source.read_label(item), expected)
        assert any("stuffthingmaps, whose ids 0 to 181 become the 171 classes" in note for note in listing.notes)

    def test_the_layouts_of_its_own_readme(self, stuff: Path) -> None:
        (stuff / "images").mkdir()
        for split in SPLITS:
            (stuff / split).rename(stuff / "images" / split)
        (stuff / "stuffthingmaps").rename(stuff / "annotations")
        listing = coco(stuff).listing()
        assert [item.id for item in listing.training] == IDS
        assert listing.training[0].label == stuff / "annotations" / "train2017" / f"{TRAIN[0]}.png"

    def test_files_that_other_tools_left_are_passed_over(self, stuff: Path) -> None:
        write_png(stuff / "stuffthingmaps" / "train2017" / f"{TRAIN[0]}_labelTrainIds.png", np.zeros((2, 2)))
        assert coco(stuff).listing().training[0].label.name == f"{TRAIN[0]}.png"

    @pytest.mark.parametrize("odd", [11, 182, 254])
    def test_ids_of_no_category_are_refused(self, stuff: Path, odd: int) -> None:
        ids = ids_of(TRAIN[0], VALUES)
        ids[2, 2] = odd
        write_png(stuff / "stuffthingmaps" / "train2017" / f"{TRAIN[0]}.png", ids)
        source = coco(stuff)
        with pytest.raises(SampleError) as caught:
            source.read_label(source.listing().training[0])
        assert "171 categories" in caught.value.kind
        assert caught.value.detail == f"ids {odd}"

    def test_an_image_without_label_is_unlabelled_in_train_and_refused_in_val(self, stuff: Path) -> None:
        (stuff / "stuffthingmaps" / "train2017" / f"{TRAIN[1]}.png").unlink()
        listing = coco(stuff).listing()
        assert [item.id for item in listing.training if item.label is None] == [IDS[1]]
        assert f"1 of 3 images of train2017 have no label: {IDS[1]}" in listing.notes
        (stuff / "stuffthingmaps" / "val2017" / f"{VAL[0]}.png").unlink()
        refused(stuff, "1 of 1 images of", "have no mask", f"val2017/{VAL[0]}")

    def test_labels_without_images(self, stuff: Path) -> None:
        (stuff / "train2017" / f"{TRAIN[1]}.jpg").unlink()
        refused(stuff, "1 labels of", "have no image", f"{TRAIN[1]}.png")

    def test_no_labels_at_all(self, stuff: Path) -> None:
        for path in (stuff / "stuffthingmaps" / "train2017").iterdir():
            path.unlink()
        refused(stuff, "no image of", "train2017 has a label")
        shutil.rmtree(stuff / "stuffthingmaps" / "val2017")
        refused(stuff, "stuffthingmaps/val2017 is missing")


class TestMasks:
    def test_labels(self, masks: Path) -> None:
        source = coco(masks)
        listing = source.listing()
        assert (source.name, source.classes.names) == ("coco", CATALOG["coco"].classes)
        for item in [*listing.training, *listing.validation]:
            np.testing.assert_array_equal(source.read_label(item), ids_of(item.id.split("/")[1], list(range(81))))
        assert any("masks, with the ids 0 to 80" in note for note in listing.notes)

    def test_entries_of_the_peers_lists_are_images(self, masks: Path) -> None:
        source = coco(masks)
        entries = ["train2017/000000000025.jpg", "train2017/000000000030", "000000000009"]
        assert match_ids(entries, IDS, [], "list", source.id_of_entry) == [IDS[1], IDS[2], IDS[0]]

    def test_prepared(self, masks: Path, tmp_path: Path) -> None:
        (tmp_path / "l.txt").write_text("train2017/000000000025.jpg masks/000000000025.png\n")
        prepare(PrepareOptions("coco", tmp_path / "out", str(masks), labeled_ids=str(tmp_path / "l.txt")), print)
        rows = [pq.read_table(path).to_pylist() for path in load_prepared(tmp_path / "out").shards["labeled"]]
        assert [row["id"] for held in rows for row in held] == [IDS[1]]
        np.testing.assert_array_equal(decode_label(rows[0][0]["label"]["bytes"]), ids_of(TRAIN[1], list(range(81))))


class TestInstances:
    def test_labels(self, instances: Path) -> None:
        source = coco(instances)
        listing = source.listing()
        assert (source.name, source.classes.names) == ("coco", CATALOG["coco"].classes)
        expected = expected_instances()
        for item in [*listing.training, *listing.validation]:
            found = source.read_label(item)
            assert found.dtype == np.int64
            np.testing.assert_array_equal(found, expected.pop(item.id), err_msg=item.id)
        assert not expected
        assert any("instances_train2017.json (crowds first, then the largest" in note for note in listing.notes)

    def test_an_interrupted_call_goes_on_for_the_same_annotations_only(self, instances: Path, tmp_path: Path) -> None:
        asked = PrepareOptions("coco", tmp_path / "out", str(instances))
        found = {fingerprint_of(asked, make_plan(asked))}
        for split in SPLITS:
            path = instances / "annotations" / f"instances_{split}.json"
            path.write_text(path.read_text() + " ")
            found.add(fingerprint_of(asked, make_plan(asked)))
        assert len(found) == 3

    def test_images_that_the_file_does_not_list_are_unlabelled(self, instances: Path) -> None:
        write_images(instances, {"train2017": ["000000000001"], "unlabeled2017": ["000000000008"], "test2017": ["7"]})
        listing = coco(instances).listing()
        assert [item.id for item in listing.training if item.label is None] == [
            "train2017/000000000001", "unlabeled2017/000000000008",
        ]  # fmt: skip
        assert "1 of 4 images of train2017 have no label: train2017/000000000001" in listing.notes
        assert any("1 images of unlabeled2017 are added" in note for note in listing.notes)
        assert any("test2017 is left out" in note for note in listing.notes)
        assert any("train2017 has 4 images where the published" in note and "118287" in note for note in listing.notes)

    def test_prepared(self, instances: Path, tmp_path: Path) -> None:
        prepare(PrepareOptions("coco", tmp_path / "out", str(instances), labeled="all"), print)
        data, expected = load_prepared(tmp_path / "out"), expected_instances()
        for split in ("labeled", "validation"):
            for path in data.shards[split]:
                for row in pq.read_table(path).to_pylist():
                    np.testing.assert_array_equal(decode_label(row["label"]["bytes"]), expected.pop(row["id"]))
        assert not expected

    def test_a_picture_of_another_size_than_the_file_says(self, instances: Path, tmp_path: Path) -> None:
        value = content(TRAIN, [], THING_CATEGORIES)
        value["images"][0] |= {"height": 5, "width": 7}
        write_json(instances / "annotations" / "instances_train2017.json", value)
        with pytest.raises(InputError, match="1 masks have another size than their image"):
            prepare(PrepareOptions("coco", tmp_path / "out", str(instances)), print)
        assert not (tmp_path / "out").exists()

    def test_images_that_are_missing(self, instances: Path) -> None:
        (instances / "train2017" / f"{TRAIN[1]}.jpg").unlink()
        refused(
            instances, "lists 1 images that are not in train2017/", f"{TRAIN[1]}.jpg", "unpack all of train2017.zip"
        )

    def test_the_file_of_val_is_missing(self, instances: Path) -> None:
        (instances / "annotations" / "instances_val2017.json").rename(instances / "annotations" / "other.json")
        refused(instances, "images in val2017/, but no instances_val2017.json beside", "take val2017/ away")
        (instances / "annotations" / "instances_train2017.json").rename(instances / "mine.json")
        refused(instances, "no instances_val2017.json beside", annotations=instances / "mine.json")
        (instances / "val2017").rename(instances / "elsewhere")
        assert coco(instances, annotations=instances / "mine.json").listing().validation is None


class TestChoice:
    def test_several_forms_want_a_choice(self, instances: Path) -> None:
        for split, names in SPLITS.items():
            for name in names:
                write_png(instances / "annotations" / split / f"{name}.png", ids_of(name, VALUES))
                write_png(instances / "masks" / f"{name}.png", ids_of(name, list(range(81))))
        refused(instances, "labels of 3 forms", "171 classes", "instances_train2017.json", "--annotations PATH")
        names = {
            "annotations/instances_train2017.json": ("coco", "drawn from"),
            "annotations": ("coco_stuff", "171"),
            "masks": ("coco", "81 classes"),
        }
        for path, (name, words) in names.items():
            source = coco(instances, annotations=instances / path)
            assert source.name == name
            assert words in source.listing().notes[0]
        shutil.rmtree(instances / "annotations" / "train2017")
        assert "drawn from" in coco(instances, annotations=instances / "annotations").listing().notes[0]

    def test_what_is_not_there(self, bare: Path) -> None:
        refused(bare, "has no labels that are known", "stuffthingmaps/train2017/", "masks/", "--annotations")
        refused(bare, "nowhere does not exist", annotations=bare / "nowhere")
        refused(bare, "val2017 holds none of them", annotations=bare / "val2017")
        (bare / "train2017").rename(bare / "train2014")
        refused(bare, "train2017 is missing", "--source of 'coco' holds train2017/")
        (bare / "train2017").mkdir()
        (bare / "masks").mkdir()
        refused(bare, "there are no images in", "000000000009.jpg")
