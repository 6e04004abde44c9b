"""A Hugging Face Space of the page: a folder that runs as it stands, here and there.

app.py             scripts/app.py as it is
space.json         which models and examples it shows
s4mim_hf/          this package, so that nothing of it must be installable from anywhere
models/1-NAME      models that lay in folders; those of the Hub are named in space.json and loaded from there
examples/          photos to start from
requirements.txt, README.md (with the front matter that the Hub reads), LICENSE
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCard, SpaceCardData

import s4mim_hf
from s4mim_hf.demo.models import DemoModel, save_demo_model
from s4mim_hf.errors import InputError

SPACE_FILE = "space.json"
MODEL_VARIABLES = ("S4MIM_MODEL", "S4MIM_SECOND_MODEL")


def chosen_models(arguments: Sequence[str], script_folder: Path) -> tuple[list[str], Path | None]:
    """Return the models to show, and the folder of examples that belongs to them, if there is one.

    Args:
        arguments: models of the command line; they come first, then the environment, then the Space's own.
        script_folder: where app.py lies.

    Raises:
        InputError: nothing names a model, or the Space's file is damaged.
    """
    named = [os.environ[name] for name in MODEL_VARIABLES if os.environ.get(name)]
    file = script_folder / SPACE_FILE
    examples = script_folder / "examples"
    if arguments or named:
        return list(arguments or named), None
    if not file.is_file():
        raise InputError(f"no model is named; give one, or set {MODEL_VARIABLES[0]}")
    try:
        models = json.loads(file.read_text(encoding="utf-8"))["models"]
        # A path is one from here; everything else is a Hub id.
        found = [str(script_folder / name) if (script_folder / name).is_dir() else str(name) for name in models]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{file} is damaged ({error}); it must hold {{"models": [...]}}') from None
    return found, examples if examples.is_dir() else None


def write_space(folder: Path, models: Sequence[DemoModel], script: Path, examples: Sequence[Path] = ()) -> None:
    """Write a Space's whole folder, or nothing.

    Args:
        folder: where it goes; it must not exist, or be empty.
        models: one or two.
        script: the app's script.
        examples: photos to start from.

    Raises:
        InputError: the folder holds something, or cannot be written, or Gradio is not installed.
    """
    try:
        gradio = metadata.version("gradio")
    except metadata.PackageNotFoundError:
        raise InputError(
            'a Space names the release of Gradio that it runs with, and none is installed; pip install "s4mim-hf[app]"'
        ) from None
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"--write-space {folder} is not an empty folder; name one that does not exist yet")
    target = folder.resolve()
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _fill(partial, models, script, examples, gradio)
        if target.is_dir():
            target.rmdir()
        partial.rename(target)
    except OSError as error:
        raise InputError(f"--write-space {folder} cannot be written ({error.strerror}); name another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(folder: Path, models: Sequence[DemoModel], script: Path, examples: Sequence[Path], gradio: str) -> None:
    shutil.copy(script, folder / "app.py")
    package = Path(s4mim_hf.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for root in (script.parent.parent, script.parent):
        if (root / "LICENSE").is_file():
            shutil.copy(root / "LICENSE", folder)
    names = []
    for number, model in enumerate(models, start=1):
        if Path(model.source).expanduser().exists():
            names.append(f"models/{number}-{model.label}")
            save_demo_model(model, folder / names[-1])
        else:
            names.append(model.source)
    (folder / SPACE_FILE).write_text(json.dumps({"models": names}, indent=2) + "\n", encoding="utf-8")
    if examples:
        (folder / "examples").mkdir()
    for photo in examples:
        shutil.copy(photo, folder / "examples")
    (folder / "requirements.txt").write_text("\n".join(_requirements(script)) + "\n", encoding="utf-8")
    on_the_hub = [name for name in names if not name.startswith("models/")]
    _card(models, on_the_hub, gradio).save(folder / "README.md")


def _requirements(script: Path) -> list[str]:
    """Return what the package and the page need: the clone's word, or that of the Space which writes another one."""
    project = script.parent.parent / "pyproject.toml"
    if not project.is_file():
        return (script.parent / "requirements.txt").read_text(encoding="utf-8").split("\n")[:-1]
    named = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    return [*named["dependencies"], *named["optional-dependencies"]["app"]]


def _card(models: Sequence[DemoModel], on_the_hub: list[str], gradio: str) -> Any:
    """Return the README, whose front matter says how the Hub runs the Space."""
    data = SpaceCardData(
        title=f"Segment a photo with {' and '.join(model.label for model in models)}",
        emoji="🧩",
        colorFrom="blue",
        colorTo="green",
        sdk="gradio",
        sdk_version=gradio,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license="apache-2.0",
        models=on_the_hub or None,
        tags=["semantic-segmentation", "s4mim"],
    )
    variable = MODEL_VARIABLES[0]
    return SpaceCard(
        f"---\n{data.to_yaml()}\n---\n\n# {data.title}\n\n"
        "Upload a photo; the page shows its classes, how sure the model is, and, where a model has the decoder for it, "
        "what it fills into masked patches. Written by `scripts/app.py --write-space` of s4mim_hf, whose code is in "
        f"this folder.\n\nAnother model: set the variable `{variable}` (and `{MODEL_VARIABLES[1]}`) in the Space's "
        "settings to a Hub id. Here: `pip install -r requirements.txt`, then `python app.py`.\n"
    )
