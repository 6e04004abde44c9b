"""The shards of a pool: which files a list of names and patterns means, and how they are known again.

A shard is one parquet file or one tar. Nothing here reads what is inside.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from s4mim_hf.data.streaming.files import SHORT_PAUSES, is_remote, retried
from s4mim_hf.errors import InputError, some

FORMS = {".parquet": "parquet", ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz"}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_NAMES = 1_000_000


class NoShardsError(InputError):
    """No file matches a pattern."""


@dataclass(frozen=True)
class Shard:
    """One file of a pool.

    Attributes:
        url: an absolute path, or a URL.
        name: its path below the folder that all shards of the pool share, by which it is known wherever they lie.
        size: in bytes.
        form: "parquet", "tar" or "tar.gz".
    """

    url: str
    name: str
    size: int
    form: str


def list_shards(patterns: Sequence[str], *, braces: bool = True) -> tuple[Shard, ...]:
    """Return the shards that names and patterns mean: in their order, and sorted where a * stands for several.

    Args:
        patterns: paths or URLs.
        braces: whether {a,b} and {000..012} in them stand for several names.

    Raises:
        InputError: a pattern matches nothing; a file is missing, empty, listed twice, or of no known form.
    """
    with ThreadPoolExecutor(max_workers=16) as threads:
        names = [name for pattern in patterns for name in (expand_braces(pattern) if braces else [pattern])]
        listings = list(threads.map(_matches, names))
    found = [entry for listing in listings for entry in listing]
    urls = [url for url, _ in found]
    if len(set(urls)) < len(urls):
        doubled = [url for url, count in Counter(urls).items() if count > 1]
        raise InputError(f"data.unlabeled.shards lists {some(doubled)} more than once; list each shard once")
    for url, size in found:
        if size == 0:
            raise InputError(f"{url} is empty (0 bytes); write it again, or leave it out of data.unlabeled.shards")
    names = _names(urls)
    return tuple(Shard(url, name, size, _form(url)) for (url, size), name in zip(found, names, strict=True))


def fingerprint(shards: Iterable[Shard]) -> str:
    """Return a sha256 in hex over names and sizes in their order, which is the same wherever the shards lie."""
    text = "".join(f"{shard.name!r} {shard.size}\n" for shard in shards)
    return hashlib.sha256(text.encode()).hexdigest()


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern with {a,b} and {000..012} means, in the order in which they are written.

    Numbers are padded to the width of the first one. Braces around anything else stay as they are.

    Raises:
        InputError: a range runs backwards, or the names are more than any pool has.
    """
    names = [""]
    for literal, inside in _pieces(pattern):
        choices = [literal + choice for choice in _choices(inside, pattern)]
        if len(names) * len(choices) > _MOST_NAMES:
            raise InputError(f"data.unlabeled.shards has {pattern!r}, which means more than {_MOST_NAMES} names")
        names = [name + choice for name in names for choice in choices]
    return names


def _pieces(pattern: str) -> Iterator[tuple[str, str | None]]:
    """Yield the text before each pair of braces with what is inside them, and the text after the last with None."""
    end = 0
    for match in _BRACES.finditer(pattern):
        yield pattern[end : match.start()], match[1]
        end = match.end()
    yield pattern[end:], None


def _choices(inside: str | None, pattern: str) -> list[str]:
    if inside is None:
        return [""]
    if bounds := _RANGE.fullmatch(inside):
        first, last = int(bounds[1]), int(bounds[2])
        if not first <= last < first + _MOST_NAMES:
            raise InputError(
                f"data.unlabeled.shards has {pattern!r}, whose {{{inside}}} is no range of rising numbers; write it as "
                "{000..012}"
            )
        return [str(number).zfill(len(bounds[1])) for number in range(first, last + 1)]
    return inside.split(",") if "," in inside else [f"{{{inside}}}"]


def _matches(pattern: str) -> list[tuple[str, int]]:
    """Return URL and size of each file that a name or a pattern with * means."""
    if pattern.startswith(("http://", "https://")):
        if "*" in pattern:
            raise InputError(
                f"data.unlabeled.shards has {pattern!r}, but a web server lists no files; write the names with braces, "
                "as in shard-{000..099}.tar"
            )
        return [_described(*_look_up(pattern))]
    if not is_remote(pattern):
        pattern = str(Path(pattern).expanduser().absolute())
    filesystem = _file_system(pattern)
    if not re.search(r"[*?\[]", pattern) or (not is_remote(pattern) and Path(pattern).exists()):
        return [_described(*_look_up(pattern))]
    try:
        found = retried(lambda: filesystem.glob(pattern, detail=True), pattern, SHORT_PAUSES)
    except FileNotFoundError:
        found = {}
    files = {name: info for name, info in sorted(found.items()) if info["type"] == "file"}
    if not files:
        raise NoShardsError(f"data.unlabeled.shards has {pattern!r}, which no file matches; name existing shards")
    remote = is_remote(pattern)
    return [_described(filesystem.unstrip_protocol(name) if remote else name, info) for name, info in files.items()]


def _file_system(url: str) -> Any:
    try:
        return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"data.unlabeled.shards has {url!r}, which cannot be opened: {reason}") from None


def _look_up(url: str) -> tuple[str, dict[str, Any]]:
    filesystem = _file_system(url)
    try:
        return url, retried(lambda: filesystem.info(url), url, SHORT_PAUSES)
    except FileNotFoundError:
        raise InputError(
            f"data.unlabeled.shards has {url!r}, but there is no such file; name existing shards"
        ) from None


def _described(url: str, info: dict[str, Any]) -> tuple[str, int]:
    if info["type"] != "file":
        raise InputError(
            f"data.unlabeled.shards has {url!r}, which is a folder; name the files in it, as in {url.rstrip('/')}/*.tar"
        )
    _form(url)
    if info.get("size") is None:
        raise InputError(f"{url} is served without its length, which reading parts of it needs; copy it to a disk")
    return url, int(info["size"])


def _path(url: str) -> str:
    """Return the path in a URL, without query (a signature that expires, say); a local path stays as it is."""
    return urlsplit(url).path if url.startswith(("http://", "https://")) else url


def _form(url: str) -> str:
    path = _path(url).lower()
    form = next((form for suffix, form in FORMS.items() if path.endswith(suffix)), None)
    if form is None:
        raise InputError(
            f"data.unlabeled.shards has {url!r}, which is none of {', '.join(FORMS)}; name such files only"
        )
    return form


def _names(urls: Sequence[str]) -> list[str]:
    """Return each path from below the folder that all share, with the web server where two would have one name."""
    paths = [posixpath.normpath(_path(url)) for url in urls]
    if len(set(paths)) < len(paths):
        paths = [f"{urlsplit(url).netloc}/{path.lstrip('/')}" for url, path in zip(urls, paths, strict=True)]
    folders = [path.split("/")[:-1] for path in paths]
    shared = 0
    while folders and all(len(folder) > shared and folder[shared] == folders[0][shared] for folder in folders):
        shared += 1
    return ["/".join(path.split("/")[shared:]) for path in paths]
