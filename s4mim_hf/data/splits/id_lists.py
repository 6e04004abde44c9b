"""Lists of ids as people publish them: one image a line, from a file or a web address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from s4mim_hf.data.splits.downloads import download_text, is_url
from s4mim_hf.errors import InputError, nearest, some

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = ("train", "val")
_MANY = 20_000


def read_id_list(place: str | Path) -> list[str]:
    """Read one image a line: an id, a path, or "IMAGE MASK" as the published split lists have it (IMAGE is kept).

    Blank lines are skipped.

    Args:
        place: a file, or an http(s) address.

    Raises:
        InputError: the list cannot be had, is no text, or names nothing.
    """
    text = download_text(str(place), "the id list") if is_url(str(place)) else _read_file(Path(place))
    lines = (line.strip() for line in text.splitlines())
    entries = [_first_of_pair(line) for line in lines if line]
    if not entries:
        raise InputError(f"the id list {place} is empty; it should name one image a line")
    return entries


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the id list {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"the id list {path} is no UTF-8 text; it should name one image a line") from None


def _first_of_pair(line: str) -> str:
    """Return IMAGE of "IMAGE MASK"; a name with a blank in it, such as "my photo.jpg", stays whole."""
    words = line.split()
    both_are_files = len(words) == 2 and all(word.lower().endswith(IMAGE_SUFFIXES) for word in words)
    return words[0] if both_are_files else line


def without_suffix(path: str) -> str:
    """Return a path with forward slashes and without "./" and an image suffix; other dots of the name stay."""
    posix = PurePosixPath(path.replace("\\", "/").removeprefix("./"))
    return str(posix.with_suffix("")) if posix.suffix.lower() in IMAGE_SUFFIXES else str(posix)


def match_ids(
    entries: Sequence[str],
    ids: Iterable[str],
    validation_ids: Iterable[str],
    where: str,
    id_of_entry: Callable[[str], str] = without_suffix,
) -> list[str]:
    """Find the training image that each entry of a list names.

    An entry may be the id itself, the end of it ("0016E5_07959" for "train/0016E5_07959"), or a longer path that ends
    in it ("JPEGImages/2007_000032.jpg" for "2007_000032"), with or without suffix.

    Args:
        entries: as `read_id_list` returns them.
        ids: the training images.
        validation_ids: images of a validation folder, which no list may name.
        where: the list, for messages.
        id_of_entry: what an entry means in this source (`s4mim_hf.data.sources.base.Source.id_of_entry`).

    Returns:
        One id for each entry, in their order.

    Raises:
        InputError: an entry names no image, several, one that another entry names, or a validation image.
    """
    everything, kept_aside = sorted(ids), set(validation_ids)
    keys = [id_of_entry(entry) for entry in entries]
    found = _find(set(keys), [*everything, *kept_aside])
    matched: list[str] = []
    unknown: list[int] = []
    ambiguous: list[int] = []
    validation: list[str] = []
    for index, key in enumerate(keys):
        hits = found.get(key, set())
        training = hits - kept_aside
        if len(training) == 1:
            matched.extend(training)
        elif training:
            ambiguous.append(index)
        elif hits:
            validation.append(entries[index])
        else:
            unknown.append(index)
    if validation:
        raise InputError(f"{where} names {len(validation)} validation images: {some(validation)}; take them out")
    if unknown:
        # Looking for the most similar of very many takes minutes.
        hint = nearest(keys[unknown[0]], everything) if len(everything) <= _MANY else ""
        names = some(entries[index] for index in unknown)
        raise InputError(
            f"{where} names {len(unknown)} images that are not there: {names}{hint}; correct the list, or add them"
        )
    if ambiguous:
        several, names = some(sorted(found[keys[ambiguous[0]]])), some(entries[index] for index in ambiguous)
        raise InputError(f"{where}: {names} may mean several images ({several}); give the whole id")
    doubled = sorted(image_id for image_id, count in Counter(matched).items() if count > 1)
    if doubled:
        raise InputError(f"{where} names {len(doubled)} images more than once: {some(doubled)}; name each once")
    return matched


def _find(keys: set[str], ids: Sequence[str]) -> dict[str, set[str]]:
    """Return the ids that each key may mean, for the keys that mean any.

    A key is looked for as an id, then as the end of one, then as a path that ends in one. What is kept in memory grows
    with the keys, not with the ids.
    """
    exact = keys.intersection(ids)
    found = {key: {key} for key in exact}
    found |= _gather(keys - exact, ids, _tails)
    # Of the paths that end in an id, the longest end counts.
    ends = {tail for key in keys - set(found) for tail in _tails(key)}
    by_end = _gather(ends, ids, _wholes) if ends else {}
    for key in keys - set(found):
        end = next((tail for tail in _tails(key) if tail in by_end), None)
        if end is not None:
            found[key] = by_end[end]
    return found


def _gather(wanted: set[str], ids: Sequence[str], names: Callable[[str], Iterable[str]]) -> dict[str, set[str]]:
    """Return the ids that have each of the wanted names."""
    found: dict[str, set[str]] = {}
    if wanted:
        for image_id in ids:
            for name in names(image_id):
                if name in wanted:
                    found.setdefault(name, set()).add(image_id)
    return found


def _tails(path: str) -> Iterator[str]:
    """Yield the path, and what remains of it without its first folder, its first two, and so on: "a/b", "b"."""
    while True:
        yield path
        _, slash, path = path.partition("/")
        if not slash:
            return


def _wholes(image_id: str) -> Iterator[str]:
    """Yield an id, and the id without train/ or val/: lists of a public split do not know our folders."""
    yield image_id
    folder, _, rest = image_id.partition("/")
    if folder in SPLIT_FOLDERS and rest:
        yield rest
