"""From a recipe and `key=value` overrides to a validated `RunConfig`, and back to a YAML file.

Precedence: overrides, then the recipe, then the defaults of `s4mim_hf.engine.run_config`. Every problem is a sentence
that names the key by its dotted name, what was found, where it came from and what was expected.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from s4mim_hf.engine.config_messages import (
    Setting,
    no_section,
    other_methods_key,
    truth_values,
    unknown_key,
    validation_sentences,
    whole_section,
)
from s4mim_hf.engine.config_schema import Schema, schema_of
from s4mim_hf.engine.config_yaml import parse_yaml, read_text
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError, nearest
from s4mim_hf.methods import METHODS, S4MIMMethodConfig

_COMMAND_LINE = "on the command line"
_BACKBONE_KEYS = ("model.backbone", "model.backbone_config")


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes, sorted."""
    files = (resources.files("s4mim_hf") / "recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_run_config(recipe: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Build the configuration of a run.

    Two keys follow from others: a recipe's keys of another method than the chosen one are dropped, and an override of
    `model.backbone` or `model.backbone_config` sets the recipe's other one aside.

    Args:
        recipe: the name of a packaged recipe, or the path of a YAML file such as a run's `run_config.yaml`.
        overrides: `"section.key=value"`, the value in YAML; the last one of a key counts.

    Raises:
        InputError: the recipe cannot be read, or keys or values are wrong: one line per problem.
    """
    name, origin, tree = _read_recipe(recipe)
    assignments = [_split_override(text) for text in overrides]
    method, method_origin = _chosen_method(tree, assignments, origin)
    schema = schema_of(method)
    settings = {"recipe": Setting(name, "")}
    problems: list[str] = []
    for key, value in _flatten(tree, "", _all_sections()):
        problems += _from_recipe(settings, schema, key, Setting(value, f"in {origin}"))
    settings["method.name"] = Setting(method, method_origin)
    for key, text in assignments:
        problems += _from_override(settings, schema, key, text)
    _set_other_backbone_aside(settings, {key for key, _ in assignments})
    problems += truth_values(schema, settings)
    if problems:
        raise InputError("\n".join(problems))
    return _validated(schema, settings)


def save_run_config(config: RunConfig, path: Path) -> None:
    """Write `config` as YAML, all at once (its folder is made); `load_run_config(path)` gives an equal one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yaml.safe_dump(to_dict(config), file, sort_keys=False, allow_unicode=True, width=120)
        # mkstemp makes files that only their owner may read.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def saved_settings(path: Path) -> dict[str, Any]:
    """Return what `save_run_config` wrote, as `to_dict` gives it, without the keys that it lacks.

    A file of an older version has not all keys. What the run did there is not what today's default says, so that
    `differences` names such a key.

    Raises:
        InputError: the file cannot be read, or `load_run_config` does not take it.
    """
    # Numbers may be written otherwise than they are meant (1 for 1.0).
    settings = to_dict(load_run_config(path))
    return _those_in(settings, parse_yaml(read_text(path), str(path)))


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return `config` as nested dicts, lists and plain values, ready for YAML and JSON."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def differences(a: RunConfig | Mapping[str, Any], b: RunConfig | Mapping[str, Any]) -> list[str]:
    """Return `"key: value in a -> value in b"` for every dotted key that differs, in the order of the keys."""
    left, right = (_leaves(to_dict(one) if isinstance(one, RunConfig) else one) for one in (a, b))
    return [
        f"{key}: {_shown(left, key)} -> {_shown(right, key)}"
        for key in [*left, *(key for key in right if key not in left)]
        if key not in left or key not in right or left[key] != right[key]
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _those_in(tree: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of nested `tree` whose keys are in `written` as well."""
    return {
        key: _those_in(value, written[key])
        if isinstance(value, Mapping) and isinstance(written[key], Mapping)
        else value
        for key, value in tree.items()
        if key in written
    }


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found.update(_leaves(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = _plain(value)
    return found


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "(not set)"


def _read_recipe(recipe: str | Path) -> tuple[str, str, Mapping[str, Any]]:
    """Return the recipe's name, what it is in a sentence, and its content."""
    is_file = isinstance(recipe, Path) or recipe.endswith((".yaml", ".yml")) or os.sep in recipe
    if is_file:
        path = Path(recipe).expanduser()
        name, origin, text = path.stem, str(path), read_text(path)
    else:
        name, origin = str(recipe), f"recipe {recipe!r}"
        if name not in recipe_names():
            known = ", ".join(recipe_names())
            raise InputError(
                f"unknown {origin}{nearest(name, recipe_names())} (recipes: {known}; or the path of a .yaml file)"
            )
        text = (resources.files("s4mim_hf") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    tree = parse_yaml(text, origin)
    if not isinstance(tree, Mapping):
        raise InputError(f"{origin} holds {'nothing' if tree is None else repr(tree)[:40]}; expected keys with values")
    return name, origin, tree


def _split_override(text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key or not all(key.split(".")):
        raise InputError(f"override {text!r} is not of the form section.key=value, as in optim.max_steps=100")
    if not value:
        raise InputError(f"override {text!r} has no value; write {key}=null for none")
    if key == "recipe":
        raise InputError(f"override {text!r} cannot choose the recipe, which is read before; name it with --recipe")
    return key, value


def _chosen_method(tree: Mapping[str, Any], assignments: Sequence[tuple[str, str]], origin: str) -> tuple[str, str]:
    """Return the method's name and where it was chosen."""
    section = tree.get("method")
    name: Any = section.get("name") if isinstance(section, Mapping) else None
    where = f"in {origin}"
    for key, text in assignments:
        if key == "method.name":
            name, where = text.strip("\"'"), _COMMAND_LINE
    name = S4MIMMethodConfig().name if name is None else name
    if not isinstance(name, str) or name not in METHODS:
        close = nearest(str(name), METHODS)
        raise InputError(f"method.name is {name!r} {where}{close} (methods: {', '.join(METHODS)})")
    return name, where


def _all_sections() -> frozenset[str]:
    return frozenset().union(*(schema_of(name).sections for name in METHODS))


def _flatten(tree: Mapping[Any, Any], prefix: str, sections: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in sections and isinstance(value, Mapping):
            yield from _flatten(value, f"{key}.", sections)
        elif key not in sections or value is not None:  # a section with nothing below it says nothing
            yield key, value


def _from_recipe(settings: dict[str, Setting], schema: Schema, key: str, setting: Setting) -> Iterator[str]:
    """Set one key as a recipe does; yield what is wrong with it."""
    if schema.is_value(key):
        _store(settings, schema, key, setting)
    elif key in schema.sections:
        yield no_section(key, setting)
    elif not _methods_with(key):
        parent = key.rpartition(".")[0]
        nearer = (schema_of(name) for name in METHODS if parent in schema_of(name).sections)
        yield unknown_key(schema if parent in schema.sections else next(nearer, schema), key, setting.origin)


def _from_override(settings: dict[str, Setting], schema: Schema, key: str, text: str) -> Iterator[str]:
    """Set one key as the command line does; yield what is wrong with it."""
    if schema.is_value(key):
        _store(settings, schema, key, Setting(_parse_value(schema, key, text), _COMMAND_LINE))
    elif key in schema.sections:
        yield whole_section(schema, key, _COMMAND_LINE)
    elif owners := _methods_with(key):
        yield other_methods_key(key, _COMMAND_LINE, owners, settings["method.name"].value)
    else:
        yield unknown_key(schema, key, _COMMAND_LINE)


def _parse_value(schema: Schema, key: str, text: str) -> Any:
    # For text the characters count: "run #2", "a: b", 007 and 2024 are names too.
    if schema.takes(key, str) and text[0] not in "\"'[{" and text not in ("null", "~"):
        return text
    return parse_yaml(text, f"the value of {key} {_COMMAND_LINE}")


def _store(settings: dict[str, Setting], schema: Schema, key: str, setting: Setting) -> None:
    free = schema.free_mapping(key)
    if free is None:
        settings[key] = setting
        return
    before = settings[free].value if free in settings else None
    inside = key.removeprefix(f"{free}.").split(".")
    settings[free] = Setting(_with_entry(before, inside, setting.value), setting.origin)


def _with_entry(mapping: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of `mapping` (anything else counts as empty) in which the nested key `path` is `value`."""
    entries = dict(mapping) if isinstance(mapping, Mapping) else {}
    entries[path[0]] = _with_entry(entries.get(path[0]), path[1:], value) if len(path) > 1 else value
    return entries


def _methods_with(key: str) -> list[str]:
    return [name for name in METHODS if key in schema_of(name)]


def _set_other_backbone_aside(settings: dict[str, Setting], overridden: set[str]) -> None:
    """Forget the recipe's backbone where an override chose one by the other key."""

    def touched(name: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for key in overridden)

    for name, other in (_BACKBONE_KEYS, _BACKBONE_KEYS[::-1]):
        if touched(name) and not touched(other) and name in settings and settings[name].value is not None:
            settings.pop(other, None)


def _validated(schema: Schema, settings: Mapping[str, Setting]) -> RunConfig:
    tree: dict[str, Any] = {"model": {}}
    for key, setting in settings.items():
        tree = _with_entry(tree, key.split("."), setting.value)
    try:
        return RunConfig(**tree)
    except ValidationError as error:
        raise InputError("\n".join(validation_sentences(schema, settings, error))) from None
