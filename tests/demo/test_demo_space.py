"""A Space's folder: complete, from what is named, or not written at all."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

from s4mim_hf.demo.models import open_model
from s4mim_hf.demo.serving import MAX_EXAMPLES, find_examples, open_models
from s4mim_hf.demo.space import chosen_models, write_space
from s4mim_hf.errors import InputError

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")


@needs_gradio
def test_the_folder_is_complete_and_says_how_it_runs(
    repository: Path, run_folder: Path, photo: Path, tmp_path: Path
) -> None:
    script = repository / "scripts" / "app.py"
    write_space(tmp_path / "space", [open_model(str(run_folder))], script, [photo])
    folder = tmp_path / "space"
    assert (folder / "app.py").read_bytes() == script.read_bytes()
    assert (folder / "s4mim_hf" / "recipes" / "demo.yaml").is_file()
    assert not list(folder.rglob("__pycache__"))
    assert (folder / "LICENSE").is_file()
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["app"]]
    assert (folder / "requirements.txt").read_text().splitlines() == needed
    card = SpaceCard.load(folder / "README.md").data
    assert (card.sdk, card.app_file, card.license) == ("gradio", "app.py", "apache-2.0")
    assert re.fullmatch(r"\d+\.\d+\.\d+", card.sdk_version)
    assert re.fullmatch(r"3\.\d+", card.python_version), "a number would lose the zero of 3.10"
    models, examples = chosen_models([], folder)
    assert models == [str(folder / "models" / "1-demo")]
    assert find_examples(examples)[0].read_bytes() == photo.read_bytes()
    assert open_model(models[0]).head is not None
    assert not [path for path in tmp_path.iterdir() if path != folder], "nothing is left beside it"
    write_space(tmp_path / "again", [open_model(models[0])], folder / "app.py")
    for name in ("requirements.txt", "LICENSE", "app.py"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), "a Space can write another"


@needs_gradio
def test_nothing_is_written_over_what_is_there(repository: Path, plain_model: Path, tmp_path: Path) -> None:
    models = [open_model(str(plain_model))]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").touch()
    for place in ("mine", "mine/work.txt"):
        with pytest.raises(InputError, match="is not an empty folder"):
            write_space(tmp_path / place, models, repository / "scripts" / "app.py")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "work.txt"]
    (tmp_path / "empty").mkdir()
    write_space(tmp_path / "empty", models, repository / "scripts" / "app.py")
    assert (tmp_path / "empty" / "app.py").is_file()


def test_models_come_from_the_command_line_then_the_environment_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("S4MIM_MODEL", "S4MIM_SECOND_MODEL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no model is named; give one, or set S4MIM_MODEL"):
        chosen_models([], tmp_path)
    (tmp_path / "models" / "1-x").mkdir(parents=True)
    (tmp_path / "space.json").write_text(json.dumps({"models": ["models/1-x", "user/name"]}))
    assert chosen_models([], tmp_path) == ([str(tmp_path / "models" / "1-x"), "user/name"], None)
    monkeypatch.setenv("S4MIM_MODEL", "user/other")
    assert chosen_models([], tmp_path) == (["user/other"], None)
    monkeypatch.setenv("S4MIM_SECOND_MODEL", "user/second")
    assert chosen_models([], tmp_path) == (["user/other", "user/second"], None)
    assert chosen_models(["here"], tmp_path) == (["here"], None)
    monkeypatch.delenv("S4MIM_MODEL")
    monkeypatch.delenv("S4MIM_SECOND_MODEL")
    for text in ("{", "[]", "{}"):
        (tmp_path / "space.json").write_text(text)
        with pytest.raises(InputError, match=r"space\.json is damaged"):
            chosen_models([], tmp_path)


def test_examples_and_devices_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        find_examples(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no image"):
        find_examples(tmp_path)
    for number in range(MAX_EXAMPLES + 3):
        (tmp_path / f"{number:02d}.png").touch()
    assert len(find_examples(tmp_path)) == MAX_EXAMPLES
    with pytest.raises(InputError, match="--device toaster cannot be used"):
        open_models([], "toaster")
