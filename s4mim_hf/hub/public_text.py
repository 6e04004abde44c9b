"""What may be shown to everybody: configurations without the paths of a machine, texts without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import huggingface_hub

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{20,}")
# transformers notes there where a configuration was read from.
_NAMES_OF_SOURCES = ("_name_or_path", "name_or_path")


def without_local_paths(value: Any, key: str = "") -> Any:
    """Copy nested plain values, local paths cut to their last part and URLs to what is public, without `output_dir`."""
    if isinstance(value, Mapping):
        return {name: without_local_paths(item, str(name)) for name, item in value.items() if name != "output_dir"}
    if isinstance(value, list | tuple):
        return [without_local_paths(item) for item in value]
    if isinstance(value, str) and "://" in value:
        # Without what may be a secret: a user's name and password, a signature.
        scheme, _, rest = value.partition("://")
        host, slash, path = (rest.partition("?")[0] if scheme in ("http", "https") else rest).partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    if isinstance(value, str) and _is_local_path(value, key):
        return PurePath(value.replace("\\", "/")).name
    return value


def without_sources(config: Any) -> Any:
    """Copy a model's configuration, in which local paths that it was read from are cut to their last part."""
    if isinstance(config, Mapping):
        return {
            key: without_local_paths(item, key) if key in _NAMES_OF_SOURCES else without_sources(item)
            for key, item in config.items()
        }
    return [without_sources(item) for item in config] if isinstance(config, list) else config


def plain(value: Any) -> Any:
    """Return what YAML and JSON can write of `value`: enumerations, paths and the like become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def secret_in(text: str, folder: Path) -> str | None:
    """Say what a text holds that nobody else should see, in words: a token, or where this machine keeps its files.

    Args:
        text: any.
        folder: that the text is from.
    """
    token = huggingface_hub.get_token()
    if _TOKEN.search(text) or (token and len(token) >= 20 and token in text):
        return "a token of the Hub"
    for private in (Path.home(), folder.resolve()):
        # The root of a file system, or a folder right below it, tells nothing of anybody, and is found anywhere.
        if len(private.parts) > 2 and str(private) in text:
            return f"the path {private}"
    return None


def _is_local_path(value: str, key: str) -> bool:
    if "/" not in value and "\\" not in value:
        return False
    # "org/name" is a Hub name, unless such a folder lies here, which is what loading would have taken.
    return key in ("path", "recipe") or _HUB_NAME.fullmatch(value) is None or Path(value).exists()
