"""Pseudo-labels: which pixels and images get them, whose labels are whose, and that training takes what is written."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pools
import pytest
from PIL import Image
from predicting import FACTS, NAMES, PALETTE, Brightest, call, listed, noise, predictor, probabilities

from s4mim_hf.data.checking import check
from s4mim_hf.data.prepared import PreparedData, decode_label, load_prepared
from s4mim_hf.data.prepared_writer import Description, Row, write_prepared
from s4mim_hf.errors import InputError
from s4mim_hf.prediction.pseudo_labels import PseudoLabelOptions, digest_of, digests_of
from s4mim_hf.prediction.sources import ImageSource, open_images
from s4mim_hf.prediction.tasks import ModelFacts, PseudoLabelTask

TAU = 0.6


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def expected_label(pixels: np.ndarray, threshold: float = TAU) -> np.ndarray:
    found = probabilities(pixels)
    return np.where(found.max(axis=-1) >= threshold, found.argmax(axis=-1), 255)


def pool(count: int = 4) -> ImageSource:
    return listed((f"p{number}", encoded(noise(number))) for number in range(count))


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Return prepared data with 2 labelled and 2 validation images, whose labels no `Brightest` would give."""
    folder = tmp_path_factory.mktemp("human") / "data"
    ids = {"labeled": ["h0", "h1"], "unlabeled": [], "validation": ["v0", "v1"]}

    def read(split: str, index: int) -> Row:
        image = noise(100 + index + 10 * (split == "validation"))
        label = np.full(image.shape[:2], index, np.uint8)
        pixels = tuple(label.size * (class_id == index) for class_id in range(4))
        return Row(ids[split][index], encoded(image), "x.png", encoded(label), 16, 12, pixels)

    description = Description("human", "Human", tuple(NAMES.values()), PALETTE, 255, "whole", "", {"source": "test"})
    write_prepared(folder, description, ids, read, fingerprint="", say=print)
    return load_prepared(folder)


def task(source: ImageSource, output: Path, human: PreparedData | None = None, **options: float) -> PseudoLabelTask:
    return PseudoLabelTask(source, FACTS, output, PseudoLabelOptions(**{"threshold": TAU, **options}), human)


def rows_of(data: Any) -> dict[str, tuple[bytes, np.ndarray]]:
    return {row["id"]: (row["image"]["bytes"], decode_label(row["label"]["bytes"])) for row in data}


def test_pixels_below_tau_are_ignored_and_images_stay_byte_for_byte(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = encoded(noise(9), exif=exif)
    source = listed([("a/plain", encoded(noise(0))), ("turned", turned)])
    call(task(source, tmp_path / "out"), predictor())
    data = load_prepared(tmp_path / "out")
    found = rows_of(data.labeled)
    assert (data.unlabeled, data.validation) == (None, None)
    assert (data.id2label, data.palette, data.ignore_index) == (NAMES, PALETTE, 255)
    assert found["a/plain"][0] == encoded(noise(0))
    assert found["turned"][0] == turned
    np.testing.assert_array_equal(found["a/plain"][1], expected_label(noise(0)))
    np.testing.assert_array_equal(found["turned"][1], np.rot90(expected_label(noise(9)), -1))
    known = np.mean([(label != 255).mean() for _, label in found.values()])
    assert 0.1 < known < 0.9
    record = json.loads((tmp_path / "out" / "splits.json").read_text())["pseudo_labels"]
    assert (record["model"], record["threshold"], record["protocol"]) == ("a/model", TAU, FACTS.protocol)
    assert (record["images"], record["human_ids"]) == (2, [])
    assert record["known_share"] == pytest.approx(known)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "of which only pixels with a probability of at least 0.6 are kept" in card
    assert not list(check(str(tmp_path / "out")).problems)
    assert not list(tmp_path.glob(".*")), "what was in the making is gone"


def test_images_with_too_little_known_become_the_unlabelled_ones(tmp_path: Path) -> None:
    shares = {f"p{number}": (expected_label(noise(number)) != 255).mean() for number in range(4)}
    between = float(np.median([*shares.values()]))
    call(task(pool(), tmp_path / "out", min_known=between), predictor())
    data = load_prepared(tmp_path / "out")
    assert list(data.labeled["id"]) == [name for name, share in shares.items() if share >= between]
    assert data.unlabeled is not None
    assert list(data.unlabeled["id"]) == [name for name, share in shares.items() if share < between]


def test_labels_by_people_and_validation_never_come_from_the_model(tmp_path: Path, human: PreparedData) -> None:
    given = rows_of(human.labeled), rows_of(human.validation)
    # The pool holds images that people labelled or that are kept for validation, under other names; and a name of one.
    theirs = [("again", given[0]["h1"][0]), ("leak", given[1]["v0"][0])]
    source = listed([*theirs, ("h0", encoded(noise(1))), ("new", encoded(noise(2)))])
    known = digests_of(human)
    by = predictor(leaves_out=lambda data: digest_of(data) in known)
    summary = call(task(source, tmp_path / "out", human), by)
    assert (summary.predicted, summary.left_out) == (2, 2)
    data = load_prepared(tmp_path / "out")
    found = rows_of(data.labeled)
    assert list(found) == ["h0", "h1", "pool/h0", "pool/new"]
    np.testing.assert_array_equal(found["pool/new"][1], expected_label(noise(2)))
    for rows, written in zip(given, (found, rows_of(data.validation)), strict=True):
        for name, (image, label) in rows.items():
            assert written[name][0] == image
            np.testing.assert_array_equal(written[name][1], label)
    assert list(data.validation["id"]) == ["v0", "v1"]
    assert data.protocol == human.protocol
    assert json.loads((tmp_path / "out" / "splits.json").read_text())["pseudo_labels"]["human_ids"] == ["h0", "h1"]


def test_an_interrupted_call_goes_on_and_writes_the_same(tmp_path: Path, human: PreparedData) -> None:
    def files(output: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in output.rglob("*.parquet")}

    call(task(pool(20), tmp_path / "whole" / "out", human), predictor())
    model = Brightest(fails_at=9)
    with pytest.raises(KeyboardInterrupt):
        call(task(pool(20), tmp_path / "out", human), predictor(model), world_size=2)
    assert not (tmp_path / "out").exists()
    model.fails_at = None
    # All is predicted, and it stops before anything is written; another share needs no new prediction.
    call(task(pool(20), tmp_path / "out", human), predictor(model), finish=False)
    calls = model.calls
    summary = call(task(pool(20), tmp_path / "out", human, min_known=0.0), predictor(model))
    assert (model.calls, summary.kept) == (calls, 20)
    assert files(tmp_path / "out") == files(tmp_path / "whole" / "out")
    with pytest.raises(InputError, match="is not empty"):
        task(pool(20), tmp_path / "out", human)


def test_no_label_is_given_to_a_picture_that_was_replaced_after_its_prediction(tmp_path: Path) -> None:
    call(task(pool(3), tmp_path / "out"), predictor(), finish=False)
    replaced = listed([("p0", encoded(noise(0))), ("p1", encoded(noise(7))), ("p2", encoded(noise(2)))])
    with pytest.raises(InputError, match=r"1 images have been replaced .*delete \S+\.out\.predicted to .* p1"):
        call(task(replaced, tmp_path / "out"), predictor())
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / ".out.predicted")
    call(task(replaced, tmp_path / "out"), predictor())
    np.testing.assert_array_equal(rows_of(load_prepared(tmp_path / "out").labeled)["p1"][1], expected_label(noise(7)))


