"""Picture files: named one by one, below folders, or by patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from s4mim_hf.data.splits import IMAGE_SUFFIXES
from s4mim_hf.errors import InputError
from s4mim_hf.prediction.sources.base import ListedImages, distinct_names

_KINDS = " ".join(sorted(IMAGE_SUFFIXES))


def open_files(sources: Sequence[str], output: Path) -> ListedImages:
    """List the images of files, folders (with their subfolders) and patterns with *, ** or ?.

    A result is named by its image's path relative to the folder, or to what several sources have in common; images that
    differ in suffix only keep it, so that no two share a name. What lies in `output` is no input.

    Raises:
        InputError: a source is missing or holds no image, or a pattern matches none.
    """
    files: dict[str, None] = {}
    bases = []
    for source in sources:
        base, found = _found(source, output.resolve())
        files.update(dict.fromkeys(map(str, found)))
        bases.append(base)
    # As text: there may be hundreds of thousands, and a `Path` takes five times the memory.
    paths = list(files)
    base = Path(os.path.commonpath(bases))
    names = distinct_names([Path(path).relative_to(base).as_posix() for path in paths])
    return ListedImages(names, lambda number: Path(paths[number]).read_bytes(), is_data_set=False)


def is_pattern(source: str) -> bool:
    """Say whether a source that is no file is a pattern."""
    return glob.has_magic(source)


def holds_images(folder: Path) -> bool:
    """Say whether there is a picture file below a folder."""
    return any(True for _ in _below(folder))


def _found(source: str, output: Path) -> tuple[Path, list[Path]]:
    """Return the folder that names are relative to, and the images."""
    path = Path(source).expanduser()
    if path.is_dir():
        found = _images_below(path.resolve(), output)
        if not found:
            raise InputError(f"{source} holds no image; expected files that end in one of {_KINDS}")
        return path.resolve(), found
    if path.exists():
        return path.resolve().parent, [path.resolve()]
    if not is_pattern(source):
        raise InputError(
            f"there is no image or folder {source}; give image files, folders, patterns such as 'photos/**/*.jpg' (in "
            "quotes), a data set or its shards"
        )
    return _matches(source, path, output)


def _matches(source: str, pattern: Path, output: Path) -> tuple[Path, list[Path]]:
    matched = sorted(Path(name).resolve() for name in glob.iglob(str(pattern), recursive=True))
    if not matched:
        raise InputError(f"the pattern {source!r} matches nothing; check it, and the folder that it starts from")
    found: dict[Path, None] = {}
    for path in matched:
        inside = _images_below(path, output) if path.is_dir() else [path] * _is_image(path)
        found.update(dict.fromkeys(file for file in inside if not file.is_relative_to(output)))
    if not found:
        raise InputError(
            f"the pattern {source!r} matches {len(matched)} files or folders, but no image; expected files that end in "
            f"one of {_KINDS}"
        )
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    base = Path(*fixed).resolve()
    # A link may lead out of the folder that the pattern names.
    return Path(os.path.commonpath([base, *(file.parent for file in found)])), list(found)


def _images_below(folder: Path, output: Path) -> list[Path]:
    """Return the images below a folder, sorted; hidden files, and what an earlier run wrote there, are none."""
    return sorted(path for path in _below(folder) if not path.is_relative_to(output))


def _below(folder: Path) -> Iterator[Path]:
    # Not `rglob`, which does not follow links to folders.
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (path for name in names if _is_image(path := Path(parent, name)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
