"""YAML as people write settings: `1e-3` is a number, a date is text, and a key given twice is an error."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from s4mim_hf.errors import InputError

_FLOAT_TAG = "tag:yaml.org,2002:float"
_DATE_TAG = "tag:yaml.org,2002:timestamp"
_FLOAT = re.compile(r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT_TAG, _DATE_TAG)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+0123456789."))


def parse_yaml(text: str, origin: str) -> Any:
    """Parse one YAML document.

    Args:
        text: the document.
        origin: what `text` is, as the subject of a sentence about it ("recipe 'demo'", a path).

    Raises:
        InputError: it is not YAML; with line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        parts = [getattr(error, "context", None), getattr(error, "problem", None)]
        reason = ", ".join(part for part in parts if part) or " ".join(str(error).split())
        raise InputError(f"{origin}{place} is not valid YAML: {reason}") from None
    except ValueError as error:  # a number or tag that a constructor refuses
        raise InputError(f"{origin} is not valid YAML: {error}") from None


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        InputError: there is none, it is a folder, or it is not text.
    """
    if path.is_dir():
        inside = path / "run_config.yaml"
        advice = f"; give {inside}" if inside.is_file() else "; give a YAML file"
        raise InputError(f"recipe {path} is a folder{advice}")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"recipe file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe file {path} cannot be read as text: {error}") from None
