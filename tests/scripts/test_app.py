"""scripts/app.py refuses what it cannot show before it serves anything; tests/demo looks at the page itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no model is named; give one, or set S4MIM_MODEL"),
        (["MODEL", "MODEL", "MODEL"], "3 models are given"),
        (["absent/model/folder"], "'absent/model/folder' is neither a folder that is there"),
        (["EMPTY"], "is no model folder: it has no config.json"),
        (["NO_WEIGHTS"], "has no weights"),
        (["MODEL", "OTHER_TYPE"], "'bert'"),
        (["MODEL", "--max-side", "3"], "--max-side is 3"),
        (["MODEL", "--max-side", "512", "--write-space", "space"], "--max-side 512 is of a page served here"),
        (["MODEL", "--port", "8000", "--write-space", "space"], "--port 8000 is of a page served here"),
        (["MODEL", "--port", "70000"], "--port is 70000"),
        (["MODEL", "--device", "toaster"], "--device toaster cannot be used"),
        (["MODEL", "--device", "meta"], "--device meta cannot be used"),
        (["MODEL", "--examples", "EMPTY"], "holds no image"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    tiny_model: Path,
    call_script: object,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("S4MIM_MODEL", raising=False)
    (tmp_path / "empty").mkdir()
    for name in ("no_weights", "other_type"):
        shutil.copytree(tiny_model, tmp_path / name)
    (tmp_path / "no_weights" / "model.safetensors").unlink()
    (tmp_path / "other_type" / "config.json").write_text('{"model_type": "bert"}')
    places = {name.upper(): str(tmp_path / name) for name in ("empty", "no_weights", "other_type")}
    given = [{**places, "MODEL": str(tiny_model)}.get(word, word) for word in arguments]
    assert call_script("app", given) == 2  # type: ignore[operator]
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("error:") == 1
    assert "Traceback" not in said.err
