"""Arrays of a JSON file, element by element, against reading the file as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s4mim_hf.data.sources import json_stream
from s4mim_hf.data.sources.json_stream import iterate_arrays, read_elements
from s4mim_hf.errors import InputError

CONTENT: dict[str, Any] = {
    "info": {"images": [1, 2], "text": 'a "quoted" ] } , [ text', "empty": {}},
    "licenses": [],
    "images": [{"id": 1, "file_name": "größe 1.jpg"}, {"id": 2, "file_name": "日本.jpg", "at": 1.5e-3}, [], {}, 12345],
    "version": 12345678,
    "annotations": [{"points": [[0.25, -1.5], [1e3, 2]], "text": "\\ \n \u2028 \U0001f600"}, None, True, -0.5],
}  # fmt: skip
FORMS = {
    "dense": json.dumps(CONTENT, separators=(",", ":")),
    "indented": json.dumps(CONTENT, indent=3),
    "unescaped": json.dumps(CONTENT, ensure_ascii=False),
    "marked": "\ufeff" + json.dumps(CONTENT, ensure_ascii=False) + "\r\n\t ",
}


@pytest.fixture(params=[1, 2, 7, 64, None])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that end everywhere: within words, numbers, escapes and letters of several bytes."""
    if request.param is not None:
        monkeypatch.setattr(json_stream, "_CHUNK", request.param)


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("form", FORMS)
def test_elements_and_their_places(form: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", FORMS[form])
    found = list(iterate_arrays(path, ("annotations", "images", "version")))
    assert [element.value for element in found if element.key == "images"] == CONTENT["images"]
    assert [element.value for element in found if element.key == "annotations"] == CONTENT["annotations"]
    # What is no array has no elements.
    assert len(found) == len(CONTENT["images"]) + len(CONTENT["annotations"])
    for element in found:
        part = path.read_bytes()[element.start : element.start + element.length]
        assert json.loads(part) == element.value
        assert part.strip() == part
    assert read_elements(path, [(each.start, each.length) for each in found]) == [each.value for each in found]


def test_an_empty_object_has_no_elements(tmp_path: Path) -> None:
    assert list(iterate_arrays(written(tmp_path / "a.json", " {} "), ("images",))) == []
    assert list(iterate_arrays(written(tmp_path / "a.json", '{"images": [ ]}'), ("images",))) == []


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the end of the file at byte 0, expected '{'"),
        ("[1, 2]", "'[' at byte 0, expected '{'"),
        ('{"images": [1, 2', "the end of the file at byte 16, expected ',' or ']'"),
        ('{"images": [1, {"id": 3', "in the value at byte 15"),
        ('{"images": [1, {"id": "ab', "Unterminated string"),
        ('{"images": [1 2]}', "'2' at byte 14, expected ',' or ']'"),
        ('{"images": [1,]}', "in the value at byte 14"),
        ('{"images": []} x', "'x' at byte 15, expected the end of the file"),
        ('{"images" [1]}', "'[' at byte 10, expected ':'"),
        ("{1: [1]}", "the key at byte 1 is no text"),
        ('{"info": ', "the end of the file at byte 9, expected a value"),
    ],
)
def test_what_is_no_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        list(iterate_arrays(written(tmp_path / "a.json", text), ("images",)))
    assert message in str(caught.value)
    assert "a.json is no JSON file of annotations" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"images": ["größe"]}'.encode("latin-1"))
    with pytest.raises(InputError, match="text that is not UTF-8 in the value at byte 12"):
        list(iterate_arrays(tmp_path / "a.json", ("images",)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*a\.json: No such file"):
        list(iterate_arrays(tmp_path / "a.json", ("images",)))