def test_predictions_of_an_interrupted_call_of_older_code_go_and_a_folder_that_is_none_of_ours_stays(
    tmp_path: Path,
) -> None:
    for name, files in (("old", ["prediction.json", "00000.0.arrows"]), ("other", ["notes.txt"])):
        before = tmp_path / f".{name}.predictions"
        before.mkdir()
        for file in files:
            (before / file).write_text("{}")
        call(task(pool(2), tmp_path / name), predictor())
        assert before.exists() == (name == "other")


def test_a_pool_that_passes_by_is_kept_until_it_is_written(tmp_path: Path) -> None:
    images = [encoded(noise(number)) for number in range(3)]
    pools.tar_of(tmp_path / "pool-0.tar", [*images[:2], b"broken"])
    pools.write_parquet(tmp_path / "pool-1.parquet", images[2:])
    source = open_images([f"{tmp_path}/pool-*.tar", f"{tmp_path}/pool-1.parquet"], tmp_path / "out")
    summary = call(task(source, tmp_path / "out"), predictor(), world_size=2)
    assert (summary.predicted, summary.bad) == (3, 1)
    found = rows_of(load_prepared(tmp_path / "out").labeled)
    assert [image for image, _ in found.values()] == images
    assert list(found) == ["pool-0/set/0000", "pool-0/set/0001", "pool-1/000000"]


def test_pictures_above_the_models_longest_side_are_stored_as_it_takes_them(
    tmp_path: Path, human: PreparedData
) -> None:
    facts = ModelFacts("m", "w", "whole", NAMES, PALETTE, max_side=10)
    options = PseudoLabelOptions(TAU)
    small = encoded(noise(3, 8, 8))
    source = listed([("large", encoded(noise(0))), ("small", small)])
    call(PseudoLabelTask(source, facts, tmp_path / "out", options, None), predictor())
    data = load_prepared(tmp_path / "out")
    found = rows_of(data.labeled)
    assert data.max_side == 10
    assert found["small"][0] == small
    with Image.open(io.BytesIO(found["large"][0])) as image:
        assert image.size == (10, 8)
    assert found["large"][1].shape == (8, 10)
    with pytest.raises(InputError, match="pictures of any size and the model takes at most 10 pixels a side"):
        PseudoLabelTask(source, facts, tmp_path / "other", options, human)


def test_what_cannot_be_is_refused(tmp_path: Path, human: PreparedData) -> None:
    for value in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(InputError, match=f"--pseudo-labels is {value}; the probability must be above 0"):
            PseudoLabelOptions(value)
    with pytest.raises(InputError, match=r"--min-known is 2\.0"):
        PseudoLabelOptions(1.0, 2.0)
    other = ModelFacts("m", "w", "whole", {0: "red", 1: "grass"}, PALETTE[:2], None)
    with pytest.raises(InputError, match="has 3 classes and the model 2, which differ in green, blue"):
        PseudoLabelTask(pool(), other, tmp_path / "out", PseudoLabelOptions(TAU), human)
    many = ModelFacts("m", "w", "whole", {index: str(index) for index in range(256)}, PALETTE, None)
    with pytest.raises(InputError, match="256 classes, but a label with ignored pixels has room for 255"):
        PseudoLabelTask(pool(), many, tmp_path / "out", PseudoLabelOptions(TAU), None)
    with pytest.raises(InputError, match="no pixel of 4 images has a class of probability 1, so there is nothing"):
        call(task(pool(), tmp_path / "out", threshold=1.0), predictor())
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="none of 4 images is known in 1 of its pixels; lower --min-known"):
        call(task(pool(), tmp_path / "out", min_known=1.0), predictor())
    assert call(task(pool(), tmp_path / "out"), predictor()).kept == 4
