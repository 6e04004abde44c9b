"""Masks in RGB, and the table that says which class each colour is.

A table is one of
    {"road": [128, 64, 128], ...} or {"road": "#804080", ...}      JSON
    {"#804080": "road", "#3c28de": "road", ...}                    JSON; colours may share a class
    128 64 128  road                                               text, as CamVid's label_colors.txt
    road,128,64,128                                                CSV, with a header or not; or 128,64,128,road
    road:128,64,128::                                              CVAT's labelmap.txt
Colours called void, ignore, unlabelled or __ignore__ are not counted (255).

H, W: height and width of a mask.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from s4mim_hf.data.catalog import Color
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, SampleError, Source
from s4mim_hf.data.sources.class_names import checked_classes
from s4mim_hf.data.sources.folder import FolderSource, classes_of_folder
from s4mim_hf.data.sources.reading import reason
from s4mim_hf.data.sources.special_names import is_ignored
from s4mim_hf.errors import InputError, nearest, some

_UNLISTED = -1
_FORMS = '{"road": [128, 64, 128], ...} as JSON, or lines such as "128 64 128 road", "road,128,64,128" or CVAT\'s'
_NUMBERS = r"(?P<red>\d+)[ ,\t]+(?P<green>\d+)[ ,\t]+(?P<blue>\d+)"
_LINES = (
    re.compile(rf"(?P<name>[^:]+):{_NUMBERS}(:.*)?"),
    re.compile(rf"{_NUMBERS}[ ,\t]+(?P<name>.+)"),
    re.compile(rf"(?P<name>.+?)[ ,\t]+{_NUMBERS}"),
)
_HEX = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_HEADER = re.compile(r"[a-zA-Z_ ]*(,[a-zA-Z_ ]*)+")


@dataclass(frozen=True)
class ColorTable:
    """Which id each colour of a mask means.

    Attributes:
        classes: the classes with their colours; where several colours are one class, its first.
        ids: the id of each colour: 0 .. K-1, or 255 for what is ignored.
    """

    classes: Classes
    ids: dict[Color, int]

    @cached_property
    def by_packed_color(self) -> np.ndarray:
        """Return the id of each colour r * 65536 + g * 256 + b: int16 (2**24,), -1 where the table has none."""
        found = np.full(1 << 24, _UNLISTED, np.int16)
        for (red, green, blue), class_id in self.ids.items():
            found[red << 16 | green << 8 | blue] = class_id
        return found


def open_colored(options: PrepareOptions) -> Source:
    """Open a folder with images/ and masks/ in RGB, whose colours --color-table explains.

    Raises:
        InputError: the folder or the table is missing, or the table is none, or does not fit the names of the classes.
    """
    assert options.color_table is not None
    folder = options.folder()
    given, _ = classes_of_folder(folder, options.classes)
    table = read_color_table(options.color_table, None if given is None else given.names)
    name = options.name or folder.resolve().name
    return FolderSource(folder, name, table.classes, read_mask=partial(read_color_map, table=table))


def read_color_table(path: Path, names: Sequence[str] | None = None) -> ColorTable:
    """Read a colour table.

    Args:
        path: the file.
        names: the classes in the order of their ids; None: the order of the table.

    Raises:
        InputError: the file is missing or no such table, a colour has two classes, or its names are not `names`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the colour table {path} cannot be read: {error}; it should hold {_FORMS}") from None
    pairs = _json_pairs(path, text) if text.lstrip()[:1] in ("{", "[") else _line_pairs(path, text)
    colors: dict[Color, str] = {}
    for name, color in pairs:
        if colors.setdefault(color, name) != name:
            raise InputError(f"{path}: the colour {color} is both {colors[color]!r} and {name!r}; keep one of them")
    own = list(dict.fromkeys(colors.values()))
    if names is None:
        names = [name for name in own if not is_ignored(name)]
    _check_names(path, own, names)
    classes, _ = checked_classes(names, IGNORE_INDEX, str(path))
    number = {name: class_id for class_id, name in enumerate(classes.names)}
    first: dict[str, Color] = {}
    for color, name in colors.items():
        first.setdefault(name, color)
    palette = tuple(first[name] for name in classes.names)
    return ColorTable(
        Classes(classes.names, palette), {color: number.get(name, IGNORE_INDEX) for color, name in colors.items()}
    )


