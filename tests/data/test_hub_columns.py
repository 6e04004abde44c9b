"""Which splits and columns of a data set are taken, and what the values of its masks mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hub_trees import (
    HEIGHT,
    PICTURE,
    WIDTH,
    encoded,
    label,
    mask,
    opened,
    parquet,
    picture,
    plain,
    refused,
    written,
)
from PIL import Image

from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_label_maps(tmp_path: Path) -> None:
    source = plain(tmp_path / "raw", train=2)

    def first(**options: Any) -> tuple[np.ndarray, tuple[str, ...] | None]:
        made = opened(source, **options)
        return made.read_label(made.listing().training[0]), made.classes.names if made.classes else None

    raw = mask(0).astype(int)
    names = written(tmp_path, "names.json", {"2": "road", "0": "sky", "1": "road"})
    found, classes = first(label_map=names)
    np.testing.assert_array_equal(found, np.select([raw == 0, raw == 255], [0, 255], 1))
    assert classes == ("sky", "road")
    # As the help shows it: 255 is ignored whether the others are names or numbers.
    mixed = written(tmp_path, "mixed.json", {"0": "sky", "1": "road", "2": 255})
    found, classes = first(label_map=mixed)
    np.testing.assert_array_equal(found, np.select([raw == 0, raw == 1], [0, 1], 255))
    assert classes == ("sky", "road")
    found, classes = first(label_map=names, classes=("cow", "road", "sky"))
    np.testing.assert_array_equal(found, np.select([raw == 0, raw == 255], [2, 255], 1))
    numbers = written(tmp_path, "numbers.json", {"0": None, "1": 1, "2": 0, "255": 1})
    found, classes = first(label_map=numbers)
    np.testing.assert_array_equal(found, np.select([raw == 0, raw == 2], [255, 0], 1))
    assert classes is None
    written(source, "id2label.json", {"0": "unlabeled", "1": "road", "2": "sky"})
    assert first(label_map=written(tmp_path, "swap.json", {"0": 255, "1": 1, "2": 0}))[1] == ("sky", "road")
    found, classes = first()
    assert classes == ("unlabeled", "road", "sky")
    assert any("class 0 is called 'unlabeled'" in note for note in opened(source).listing().notes)
    short = opened(source, label_map=written(tmp_path, "short.json", {"1": 0, "7": None}), classes=("a",))
    with pytest.raises(SampleError, match="ids that the label map does not list") as caught:
        short.read_label(short.listing().training[0])
    assert caught.value.detail == "0, 2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ("{}", "holds no object"),
        ({"road": 0}, "has the key 'road', which is no id"),
        ({"-1": 0}, "has the key '-1', which is no id"),
        ({"0": 1.5}, "has 1.5 among other values"),
        ({"0": "a", "1": 1}, "has 1 among other values"),
        ({"0": "a", "1": "d"}, "names d, which is no class of --classes"),
        ({"0": 0, "1": 3}, "are 0 to 3, but must be 0 to 2 (3 classes)"),
        ({"0": -1}, "are -1 to -1"),
        ({"0": None}, "names"),
    ],
)
def test_label_maps_that_are_none(content: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, "map.json", content)
    with pytest.raises(InputError, match=re.escape(message)):
        opened(
            plain(tmp_path / "raw", train=1),
            label_map=path,
            classes=None if content == {"0": None} else ["a", "b", "c"],
        )


def test_where_the_classes_come_from(tmp_path: Path) -> None:
    source = plain(tmp_path / "raw", train=1)
    assert opened(source).classes is None
    path = written(source, "id2label.json", {"0": "a", "2": "b"})
    refused(source, "names the ids 0, 2, but masks need the ids 0 to 1; give new ones with --label-map")
    assert opened(source, classes=("x",)).classes.names == ("x",)  # type: ignore[union-attr]
    path.write_text("[")
    refused(source, "id2label.json is no")
    path.unlink()
    written(source, "classes.json", ["a", "b", "c"])
    assert opened(source).classes.names == ("a", "b", "c")  # type: ignore[union-attr]


def test_masks_in_colours(tmp_path: Path) -> None:
    ids_wanted = np.random.default_rng(0).choice([0, 1, 255], (HEIGHT, WIDTH))
    colors = np.array([[{0: (9, 8, 7), 1: (1, 2, 3), 255: (0, 0, 0)}[value] for value in line] for line in ids_wanted])
    stored = {"bytes": encoded(Image.fromarray(colors.astype(np.uint8))), "path": None}
    rows = [{"image": picture(0), "mask": stored}]
    source = parquet(tmp_path / "raw", {"image": PICTURE, "mask": PICTURE}, train=rows)
    table = written(tmp_path, "table.json", {"road": [9, 8, 7], "tree": [1, 2, 3], "void": [0, 0, 0]})
    made = opened(source, color_table=table)
    np.testing.assert_array_equal(made.read_label(made.listing().training[0]), ids_wanted)
    assert made.classes is not None
    assert made.classes.palette == ((9, 8, 7), (1, 2, 3))
    plain_source = opened(source)
    with pytest.raises(SampleError, match="hold colours"):
        plain_source.read_label(plain_source.listing().training[0])
    refused(source, "leave one of them out", color_table=table, label_map=table)


def test_palettes_give_their_ids(tmp_path: Path) -> None:
    image = Image.fromarray(mask(0) % 3)
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    rows = [{"image": picture(0), "annotation": {"bytes": encoded(image), "path": None}}]
    made = opened(parquet(tmp_path / "raw", {"image": PICTURE, "annotation": PICTURE}, train=rows))
    np.testing.assert_array_equal(made.read_label(made.listing().training[0]), mask(0) % 3)


WIDE = {
    "id": datasets.Value("string"),
    "photo": PICTURE,
    "depth": PICTURE,
    "truth": PICTURE,
    "scene": datasets.ClassLabel(names=["in", "out"]),
    "raw": datasets.Value("binary"),
}


def wide(tmp_path: Path) -> Path:
    return parquet(
        tmp_path / "wide",
        WIDE,
        train=[
            {
                "id": "a",
                "photo": picture(0),
                "depth": picture(1),
                "truth": label(0),
                "scene": 0,
                "raw": label(0)["bytes"],
            },
            {"id": "b", "photo": picture(1), "depth": picture(1), "truth": label(1), "scene": 1, "raw": b"no picture"},
        ],
    )


def test_columns_that_are_asked_for(tmp_path: Path) -> None:
    source = wide(tmp_path)
    columns = "(id (string), photo (Image), depth (Image), truth (Image), scene (ClassLabel), raw (binary))"
    refused(source, f"--label-column is needed for {source}: which of its columns holds the masks? {columns}")
    made = opened(source, label_column="truth")
    assert made.listing().notes[-1] == "pictures are those of column 'photo', masks those of 'truth'"
    made = opened(source, label_column="raw", image_column="depth")
    items = made.listing().training
    np.testing.assert_array_equal(made.read_label(items[0]), mask(0))
    with pytest.raises(SampleError, match="cannot be read as pictures"):
        made.read_label(items[1])
    refused(source, "--label-column 'scene' is of type ClassLabel, but should hold masks", label_column="scene")
    refused(source, "--image-column 'id' is of type string, but should hold pictures", image_column="id")
    refused(source, "'truht' is no column of the data set; did you mean 'truth'?", label_column="truht")
    refused(source, "--label-column is needed", image_column="photo", label_column="photo")


def test_columns_that_are_missing(tmp_path: Path) -> None:
    scene = {"image": PICTURE, "label": datasets.ClassLabel(names=["in", "out"])}
    source = parquet(tmp_path / "a", scene, train=[{"image": picture(0), "label": 1}])
    refused(source, "which of its columns holds the masks? (image (Image), label (ClassLabel))")
    numbers = {"x": datasets.Value("int64"), "mask": PICTURE}
    source = parquet(tmp_path / "b", numbers, train=[{"x": 1, "mask": label(0)}])
    refused(source, "none of its columns holds pictures (x (int64), mask (Image))")
    double = {"left": PICTURE, "right": PICTURE, "mask": PICTURE}
    source = parquet(tmp_path / "c", double, train=[{"left": picture(0), "right": picture(0), "mask": label(0)}])
    refused(source, "which of its columns holds the pictures?")


def test_splits_that_are_asked_for(tmp_path: Path) -> None:
    source = plain(tmp_path / "raw", train=2, test=1, extra=3)
    made = opened(source, train_split="extra", validation_split="train")
    assert (len(made.listing().training), len(made.listing().validation or [])) == (3, 2)
    assert opened(source, validation_split="none").listing().validation is None
    refused(source, "--train-split 'tain' is no split of the data set, which has", train_split="tain")
    refused(source, "--validation-split 'val' is no split", validation_split="val")
    refused(source, "--validation-split train is the split that is trained on", validation_split="train")
    odd = plain(tmp_path / "odd", first=1, second=1)
    refused(odd, "--train-split is needed: the data set has the splits first, second")


def test_splits_with_other_columns(tmp_path: Path) -> None:
    table = datasets.load_dataset(str(plain(tmp_path / "raw", train=2)))["train"]
    datasets.DatasetDict(train=table, test=table.remove_columns(["label"])).save_to_disk(tmp_path / "saved")
    refused(tmp_path / "saved", "the split 'test' of")
    refused(tmp_path / "saved", "has no column 'label'; choose other splits")
    assert len(opened(tmp_path / "saved", validation_split="none").listing().training) == 2


def test_configurations(tmp_path: Path) -> None:
    for name, count in (("small", 1), ("large", 2)):
        plain(tmp_path / "raw" / name, train=count)
    lines = [f"- config_name: {name}\n  data_files: {name}/**" for name in ("small", "large")]
    header = "\n".join(["---", "configs:", *lines, "---", ""])
    written(tmp_path / "raw", "README.md", header)
    assert len(opened(tmp_path / "raw", config_name="large").listing().training) == 2
    refused(tmp_path / "raw", "Config name is missing. Please pick one among the available configs: ['small', 'large']")
    refused(tmp_path / "raw", "Available: ['small', 'large']; choose one with --config-name", config_name="medium")
