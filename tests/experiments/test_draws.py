"""Draws of raw images are prepared once, nest, and share their validation images; other data is what it is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_trees import write_tree

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan import RawData
from s4mim_hf.data.prepare import prepare
from s4mim_hf.data.prepared import load_prepared
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.draws import PreparedSource, RawSource, SyntheticSource, default_fraction, source_of


def raw_source(folder: Path, *labeled: str, **options: str) -> RawSource:
    raw = folder / "raw"
    if not raw.exists():
        write_tree(raw, masked=20)
    given = PrepareOptions("folder", folder / "out", str(raw), **options)  # type: ignore[arg-type]
    return RawSource(given, labeled, folder / "out" / "data")


def test_draws_are_prepared_once_nest_and_share_validation(tmp_path: Path) -> None:
    source, notes = raw_source(tmp_path, "1/4", "1/2"), []
    draws = [("1/4", 0), ("1/4", 1), ("1/2", 0), ("all", 0), ("all", 1)]
    source.prepare(draws, notes.append)
    assert source.path("1/4", 1) == str(tmp_path / "out" / "data" / "1-4" / "seed_1")
    assert source.path("all", 0) == source.path("all", 1)
    data = {draw: load_prepared(source.path(*draw)) for draw in draws}
    ids = {draw: set(one.labeled["id"][:]) for draw, one in data.items()}
    assert [len(ids[draw]) for draw in draws] == [4, 4, 8, 16, 16]
    assert ids["1/4", 0] < ids["1/2", 0] < ids["all", 0]
    assert ids["1/4", 0] != ids["1/4", 1]
    assert data["all", 0].unlabeled is None
    validation = {tuple(one.validation["id"][:]) for one in data.values() if one.validation is not None}
    assert len(validation) == 1
    assert len(notes) == len(set(notes)), "each note once"
    assert {draw: source.split_hash(*draw) for draw in draws} == {draw: one.split_hash for draw, one in data.items()}
    files = sorted((tmp_path / "out").rglob("*.parquet"))
    times = [file.stat().st_mtime_ns for file in files]
    source.prepare(draws, notes.append)
    assert [file.stat().st_mtime_ns for file in files] == times


def test_another_draw_in_the_same_place_is_refused(tmp_path: Path) -> None:
    raw_source(tmp_path, "4").prepare([("4", 0)], lambda note: None)
    write_tree(tmp_path / "raw", masked=30)
    with pytest.raises(InputError, match=r"seed_0 holds another draw .* name another --output"):
        raw_source(tmp_path, "4").prepare([("4", 1), ("4", 0)], lambda note: None)
    assert not (tmp_path / "out" / "data" / "4" / "seed_1").exists(), "checked before anything is prepared"


def test_a_mask_that_was_corrected_after_the_draws_is_noticed(tmp_path: Path) -> None:
    raw_source(tmp_path, "4").prepare([("4", 0)], lambda note: None)
    mask = sorted((tmp_path / "raw" / "masks").iterdir())[3]
    Image.fromarray(np.asarray(Image.open(mask))[::-1].copy()).save(mask)
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    notes: list[str] = []
    raw_source(tmp_path, "4").prepare([("4", 0)], notes.append)
    assert len(notes) == 1
    assert re.search("have changed since the draws .* name another --output", notes[0])
    with pytest.raises(InputError, match=r"have changed .* more draws are needed, which would not compare"):
        raw_source(tmp_path, "4").prepare([("4", 0), ("4", 1)], lambda note: None)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    # Two ways out: the files are the same after all, or no draw of the old ones is left.
    (tmp_path / "out" / "data" / "raw_images.sha256").unlink()
    raw_source(tmp_path, "4").prepare([("4", 0), ("4", 1)], lambda note: None)
    Image.fromarray(np.asarray(Image.open(mask))[::-1].copy()).save(mask)
    shutil.rmtree(tmp_path / "out" / "data" / "4")
    raw_source(tmp_path, "4").prepare([("4", 0), ("4", 1)], lambda note: None)
    notes.clear()
    raw_source(tmp_path, "4").prepare([("4", 0), ("4", 1)], notes.append)
    assert notes == []


def test_a_mask_that_could_not_be_used_is_corrected_in_place(tmp_path: Path) -> None:
    source = raw_source(tmp_path, "4")
    mask = sorted((tmp_path / "raw" / "masks").iterdir())[3]
    sound = mask.read_bytes()
    mask.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(InputError, match=mask.stem):
        source.prepare([("4", 0)], lambda note: None)
    mask.write_bytes(sound)
    raw_source(tmp_path, "4").prepare([("4", 0)], lambda note: None)
    assert (tmp_path / "out" / "data" / "raw_images.sha256").is_file()


def test_raw_images_may_be_moved_between_two_calls(tmp_path: Path) -> None:
    raw_source(tmp_path, "4").prepare([("4", 0)], lambda note: None)
    (tmp_path / "raw").rename(tmp_path / "moved")
    given = PrepareOptions("folder", tmp_path / "out", str(tmp_path / "moved"))
    notes: list[str] = []
    RawSource(given, ["4"], tmp_path / "out" / "data").prepare([("4", 0)], notes.append)
    assert notes == []


def test_fractions_are_checked_before_anything_is_prepared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--labeled takes"):
        raw_source(tmp_path, "1/4", "some")
    with pytest.raises(InputError, match="names 1/4 twice"):
        raw_source(tmp_path, "1/4", "1/4")
    with pytest.raises(InputError, match="--validation none leaves nothing to compare"):
        raw_source(tmp_path, "1/4", validation="none")
    with pytest.raises(InputError, match="--labeled 17"):
        raw_source(tmp_path, "1/4", "17").prepare([("1/4", 0), ("17", 0)], lambda note: None)
    assert not (tmp_path / "out").exists()


def test_images_without_masks_are_the_unlabelled_ones(tmp_path: Path) -> None:
    for name, bare, expected in (("whole", 0, "1/8"), ("part", 2, "all")):
        raw = write_tree(tmp_path / name, masked=4, bare=bare)
        assert default_fraction(RawData(PrepareOptions("folder", tmp_path / "out", str(raw)))) == expected
    source = raw_source(tmp_path)
    assert (source.fractions, source.no_ceiling) == (("1/8",), None)
    only_all = raw_source(tmp_path, "all")
    assert only_all.no_ceiling == "with --labeled all every row has all labels"


def test_synthetic_scenes_follow_the_run_s_seed_or_their_own() -> None:
    source = source_of("synthetic", None, [], Path("data"))
    assert source.fractions == ("16",)
    assert [source.path("16", 3), source.path("all", 3)] == ["synthetic:3", "synthetic:3:all"]
    fixed = source_of("synthetic:7", None, [], Path("data"))
    assert isinstance(fixed, SyntheticSource)
    assert [fixed.path("16", 3), fixed.path("all", 3)] == ["synthetic:7", "synthetic:7:all"]
    hashes = [source.split_hash(fraction, seed) for seed in (3, 7) for fraction in ("16", "all")]
    assert len(set(hashes)) == 4
    assert [fixed.split_hash(fraction, 3) for fraction in ("16", "all")] == hashes[2:]


def test_a_prepared_folder_is_what_it_is(tmp_path: Path) -> None:
    write_tree(tmp_path / "raw", masked=10)
    for name, validation in (("data", "2"), ("bare", "none")):
        options = PrepareOptions("folder", tmp_path / name, str(tmp_path / "raw"), labeled="3", validation=validation)
        prepare(options, lambda note: None)
    source = source_of(str(tmp_path / "data"), None, [], tmp_path)
    assert isinstance(source, PreparedSource)
    assert source.fractions == ("3",)
    assert source.path("3", 0) == source.path("3", 1) == str(tmp_path / "data")
    assert source.split_hash("3", 0) == load_prepared(tmp_path / "data").split_hash
    assert "labels of 3 images only" in str(source.no_ceiling)
    with pytest.raises(InputError, match="no validation split"):
        source_of(str(tmp_path / "bare"), None, [], tmp_path)


def test_there_must_be_data_and_draws_need_raw_images() -> None:
    with pytest.raises(InputError, match=r"--source DIR, or a prepared folder with data\.path=DIR"):
        source_of(None, None, [], Path("data"))
    with pytest.raises(InputError, match=r"--labeled 1/8,1/4 needs --source"):
        source_of("synthetic", None, ["1/8", "1/4"], Path("data"))
    with pytest.raises(InputError, match="there is no folder"):
        source_of("nowhere", None, [], Path("data"))