def _check_names(path: Path, own: Iterable[str], names: Sequence[str]) -> None:
    """Refuse a class without a colour, and a colour that is neither a class nor ignored."""
    own = list(own)
    without = [name for name in names if name not in own]
    if without:
        raise InputError(
            f"{path} has no colour for {len(without)} of the {len(names)} classes: {some(without)}"
            f"{nearest(without[0], own)}; add them to it"
        )
    beyond = [name for name in own if name not in names and not is_ignored(name)]
    if beyond:
        raise InputError(
            f"{path} has colours for {len(beyond)} names that are no class: {some(beyond)}"
            f"{nearest(beyond[0], names)}; name them in --classes, or call them 'void' to ignore them"
        )


def read_color_map(path: Path, table: ColorTable) -> np.ndarray:
    """Decode a mask in colours to int64 ids (H, W).

    Raises:
        SampleError: the file is missing, unreadable or lossy, or has colours that the table does not list.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError("masks cannot be read", error.strerror or str(error)) from None
    return decode_color_map(data, table)


def decode_color_map(data: bytes, table: ColorTable) -> np.ndarray:
    """Decode the bytes of a mask in colours; see `read_color_map`. A palette's colours count, transparency does not.

    Raises:
        SampleError: unreadable or lossy, or colours that the table does not list.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = image.format
            deep = image.mode.startswith(("I", "F"))
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(np.uint32)
    except Exception as error:
        raise SampleError("masks cannot be read as pictures", reason(error)) from None
    if kind in ("JPEG", "MPO"):
        raise SampleError("masks are JPEG files, which blur colours; masks must be stored without loss, as PNG")
    if deep:
        raise SampleError("masks hold numbers of 16 bits or more where --color-table expects colours of 8 bits")
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    ids = table.by_packed_color[packed].astype(np.int64)
    if ids.min(initial=0) == _UNLISTED:
        raise SampleError("masks have colours that the colour table does not list", _unlisted(packed[ids == _UNLISTED]))
    return ids


def _unlisted(packed: np.ndarray) -> str:
    """Say which colours these are, and how many pixels each has, the most frequent first."""
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    texts = (
        f"{value >> 16} {value >> 8 & 255} {value & 255}: {count} pixels"
        for value, count in zip(values[order].tolist(), counts[order].tolist(), strict=True)
    )
    return some(texts)


def _json_pairs(path: Path, text: str) -> list[tuple[str, Color]]:
    """Return (name, colour) in the order of a JSON object that has either as keys."""
    try:
        pairs: Any = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the colour table {path} is no JSON that can be read: {error}") from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise InputError(f"the colour table {path} is no JSON object; it should hold {_FORMS}")
    read: list[tuple[str, Color]] = []
    for key, value in pairs:
        by_color = isinstance(value, str) and key.startswith("#") and _HEX.fullmatch(key)
        read.append((value, _color(path, value, key)) if by_color else (key, _color(path, key, value)))
    doubled = [name for name, _ in pairs if [key for key, _ in pairs].count(name) > 1]
    if doubled:
        raise InputError(f"the colour table {path} has {doubled[0]!r} twice; keep one of them")
    return _named(path, read)


def _line_pairs(path: Path, text: str) -> list[tuple[str, Color]]:
    """Return (name, colour) in the order of the lines; comments and a header are skipped."""
    read: list[tuple[str, Color]] = []
    for number, line in enumerate((line.strip() for line in text.splitlines()), start=1):
        if not line or line.startswith("#") or (not read and _HEADER.fullmatch(line)):
            continue
        match = next((found for form in _LINES if (found := form.fullmatch(line))), None)
        if match is None:
            raise InputError(f"line {number} of the colour table {path} is {line!r}; a table holds {_FORMS}")
        name = match["name"].strip().strip('"')
        read.append((name, _color(path, name, [int(match[part]) for part in ("red", "green", "blue")])))
    return _named(path, read)


def _color(path: Path, name: str, value: Any) -> Color:
    """Read [128, 64, 128] or "#804080"."""
    match = _HEX.fullmatch(value) if isinstance(value, str) else None
    parts = [int(part, 16) for part in match.groups()] if match else value
    right = (
        isinstance(parts, list) and len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts)
    )
    if not right:
        raise InputError(f"{path}: the colour of {name!r} is {value!r}; it should be three numbers from 0 to 255")
    return parts[0], parts[1], parts[2]


def _named(path: Path, pairs: list[tuple[str, Color]]) -> list[tuple[str, Color]]:
    if not pairs:
        raise InputError(f"the colour table {path} is empty; it should hold {_FORMS}")
    bad = [name for name, _ in pairs if not isinstance(name, str) or not name.strip()]
    if bad:
        raise InputError(f"the colour table {path} has the name {bad[0]!r}; names are texts of at least one letter")
    return [(name.strip(), color) for name, color in pairs]
