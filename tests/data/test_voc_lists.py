"""The peers' real id lists for Pascal VOC, against a tree that holds the images they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.splits import match_ids, read_id_list


def voc(source: Path, **changes: Any) -> Any:
    return open_source(PrepareOptions("voc", Path("unused"), str(source), **changes))


def ids_of(lines: list[str]) -> list[str]:
    return [line.split()[0].removeprefix("JPEGImages/").removesuffix(".jpg") for line in lines]


@pytest.mark.real
class TestPeersLists:
    """UniMatch's lists, cut to every 25th image and the 92, against a tree of these images with empty files."""

    @pytest.fixture(scope="class")
    def kept(self, shared_dir: Path) -> dict[str, list[str]]:
        folder = shared_dir / "splits" / "pascal"
        if not folder.is_dir():
            pytest.skip(f"the peers' lists are not at {folder}")
        lines = {path.relative_to(folder).as_posix(): path.read_text().splitlines() for path in folder.rglob("*.txt")}
        chosen = {line for name in ("train_aug.txt", "val.txt") for line in sorted(lines[name])[::25]}
        chosen |= set(lines["92/labeled.txt"])
        return {name: [line for line in each if line in chosen] for name, each in lines.items()}

    @pytest.fixture(scope="class")
    def tree(self, kept: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("names") / "VOC2012"
        for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)
        for split, name in (("train", "1464/labeled.txt"), ("val", "val.txt")):
            (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(ids_of(kept[name])))
            for image_id in ids_of(kept[name]):
                (root / "SegmentationClass" / f"{image_id}.png").touch()
        for image_id in ids_of(kept["train_aug.txt"] + kept["val.txt"]):
            (root / "JPEGImages" / f"{image_id}.jpg").touch()
            (root / "SegmentationClassAug" / f"{image_id}.png").touch()
        return root

    def test_every_list_names_images_that_are_there(
        self, tree: Path, kept: dict[str, list[str]], tmp_path: Path
    ) -> None:
        listing = voc(tree, protocol="blended").listing()
        training, validation = ([item.id for item in items] for items in (listing.training, listing.validation))
        assert (training, validation) == (sorted(ids_of(kept["train_aug.txt"])), sorted(ids_of(kept["val.txt"])))
        for folder in sorted({name.split("/")[0] for name in kept if "/" in name}):
            found = []
            for name in (f"{folder}/labeled.txt", f"{folder}/unlabeled.txt"):
                path = tmp_path / name.replace("/", "_")
                path.write_text("\n".join(kept[name]))
                matched = match_ids(read_id_list(path), training, validation, name)
                assert matched == ids_of(kept[name])
                found += matched
            assert sorted(found) == training, folder

    def test_the_lists_of_the_classic_protocol_choose_from_train(self, tree: Path, kept: dict[str, list[str]]) -> None:
        labelable = voc(tree).listing().labelable
        for count in (92, 183, 366, 732, 1464):
            assert set(ids_of(kept[f"{count}/labeled.txt"])) <= labelable
        assert not set(ids_of(kept["1_8/labeled.txt"])) <= labelable
