"""Names that annotation tools and colour tables give to what is no object: the background, and what is not labelled."""

from __future__ import annotations

from collections.abc import Iterable

_IGNORED = frozenset({"ignore", "ignored", "void", "unlabeled", "unlabelled"})


def is_background(name: str) -> bool:
    """Return whether a class is what lies behind everything: "background", LabelMe's "_background_"."""
    return _plain(name) == "background"


def is_ignored(name: str) -> bool:
    """Return whether a name says that its pixels do not count: "void", "unlabeled", LabelMe's "__ignore__"."""
    return _plain(name) in _IGNORED


def background_id(names: Iterable[str]) -> int | None:
    """Return the id of the first class that is the background, where there is one."""
    return next((class_id for class_id, name in enumerate(names) if is_background(name)), None)


def _plain(name: str) -> str:
    return name.strip().strip("_").lower()
