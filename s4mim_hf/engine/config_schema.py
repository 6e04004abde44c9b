"""The keys of a run's configuration by their dotted names, and what is said about a wrong one.

A key is a value ("optim.max_steps"), a section ("optim"), or lies in a free mapping ("model.backbone_config.depths").
Which keys `method` has depends on the chosen method.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.methods import METHODS

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


@dataclasses.dataclass(frozen=True)
class Schema:
    """Every key there is.

    Args:
        values: dotted name of each value, and its type.
        sections: dotted names of the sections.
    """

    values: Mapping[str, Any]
    sections: frozenset[str]

    def __contains__(self, key: str) -> bool:
        return key in self.sections or self.is_value(key)

    def is_value(self, key: str) -> bool:
        """Whether `key` is a value, or lies in a free mapping."""
        return key in self.values or self.free_mapping(key) is not None

    def free_mapping(self, key: str) -> str | None:
        """Return the value of free keys (such as `model.backbone_config`) that `key` lies in, if any."""
        parts = key.split(".")
        parents = (".".join(parts[:count]) for count in range(1, len(parts)))
        return next((name for name in parents if _takes(self.values.get(name), dict)), None)

    def takes(self, key: str, kind: type) -> bool:
        """Whether the value `key` may be a `kind`, such as `str`, in itself (not inside a list)."""
        return _takes(self.values.get(key), kind)

    def expected(self, key: str, bound: str = "") -> str:
        """Describe the type of the value `key`, and its `bound` where that was crossed, as the object of "expected"."""
        return _describe(self.values[key], bound)

    def suggestion(self, key: str) -> str:
        """Return the nearest valid key as the end of a sentence, or else the keys of the same section."""
        parent, _, last = key.rpartition(".")
        keys = [*self.values, *sorted(self.sections)]
        siblings = {name.rpartition(".")[2]: name for name in keys if name.rpartition(".")[0] == parent}
        near = [siblings[found] for found in difflib.get_close_matches(last, siblings, n=1, cutoff=0.6)]
        near += [name for name in keys if name.rpartition(".")[2] == last]
        if not siblings:
            near += difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
        if near:
            return f"; did you mean {near[0]!r}?"
        return f"; {repr(parent) if parent in self.sections else 'the top level'} has {', '.join(sorted(siblings))}"


@cache
def schema_of(method_name: str) -> Schema:
    """Return the keys of a run whose method is `method_name`, one of `METHODS`."""
    keys = list(_walk(RunConfig, "", METHODS[method_name].config_class))
    return Schema(
        values={key: hint for key, hint in keys if hint is not None},
        sections=frozenset(key for key, hint in keys if hint is None),
    )


def _walk(section: type, prefix: str, method_config: type) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, type) of everything below `section`; the type of a section is None."""
    hints = get_type_hints(section)
    for field in dataclasses.fields(section):
        key = f"{prefix}{field.name}"
        hint = method_config if key == "method" else hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield key, None
            yield from _walk(hint, f"{key}.", method_config)
        else:
            yield key, hint


def _alternatives(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]


def _takes(hint: Any, kind: type) -> bool:
    return any((get_origin(one) or one) is kind for one in _alternatives(hint))


def _describe(hint: Any, bound: str = "") -> str:
    """Say a type in words: `tuple[float, float] | None` is "a list of 2 numbers, or null"."""
    alternatives = _alternatives(hint)
    words = " or ".join(_describe_one(one) for one in alternatives if one is not type(None))
    return f"{words}{bound}, or null" if type(None) in alternatives else f"{words}{bound}"


def _describe_one(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        *most, last = (repr(choice) for choice in arguments)
        return f"{', '.join(most)} or {last}" if most else last
    if origin in (tuple, list):
        count = "" if origin is list or Ellipsis in arguments else f"{len(arguments)} "
        members = _PLURALS[arguments[0]] if arguments[0] in _PLURALS else f"names out of {_describe_one(arguments[0])}"
        return f"a list of {count}{members}"
    return "keys with values" if (origin or hint) is dict else _WORDS.get(hint, str(hint))
