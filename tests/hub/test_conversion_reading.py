"""Reading a peer's .pth: which network of it, and what is never read."""

from __future__ import annotations

import datetime
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peer_networks import unimatch_file

from s4mim_hf.errors import InputError
from s4mim_hf.hub.conversion.reading import read_checkpoint

STUDENT = {"a.weight": torch.tensor([1.0, 2.0]), "module.b": torch.tensor(3)}
TEACHER = {key: value + 10 for key, value in STUDENT.items()}


def same(found: Any, expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_training_state_gives_the_moving_average_where_it_has_one(tmp_path: Path) -> None:
    both = unimatch_file(tmp_path / "both.pth", STUDENT, model_ema=TEACHER)
    read = read_checkpoint(both)
    # One prefix goes, a name that begins alike stays.
    assert same(read.state, TEACHER)
    assert (read.weights, read.entry) == ("teacher", "model_ema")
    assert same(read_checkpoint(both, "student").state, STUDENT)
    one = unimatch_file(tmp_path / "one.pth", STUDENT)
    assert same(read_checkpoint(one).state, STUDENT)
    with pytest.raises(InputError, match=r"one\.pth has no teacher's weights \('model_ema'\).*model, optimizer, epoch"):
        read_checkpoint(one, "teacher")


def test_a_bare_state_dict_is_the_students(tmp_path: Path) -> None:
    torch.save(STUDENT, tmp_path / "bare.pth")
    read = read_checkpoint(tmp_path / "bare.pth")
    assert same(read.state, STUDENT)
    assert (read.weights, read.entry) == ("student", None)
    with pytest.raises(InputError, match="without a teacher's"):
        read_checkpoint(tmp_path / "bare.pth", "teacher")


def test_the_format_of_old_releases_is_read(tmp_path: Path) -> None:
    torch.save({"model": STUDENT}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / "old.pth").state, STUDENT)


class Trap:
    """What a hostile file holds: a call that its reader would make."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def cut(path: Path) -> None:
    unimatch_file(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000])


def cut_old(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:1500])


REFUSED: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "absent": (lambda path: None, ["there is no checkpoint", "download it"]),
    "a folder": (lambda path: path.mkdir(), ["is a folder"]),
    "empty": (lambda path: path.touch(), ["cannot be read"]),
    "cut short": (cut, ["cannot be read", "cut short"]),
    "cut short, of an old release": (cut_old, ["cannot be read", "cut short"]),
    "text": (lambda path: path.write_text("hello, world\n" * 9), ["cannot be read"]),
    "a web page": (lambda path: path.write_text("<!DOCTYPE html><html>"), ["is a web page", "download it again"]),
    "a hostile object": (
        lambda path: torch.save({"model": STUDENT, "more": Trap(path.parent / "trap")}, path),
        ["an object of", "mkdir", "run any code", "state_dict()"],
    ),
    "a hostile plain pickle": (
        lambda path: path.write_bytes(pickle.dumps(Trap(path.parent / "trap"), protocol=2)),
        ["best.pth"],
    ),
    "a foreign class": (
        lambda path: torch.save({"model": STUDENT, "when": datetime.date(2024, 1, 1)}, path),
        ["datetime.date"],
    ),
    "a whole network": (lambda path: torch.save(torch.nn.Linear(2, 2), path), ["Linear", "state_dict()"]),
    "a list": (lambda path: torch.save([torch.zeros(2)], path), ["holds a list"]),
    "nothing in it": (lambda path: torch.save({"model": {}}, path), ["'model' in", "is empty"]),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), ["has 'epoch', a int"]),
    "numbers for names": (lambda path: torch.save({"model": {0: torch.zeros(1)}}, path), ["has 0, a Tensor"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_checkpoint_is_one_sentence(case: str, tmp_path: Path) -> None:
    make, words = REFUSED[case]
    make(tmp_path / "best.pth")
    with pytest.raises(InputError) as caught:
        read_checkpoint(tmp_path / "best.pth")
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trap").exists()
