"""Which images names and patterns mean, what they are called, and what is refused."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pools
import pytest
from hub_trees import PICTURE, label, parquet
from hub_trees import picture as stored_picture
from predicting import listed, picture
from prepared_folders import write_folder

from s4mim_hf.errors import InputError
from s4mim_hf.prediction.sources import ImageSource, open_images
from s4mim_hf.prediction.sources import pools as pool_sources


def opened(*sources: Path | str, output: Path = Path("/nowhere"), **options: Any) -> ImageSource:
    return open_images([str(source) for source in sources], output, **options)


def names(*sources: Path | str, **options: Any) -> list[str]:
    return [image.name for part in opened(*sources, **options).parts() for image in part.images()]


def refused(message: str, *sources: Path | str, **options: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        names(*sources, **options)
    assert "\n" not in str(caught.value)


def test_names_keep_relative_paths_and_suffixes_only_where_needed(tmp_path: Path) -> None:
    for path in ("a/x.png", "a/x.JPG", "a/y.bmp", "b/x.png", "b/deep/z.webp", "b/.hidden.png", "b/notes.txt"):
        picture(tmp_path / path) if not path.endswith("txt") else (tmp_path / path).write_text("")
    assert names(tmp_path) == ["a/x.JPG", "a/x.png", "a/y", "b/deep/z", "b/x"]
    assert names(tmp_path / "b") == ["deep/z", "x"]
    assert names(tmp_path / "b", tmp_path / "a") == ["b/deep/z", "b/x", "a/x.JPG", "a/x.png", "a/y"]
    assert names(tmp_path / "a" / "y.bmp") == ["y"]
    assert names(tmp_path / "a", tmp_path / "a" / "y.bmp") == ["x.JPG", "x.png", "y"], "given twice, predicted once"
    for name in ("x.jpg", "x.png", "x.jpg.png"):
        picture(tmp_path / "same" / name, format="PNG")
    assert names(tmp_path / "same") == ["x.jpg", "x.jpg.png", "x.png"]


def test_patterns_are_matched_by_us(tmp_path: Path) -> None:
    for path in ("a/x.png", "a/deep/er/x.png", "b/x.png", "b/y.jpg", "out/masks/x.png"):
        picture(tmp_path / path)
    (tmp_path / "b" / "notes.txt").write_text("")
    output = tmp_path / "out"
    assert names(tmp_path / "**" / "*.png", output=output) == ["a/deep/er/x", "a/x", "b/x"]
    assert names(tmp_path / "b" / "*", output=output) == ["x", "y"], "what is no image is passed over"
    assert names(tmp_path / "?" / "x.png", output=output) == ["a/x", "b/x"]
    assert names(tmp_path / "*", output=output) == ["a/deep/er/x", "a/x", "b/x", "b/y"], "folders with all below"
    picture(tmp_path / "b" / "[1].png")
    assert names(tmp_path / "b" / "[1].png") == ["[1]"], "a file of that name goes first"
    refused("matches nothing", tmp_path / "*.png")
    refused("matches 1 files or folders, but no image", tmp_path / "b" / "*.txt")


def test_an_image_that_is_a_link_is_called_as_the_link_however_it_is_given(tmp_path: Path) -> None:
    stored = picture(tmp_path / "store" / "0f3a.jpg")
    blob = picture(tmp_path / "cache" / "blobs" / "9d1c", format="PNG")
    photos, snapshot = tmp_path / "photos", tmp_path / "cache" / "snapshots" / "main"
    for folder, name, target in ((photos, "cat.jpg", stored), (snapshot, "dog.png", blob), (snapshot, "two.png", blob)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    for source in (photos, photos / "*.jpg", photos / "cat.jpg", tmp_path / "p*" / "cat.jpg"):
        assert names(source)[0].rpartition("/")[2] == "cat"
    assert names(snapshot) == names(snapshot / "*.png") == ["dog", "two"], "two names of one blob are two images"
    assert names(snapshot / "dog.png") == ["dog"]
    assert opened(snapshot / "*.png").read(1) == blob.read_bytes()
    assert names(photos, photos / "cat.jpg", photos / "*.jpg") == ["cat"], "given thrice, predicted once"
    (tmp_path / "out").mkdir()
    (photos / "old.png").symlink_to(picture(tmp_path / "out" / "masks" / "old.png"))
    for source in (photos, photos / "*"):
        assert names(source, output=tmp_path / "out") == ["cat"], "a link to a result is no input"


def test_folders_that_are_links_keep_their_names_below_a_pattern(tmp_path: Path, monkeypatch: Any) -> None:
    picture(tmp_path / "store" / "7b" / "x.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "album").symlink_to(tmp_path / "store" / "7b")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for start in (tmp_path / "photos", tmp_path / "link"):
        assert names(start) == names(start / "*") == names(start / "**" / "*.png") == ["album/x"]
        assert names(start / "album" / "*.png") == ["x"]
    monkeypatch.chdir(tmp_path / "photos")
    for pattern in ("*", "./*/x.png", "../photos/**/*.png"):
        assert names(pattern) == ["album/x"]
    # ".." leads to where the link's target lies, and not the link.
    assert names("album/../*/x.png") == ["7b/x"]
    assert names("al*/../7b/x.png") == ["store/7b/x"]
    # A circle of links: every image once, by the shortest way.
    picture(tmp_path / "circle" / "y.png")
    (tmp_path / "circle" / "again").symlink_to(tmp_path / "circle")
    assert names(tmp_path / "circle" / "**" / "*.png") == ["y"]


def test_output_inside_the_input_folder_is_no_input(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    picture(tmp_path / "out" / "masks" / "x.png")
    assert names(tmp_path, output=tmp_path / "out") == ["x"]


def test_what_is_missing_or_does_not_go_together_is_named(tmp_path: Path) -> None:
    image = picture(tmp_path / "images" / "x.png")
    (tmp_path / "empty").mkdir()
    pools.write_parquet(tmp_path / "pool.parquet", [b"1"])
    refused(r"no image or folder .*absent\.png", tmp_path / "absent.png")
    refused("holds no image; expected files that end in", tmp_path / "empty")
    refused("is picture files and .* is shards of images; predict them one", image, tmp_path / "pool.parquet")
    refused("--split 'train' is given, but .* no splits", image, split="train")
    refused("--image-column is given, but .* without columns|no columns", image, image_column="image")
    refused("is no address that is read here", "s3://bucket/x.jpg")
    refused("'hf://datasets/a/b/c/d' is no data set of the Hub", "hf://datasets/a/b/c/d")


def test_shares_and_parts_have_each_image_once_and_parts_depend_on_the_images_alone(tmp_path: Path) -> None:
    source = listed((f"{number}", b"") for number in range(137))
    shared = [[image.number for image in part.images()] for rank in range(3) for part in source.share(rank, 3)]
    assert sorted(number for share in shared for number in share) == list(range(137))
    assert max(map(len, shared)) - min(map(len, shared)) <= 1
    parts = source.parts()
    assert [image.number for part in parts for image in part.images()] == list(range(137))
    assert sum(part.total or 0 for part in parts) == 137
    assert [image.number for image in parts[1].images(frozenset({16, 19}))][:3] == [17, 18, 20]
    large = listed((f"{number}", b"") for number in range(70_000)).parts()
    assert max(part.total or 0 for part in large) == 1000


def test_names_cannot_lead_out_of_the_folder_of_results() -> None:
    source = listed([("../../a", b""), ("/etc/b", b""), ("c\\..\\d", b""), ("e/./f", b"")])
    assert source.names == ["a", "etc/b", "c/d", "e/f"]
    assert listed([("a", b""), ("./a", b""), ("..", b"")]).names == ["000000_a", "000001_a", "000002_"]


def test_prepared_data_gives_one_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scenes")
    rows = {split: names(folder, split=split) for split in ("labeled", "unlabeled", "validation")}
    assert names(folder) == rows["unlabeled"]
    assert all(name.startswith(split) for split, found in rows.items() for name in found)
    assert opened(folder, split="labeled").read(0).startswith(b"\x89PNG")
    refused("--split 'train' is no split of prepared data", folder, split="train")
    refused("--image-column is given", folder, image_column="image")


def test_folders_that_datasets_reads(tmp_path: Path) -> None:
    rows = [{"id": f"{number}.jpg", "image": stored_picture(number), "label": label(number)} for number in range(3)]
    features = {"id": datasets.Value("string"), "image": PICTURE, "label": PICTURE}
    folder = parquet(tmp_path / "two", features, train=rows, test=rows[:1])
    refused("has the splits train, test|has the splits test, train", folder)
    refused("has no split 'tset'; did you mean 'test'", folder, split="tset")
    assert names(folder, split="train") == ["train/0", "train/1", "train/2"]
    assert opened(folder, split="train").read(2) == rows[2]["image"]["bytes"]
    assert opened(folder, split="train").is_data_set
    table = datasets.Dataset.from_list(
        [{"before": stored_picture(1), "after": stored_picture(2), "n": 1}],
        features=datasets.Features({"before": PICTURE, "after": PICTURE, "n": datasets.Value("int32")}),
    )
    table.save_to_disk(str(tmp_path / "saved"))
    refused("--image-column is needed for .*which of its columns holds the pictures", tmp_path / "saved")
    refused("--image-column 'n' is of type int32", tmp_path / "saved", image_column="n")
    source = opened(tmp_path / "saved", image_column="after")
    assert source.read(0) == stored_picture(2)["bytes"]
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "texts"))
    refused("none of its columns holds pictures", tmp_path / "texts")


def test_pools_pass_by_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [bytes([number]) * 2000 for number in range(7)]
    pools.tar_of(tmp_path / "pool" / "a.tar", images)
    pools.write_parquet(tmp_path / "pool" / "b.parquet", images[:3], compressed=False)
    whole = opened(tmp_path / "pool" / "*.{tar,parquet}")
    expected = [f"a/set/{number:04d}" for number in range(7)] + [f"b/{number:06d}" for number in range(3)]
    assert [image.name for part in whole.parts() for image in part.images()] == expected
    assert [part.total for part in whole.parts()] == [None, 3]
    assert whole.is_data_set
    assert not whole.can_read_again
    rest = [image.number for image in whole.parts()[0].images(frozenset({0, 1, 3}))]
    assert rest == [2, 4, 5, 6]
    monkeypatch.setattr(pool_sources, "_PART_BYTES", 9000)
    parts = opened(tmp_path / "pool" / "a.tar", tmp_path / "pool" / "b.parquet").parts()
    assert len(parts) > 2
    found = {image.name: image.read() for part in parts for image in part.images()}
    assert found == dict(zip(expected, [*images, *images[:3]], strict=True))


def test_pools_speak_of_our_options(tmp_path: Path) -> None:
    pools.write_parquet(tmp_path / "x.parquet", [b"1"], column="photo")
    refused("has no column 'image' .*name the column of the images with --image-column$", tmp_path / "x.parquet")
    assert names(tmp_path / "x.parquet", image_column="photo") == ["x/000000"]
    refused("which no file matches", tmp_path / "*.tar")


def test_a_name_that_is_no_text_may_be_a_picture_s_but_no_row_s() -> None:
    source = listed([(os.fsdecode(b"Stra\xdfe"), b"")])
    with pytest.raises(InputError, match=r"1 file names are no UTF-8.*'Stra\\udcdfe'; rename"):
        _ = source.fingerprint
    assert [image.name for part in source.share(0, 1) for image in part.images()] == ["Stra\udcdfe"]


def test_a_name_in_a_tar_that_is_no_text_is_spelled(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pool.tar", "w", encoding="latin-1", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("Straße.png")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"none"))
    assert names(f"{tmp_path}/pool.tar") == ["pool/Stra\\xdfe"]


def test_names_of_another_set_are_avoided() -> None:
    source = listed([("a", b"1"), ("b", b"2")])
    assert source.apart_from(["c"]) is source
    moved = source.apart_from(["b"])
    assert moved.names == ["pool/a", "pool/b"]
    assert moved.read(1) == b"2"
    assert moved.fingerprint != source.fingerprint
