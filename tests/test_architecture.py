"""The import direction that the layout promises, read from the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

# What each part of the package may import of it; leaves are what all but modeling may use.
LEAVES = {"errors", "randomness", "transfers"}
ALLOWED = {
    "errors": set(),
    "randomness": set(),
    "transfers": set(),
    "command_line": LEAVES,
    "locking": {"errors"},
    "hub_access": {"errors"},
    "hub_uploads": {"errors", "hub_access"},
    "modeling": set(),
    "losses": set(),
    "masking": set(),
    "data": LEAVES | {"hub_access", "hub_uploads", "locking"},
    "visualization": LEAVES,
    "methods": LEAVES | {"data", "losses", "masking", "modeling"},
    "evaluation": LEAVES | {"data", "modeling", "visualization"},
    "prediction": LEAVES | {"data", "modeling", "evaluation", "visualization", "hub_access", "locking"},
    "hub": LEAVES | {"data", "modeling", "evaluation", "hub_access", "hub_uploads"},
    "engine": LEAVES
    | {"data", "losses", "masking", "methods", "modeling", "evaluation", "hub", "visualization", "locking"},
    "demo": LEAVES | {"data", "methods", "modeling", "evaluation", "hub", "visualization", "engine"},
    "experiments": LEAVES
    | {"data", "losses", "masking", "methods", "modeling", "evaluation", "hub", "visualization", "engine", "locking"},
}


def _imported_parts(file: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
            if node.module == "s4mim_hf":
                names = [f"s4mim_hf.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("s4mim_hf.")}
    return parts


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_go_one_way(repository: Path, part: str) -> None:
    root = repository / "s4mim_hf"
    files = [root / f"{part}.py"] if (root / f"{part}.py").exists() else sorted((root / part).rglob("*.py"))
    assert files
    for file in files:
        beyond = _imported_parts(file) - ALLOWED[part] - {part}
        assert not beyond, f"{file.relative_to(repository)} imports {sorted(beyond)}"


def test_every_part_is_listed(repository: Path) -> None:
    root = repository / "s4mim_hf"
    found = {path.stem for path in root.glob("*.py")} | {path.parent.name for path in root.glob("*/__init__.py")}
    assert found - {"__init__"} == set(ALLOWED)


def test_the_shipped_code_imports_its_siblings_and_common_libraries_only(repository: Path) -> None:
    # A Hub repository ships these files loose, and transformers checks that each import can be had.
    common = {"torch", "transformers", "numpy", "PIL"}
    for file in (repository / "s4mim_hf" / "modeling").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{file.name} imports from above its folder"
                names = [node.module or ""] if node.level == 0 else []
            for name in names:
                top = name.split(".")[0]
                assert top in common or top in sys.stdlib_module_names, f"{file.name} imports {name}"
