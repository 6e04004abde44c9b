"""What is said about a wrong key or value of a configuration: one sentence each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from s4mim_hf.engine.config_schema import Schema

# pydantic's error types that are about a bound: the bound's key in the error's context, words for it after a thing
# and words for it after a list.
_BOUNDS = {
    "greater_than": ("gt", " greater than {}", ", each greater than {}"),
    "greater_than_equal": ("ge", " of at least {}", ", each at least {}"),
    "less_than": ("lt", " less than {}", ", each less than {}"),
    "less_than_equal": ("le", " of at most {}", ", each at most {}"),
    "finite_number": ("", " that is finite", ", each finite"),
    "string_too_short": ("", " that is not empty", ", none of them empty"),
    "too_short": ("min_length", "", ", at least {} of them"),
}
_HINTS = {"data.path": "a folder that scripts/prepare_data.py wrote"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A value and where it was set.

    Args:
        value: as YAML gave it.
        origin: the end of a sentence, such as "in recipe 'demo'".
    """

    value: Any
    origin: str


def unknown_key(schema: Schema, key: str, origin: str) -> str:
    """Say that there is no such key, and which is the nearest."""
    return f"unknown key {key!r} {origin}{schema.suggestion(key)}"


def no_section(key: str, setting: Setting) -> str:
    """Say that a section was given a value."""
    return f"{key} is {_quoted(setting.value)} {setting.origin}; expected a section, with keys below it"


def whole_section(schema: Schema, key: str, origin: str) -> str:
    """Say that an override names a section and not one of its keys."""
    example = f"{key}.name" if f"{key}.name" in schema else next(k for k in schema.values if k.startswith(f"{key}."))
    return f"{key} {origin} is a section; set one of its keys, as in {example}=..."


def other_methods_key(key: str, origin: str, owners: list[str], chosen: str) -> str:
    """Say that the chosen method has no such key, and which has."""
    return f"{key} {origin} is a key of method {' and '.join(owners)}, and method.name is {chosen!r}; leave it out"


def truth_values(schema: Schema, settings: Mapping[str, Setting]) -> Iterator[str]:
    """Refuse true and false as numbers, which pydantic would take for 1 and 0."""
    for key, setting in settings.items():
        if isinstance(setting.value, bool) and (schema.takes(key, int) or schema.takes(key, float)):
            yield f"{key} is {_quoted(setting.value)} {setting.origin}; expected {schema.expected(key)}"


def validation_sentences(schema: Schema, settings: Mapping[str, Setting], error: ValidationError) -> list[str]:
    """Say each problem that pydantic found, once per key."""
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        key = _key_of(schema, problem["loc"])
        context = problem.get("ctx", {})
        if key in schema.values:
            setting = settings.get(key, Setting(None, "by default"))
            found.setdefault(key, _value_sentence(schema, key, setting, problem["type"], context))
        elif problem["type"] == "value_error":
            found.setdefault(f"{key}: {context['error']}", _cross_sentence(key, str(context["error"])))
        else:
            found.setdefault(key, f"{key}: {problem['msg']}")
    return list(found.values())


def _key_of(schema: Schema, location: tuple[int | str, ...]) -> str:
    """Return the value or section that an error is about, without list positions and names of union members."""
    key = ""
    for part in location:
        longer = f"{key}.{part}" if key else str(part)
        if longer in schema.values or longer in schema.sections:
            key = longer
    return key


def _value_sentence(schema: Schema, key: str, setting: Setting, kind: str, context: Mapping[str, Any]) -> str:
    if setting.value is None:
        return f"{key} has no value {setting.origin}; set {key}=..., {_HINTS.get(key, schema.expected(key))}"
    found = f"{key} is {_quoted(setting.value)} {setting.origin}"
    if kind in ("value_error", "assertion_error"):
        return f"{found}: {context['error']}"
    bound = ""
    if kind in _BOUNDS:
        name, after_thing, after_list = _BOUNDS[kind]
        limit = context.get(name)
        words = after_list if isinstance(setting.value, list) else after_thing
        bound = words.format(f"{limit:g}" if isinstance(limit, float) else limit)
    return f"{found}; expected {schema.expected(key, bound)}"


def _cross_sentence(section: str, message: str) -> str:
    return message if not section or f"{section}." in message else f"{section}: {message}"


def _quoted(value: Any) -> str:
    """Show a value as YAML would have it."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
