"""Equal and similar pictures are found as comparing each with each finds them, and real frames are told from photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bad_pictures import encode, photo
from PIL import Image

from s4mim_hf.data.checking import check
from s4mim_hf.data.checking.counts import SplitNumbers
from s4mim_hf.data.checking.pictures import Facts, look_of
from s4mim_hf.data.checking.twins import ALIKE_BITS, Pictures, find_lookalikes, find_twins, lookalikes_of_a_draw
from s4mim_hf.data.prepared import decode_image


def numbers_of(prefix: str, digests: list[int], looks: list[int] | None = None) -> SplitNumbers:
    numbers = SplitNumbers(3)
    for index, digest in enumerate(digests):
        look = looks[index] if looks else 0
        # The number is in the second half, so that both halves are compared.
        numbers.add(f"{prefix}{index}", Facts(bytes(8) + digest.to_bytes(8, "little"), look, (4, 3), "PNG RGB"))
    return numbers


def test_twins_are_those_of_comparing_each_with_each() -> None:
    rng = np.random.default_rng(0)
    digests = {name: rng.integers(0, 40, count).tolist() for name, count in (("a", 30), ("b", 25), ("c", 0))}
    found = find_twins({name: numbers_of(name, values) for name, values in digests.items()})
    for name, values in digests.items():
        assert found.within[name] == sum(value in values[:index] for index, value in enumerate(values))
        for other, others in digests.items():
            if other != name:
                assert found.across[name, other] == sum(value in others for value in values)
    first = next(index for index, value in enumerate(digests["a"]) if value in digests["b"])
    assert found.examples["a", "b"][0] == f"a{first} = b{digests['b'].index(digests['a'][first])}"
    assert found.examples["b", "c"] == []


def test_lookalikes_are_those_of_comparing_each_with_each() -> None:
    rng = np.random.default_rng(1)
    theirs = [int(value) for value in rng.integers(0, 2**64, 300, dtype=np.uint64)]
    ours = []
    for index in range(100):
        value = theirs[3 * index] if index < 60 else int(rng.integers(0, 2**64, dtype=np.uint64))
        # Up to three bits of one of the four parts: these must all be found.
        for bit in rng.choice(16, index % 4, replace=False).tolist():
            value ^= 1 << (bit + 16 * (index % 4))
        ours.append(value)
    found = find_lookalikes(
        Pictures([numbers_of("v", list(range(1000, 1100)), ours)]),
        Pictures([numbers_of("t", list(range(300)), theirs)]),
    )
    near = [any((a ^ b).bit_count() <= ALIKE_BITS for b in theirs) for a in ours]
    assert (found.pictures, found.alike) == (100, sum(near)) == (100, 60)
    assert found.examples == ["v0 ~ t0", "v1 ~ t3", "v2 ~ t6"]


def test_looks_that_differ_too_much_or_say_nothing_are_not_alike() -> None:
    look = 0x0123456789ABCDEF
    five_bits = look ^ 0b11111
    for ours, theirs in ((look, five_bits), (0, 0), (1, 1), (2**64 - 1, 2**64 - 1)):
        pictures = Pictures([numbers_of("v", [1], [ours])]), Pictures([numbers_of("t", [2], [theirs])])
        assert find_lookalikes(*pictures).alike == 0
    # The same picture is no lookalike: it is told as what it is.
    same = Pictures([numbers_of("v", [1], [look])]), Pictures([numbers_of("t", [1], [look])])
    assert find_lookalikes(*same).alike == 0
    assert find_lookalikes(same[0], Pictures([numbers_of("t", [2], [look])])).alike == 1
    assert find_lookalikes(same[0], Pictures([])).alike == 0


def test_a_draw_takes_each_picture_once() -> None:
    looks = [0x0123456789ABCDEF + 7919 * index for index in range(50)]
    pictures = Pictures([numbers_of("t", list(range(100)), looks + looks)])
    found = lookalikes_of_a_draw(pictures, 0.2)
    assert found.pictures == 20
    # Both pictures of a pair are drawn now and then; all others have theirs among those that are left.
    assert 12 <= found.alike <= 20


def test_the_look_survives_another_size_and_compression() -> None:
    for seed in range(10):
        picture = photo(seed, 400, 300)
        smaller = np.asarray(Image.fromarray(picture).resize((200, 150), Image.Resampling.BICUBIC))
        again = decode_image(encode(picture, "JPEG", quality=60))
        for other in (smaller, again):
            assert (look_of(picture) ^ look_of(other)).bit_count() <= ALIKE_BITS
        assert (look_of(picture) ^ look_of(photo(seed + 100, 400, 300))).bit_count() > 12


def test_the_look_is_whether_it_gets_brighter_to_the_right() -> None:
    steps = np.array([0, 1, 0, 1, 1, 0, 2, 3, 2], np.uint8) * 60
    bits = 0b10100110
    picture = steps.repeat(4)[None, :, None].repeat(32, 0).repeat(3, 2)
    assert look_of(picture) == int.from_bytes(bytes([bits] * 8), "big")


def link(folder: Path, images: list[Path]) -> Path:
    """Make a raw folder of the first few real pictures and their masks."""
    for part, suffix in (("images", ".jpg"), ("masks", ".png")):
        (folder / part).mkdir(parents=True)
        for image in images:
            source = image.parents[2] / part / image.parent.name / f"{image.stem}{suffix}"
            (folder / part / source.name).symlink_to(source)
    names = json.loads((images[0].parents[2] / "classes.json").read_text())
    (folder / "classes.json").write_text(json.dumps(names))
    return folder


@pytest.mark.real
@pytest.mark.parametrize(("name", "alike"), [("camvid", True), ("msrc21", False)])
def test_frames_of_a_video_are_told_from_photos(name: str, alike: bool, shared_dir: Path, tmp_path: Path) -> None:
    images = sorted((shared_dir / "data" / name / "images" / "train").glob("*.jpg"))[:100]
    report = check(link(tmp_path / "raw", images))
    assert report.problems == ()
    assert (report.seen.lookalikes.alike > 0) == alike
    assert any("keep them on one side with --group-by" in warning for warning in report.warnings) == alike
