"""Picture files: named one by one, below folders, or by patterns."""

from __future__ import annotations

import glob
import itertools
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
    differ in suffix only keep it, so that no two share a name. An image that is a link is called as the link is: where
    it leads may have no name that says anything, as in the Hub's cache. What lies in `output` is no input.

    Raises:
        InputError: a source is missing or holds no image, or a pattern matches none.
    """
    files: dict[str, None] = {}
    bases = []
    places = _Places(output)
    for source in sources:
        base, found = _found(source, places)
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


class _Places:
    """Where files lie: at the ends of their folders' links, while a link that is a file is itself."""

    def __init__(self, output: Path) -> None:
        self._output = output.resolve()
        # Resolving takes longer than all else, and a folder has many files.
        self._folders: dict[Path, Path] = {}

    def of(self, path: Path) -> Path:
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = folder.resolve()
        return self._folders[folder] / path.name

    def is_result(self, path: Path) -> bool:
        """Say whether a file is one of the output's, or leads to one."""
        if self.of(path).is_relative_to(self._output):
            return True
        return path.is_symlink() and path.resolve().is_relative_to(self._output)


def _found(source: str, places: _Places) -> tuple[Path, list[Path]]:
    """Return the folder that names are relative to, and the images."""
    path = Path(source).expanduser()
    if path.is_dir():
        found = _images_below(path.resolve(), places)
        if not found:
            raise InputError(f"{source} holds no image; expected files that end in one of {_KINDS}")
        return path.resolve(), found
    if path.exists():
        return path.parent.resolve(), [places.of(path)]
    if not is_pattern(source):
        raise InputError(
            f"there is no image or folder {source}; give image files, folders, patterns such as 'photos/**/*.jpg' (in "
            "quotes), a data set or its shards"
        )
    return _matches(source, path, places)


def _matches(source: str, pattern: Path, places: _Places) -> tuple[Path, list[Path]]:
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1]))
    base = Path(*fixed).resolve()
    rest = str(Path(*pattern.parts[len(fixed) :]))
    matched = [base / name for name in glob.iglob(rest, root_dir=base, recursive=True)]
    if not matched:
        raise InputError(f"the pattern {source!r} matches nothing; check it, and the folder that it starts from")
    found: dict[Path, Path] = {}
    # Links to folders lead to one image by many ways, in a circle by ever longer ones: the shortest counts.
    for path in sorted(matched, key=lambda path: (len(path.parts), path)):
        for file in _images_below(path, places) if path.is_dir() else filter(_is_image, [path]):
            if places.is_result(file):
                continue
            place = places.of(file)
            # Where ".." follows a link, the path itself is none to be cut to a name.
            found.setdefault(place, place if ".." in file.parts else file)
    if not found:
        raise InputError(
            f"the pattern {source!r} matches {len(matched)} files or folders, but no image; expected files that end in "
            f"one of {_KINDS}"
        )
    files = sorted(found.values())
    # A pattern such as a*/../../x.jpg leads out of the folder that it starts from.
    return Path(os.path.commonpath([base, *(file.parent for file in files)])), files


def _images_below(folder: Path, places: _Places) -> list[Path]:
    """Return the images below a folder, sorted; hidden files, and what an earlier run wrote there, are none."""
    return sorted(path for path in _below(folder) if not places.is_result(path))


def _below(folder: Path) -> Iterator[Path]:
    # Not `rglob`, which does not follow links to folders.
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (path for name in names if _is_image(path := Path(parent, name)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
