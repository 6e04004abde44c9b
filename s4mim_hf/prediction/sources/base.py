"""What is to be predicted, in parts that are the same for any number of processes.

Nothing here decodes a picture. What grows with the images is a list of their names, and for streamed pools not even
that.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from s4mim_hf.errors import check_names

# A shard of predictions has at most so many images of a list, and there are enough shards for many processes.
_MOST_IN_PART = 1000
_FEWEST_IN_PART = 16
_PARTS = 64


@dataclass(frozen=True)
class InputImage:
    """One image, undecoded.

    Attributes:
        number: its place: in the list, or in its part of a streamed pool.
        name: unique, with forward slashes and without suffix; its results are called so.
        read: returns the bytes of its file; raises OSError or ValueError where that fails.
    """

    number: int
    name: str
    read: Callable[[], bytes]


class SourcePart(ABC):
    """Some of the images, which one process reads in order.

    Attributes:
        weight: how much work it is, in a unit that all parts of a source share.
        total: how many images it has; None where only reading it through tells.
    """

    weight: float
    total: int | None

    @abstractmethod
    def images(self, done: frozenset[int] = frozenset()) -> Iterator[InputImage]:
        """Yield its images but those whose numbers are in `done`, in order.

        Raises:
            InputError: a shard of a pool cannot be read.
        """


class ImageSource(ABC):
    """All the images.

    Attributes:
        is_data_set: whether they come from tables or shards, and not as picture files.
        can_read_again: whether `read` gives an image's bytes at any time; a streamed pool passes by once.
    """

    is_data_set: bool
    can_read_again: bool

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A sha256 in hex, the same while the images are the same ones."""

    @abstractmethod
    def parts(self) -> Sequence[SourcePart]:
        """Return all images in parts, each of which becomes one shard."""

    @abstractmethod
    def share(self, rank: int, world_size: int) -> Sequence[SourcePart]:
        """Return what one of several processes predicts where nothing is put into shards."""

    @abstractmethod
    def read(self, number: int) -> bytes:
        """Return the bytes of the image with a number, where `can_read_again`."""


class ListedImages(ImageSource):
    """Images with names that are known beforehand.

    Args:
        names: as in `InputImage`; made safe to be paths, and distinct by their numbers where they are not.
        read: returns the bytes of the image with a number; called in several threads.
        is_data_set: see `ImageSource`.
    """

    can_read_again = True

    def __init__(self, names: Sequence[str], read: Callable[[int], bytes], *, is_data_set: bool) -> None:
        safe = [safe_name(name) for name in names]
        clear = all(safe) and len(set(safe)) == len(safe)
        self.names = safe if clear else [f"{number:06d}_{name}" for number, name in enumerate(safe)]
        self._read, self.is_data_set = read, is_data_set

    @property
    def fingerprint(self) -> str:
        """See `ImageSource`: over the names, which tables of predictions hold as text.

        Raises:
            InputError: one is no text.
        """
        check_names(self.names)
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(f"{name}\n".encode())
        return digest.hexdigest()

    def parts(self) -> Sequence[SourcePart]:
        """See `ImageSource`."""
        count = len(self.names)
        size = min(_MOST_IN_PART, max(_FEWEST_IN_PART, -(-count // _PARTS)))
        return [_ListedPart(self, range(start, min(start + size, count))) for start in range(0, count, size)]

    def share(self, rank: int, world_size: int) -> Sequence[SourcePart]:
        """See `ImageSource`: every so-and-so-many-th image, so that what an interrupted run left is shared as well."""
        return [_ListedPart(self, range(rank, len(self.names), world_size))]

    def read(self, number: int) -> bytes:
        """See `ImageSource`."""
        return self._read(number)

    def apart_from(self, ids: Iterable[str]) -> ListedImages:
        """Return the same images, all under other names where one of theirs is among `ids`."""
        if not set(self.names) & set(ids):
            return self
        return ListedImages([f"pool/{name}" for name in self.names], self._read, is_data_set=self.is_data_set)


class _ListedPart(SourcePart):
    def __init__(self, source: ListedImages, numbers: range) -> None:
        self._source, self._numbers = source, numbers
        self.weight, self.total = float(len(numbers)), len(numbers)

    def images(self, done: frozenset[int] = frozenset()) -> Iterator[InputImage]:
        for number in self._numbers:
            if number not in done:
                yield InputImage(number, self._source.names[number], _reader(self._source, number))


def _reader(source: ListedImages, number: int) -> Callable[[], bytes]:
    return lambda: source.read(number)


def safe_name(name: str) -> str:
    """Return a name as a path below the folder of results, wherever it pointed before.

    Bytes that are no UTF-8, as tars of older systems have them, stay what the file system takes: `as_text` spells them.
    """
    parts = PurePosixPath(name.replace("\\", "/").replace("\0", "")).parts
    return "/".join(part for part in parts if part not in ("/", "", ".", ".."))


def as_text(name: str) -> str:
    """Return a name as UTF-8 can hold it: bytes that are none become \\xdf and the like."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Drop suffixes where that leaves every name its own."""
    stems = [str(PurePosixPath(path).with_suffix("")) for path in paths]
    counts = Counter(stems)
    names = [path if counts[stem] > 1 else stem for path, stem in zip(paths, stems, strict=True)]
    return names if len(set(names)) == len(names) else list(paths)
