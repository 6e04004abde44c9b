"""Images that pass by: shards of a pool, in parquet or as webdataset tars, local, by URL or on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from s4mim_hf.data.config import DataConfig, UnlabeledConfig
from s4mim_hf.data.streaming import ShardPool, open_pool
from s4mim_hf.data.streaming.files import is_remote
from s4mim_hf.data.streaming.samples import Part
from s4mim_hf.data.streaming.shards import FORMS, expand_braces
from s4mim_hf.data.streaming.units import Unit
from s4mim_hf.errors import InputError
from s4mim_hf.prediction.sources.base import ImageSource, InputImage, SourcePart, as_text, distinct_names, safe_name

# A local shard is divided so that several processes share a large one: its parts are found without reading the rest.
_PART_BYTES = 256 * 2**20
# What training calls these options in its messages.
_OPTIONS = {"data.unlabeled.image_column": "--image-column", "data.unlabeled.shards": "what is given to predict"}


def is_shard(source: str) -> bool:
    """Say whether a name or pattern ends as those of shards do."""
    path = source.partition("?")[0] if source.startswith(("http://", "https://")) else source
    with _in_our_words():
        return all(name.lower().endswith(tuple(FORMS)) for name in expand_braces(path))


class PooledImages(ImageSource):
    """The images of a pool of shards, called by their shard and their key in it.

    Args:
        patterns: names and patterns, as `data.unlabeled.shards` takes them.
        image_column: the column in parquet, or the suffix in tars; None: the usual.

    Raises:
        InputError: there are no shards, or one of them cannot be used.
    """

    is_data_set = True
    can_read_again = False

    def __init__(self, patterns: Sequence[str], image_column: str | None) -> None:
        settings = UnlabeledConfig(streaming=True, shards=tuple(patterns), image_column=image_column)
        with _in_our_words():
            self._pool: ShardPool = open_pool(DataConfig(unlabeled=settings))

    @property
    def fingerprint(self) -> str:
        """See `ImageSource`: over names and sizes of the shards."""
        return self._pool.fingerprint

    def parts(self) -> Sequence[SourcePart]:
        """See `ImageSource`."""
        parts: list[SourcePart] = []
        names = distinct_names([_stem(shard.name) for shard in self._pool.shards])
        if len(set(names)) < len(names):
            names = [shard.name for shard in self._pool.shards]
        for shard, name in zip(self._pool.shards, names, strict=True):
            whole = is_remote(shard.url) or shard.form == "tar.gz"
            count = 1 if whole else -(-shard.size // _PART_BYTES)
            images = self._pool.counts.get(shard)
            for number in range(count):
                unit = Unit(shard, Part(number, count))
                total = None if images is None else unit.share(images)
                parts.append(_PooledPart(unit, name, self._pool.settings.image_column, total))
        return parts

    def share(self, rank: int, world_size: int) -> Sequence[SourcePart]:
        """See `ImageSource`."""
        return self.parts()[rank::world_size]

    def read(self, number: int) -> bytes:
        """A pool passes by once."""
        raise NotImplementedError


class _PooledPart(SourcePart):
    def __init__(self, unit: Unit, name: str, image_column: str | None, total: int | None) -> None:
        self._unit, self._name, self._column, self.total = unit, name, image_column, total
        self.weight = unit.shard.size / unit.part.of

    def images(self, done: frozenset[int] = frozenset()) -> Iterator[InputImage]:
        first = next(number for number in range(len(done) + 1) if number not in done)
        with _in_our_words():
            for number, sample in enumerate(self._unit.samples(self._column, first), start=first):
                if number not in done:
                    yield InputImage(number, as_text(safe_name(f"{self._name}/{sample.key}")), _holder(sample.data))


def _stem(name: str) -> str:
    return next(
        name[: -len(suffix)] for suffix in sorted(FORMS, key=len, reverse=True) if name.lower().endswith(suffix)
    )


def _holder(data: bytes | None) -> Callable[[], bytes]:
    def read() -> bytes:
        if data is None:
            raise ValueError("its row holds no bytes")
        return data

    return read


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Name the options of prediction where a message names those of training."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for theirs, ours in _OPTIONS.items():
            text = text.replace(theirs, ours)
        raise InputError(text) from None
