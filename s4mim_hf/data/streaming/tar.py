"""Images from tars of the webdataset form: files of one sample follow each other and differ in their suffix only.

A sample's key is its files' path up to the first dot of the file name; its image is the first of them with the suffix
asked for. A part of a tar is every n-th of its samples: where one begins is known only by the headers before it, and
the content of the others is skipped, not read, where the tar is neither compressed nor remote.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from s4mim_hf.data.streaming.files import open_shard
from s4mim_hf.data.streaming.samples import Part, Sample
from s4mim_hf.data.streaming.shards import Shard
from s4mim_hf.errors import InputError, some

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "gif", "jp2")
# Zeros at the end of every whole tar.
_END = 2 * tarfile.BLOCKSIZE


def check_end(shard: Shard) -> None:
    """Refuse a local, uncompressed tar without the end that its writer gives it last.

    Raises:
        InputError: it is cut short, or cannot be read.
    """
    with open_shard(shard) as file:
        file.seek(max(0, shard.size - _END))
        if shard.size < _END or any(file.read(_END)):
            raise _cut_short(shard)


def images_of(images: int, part: Part) -> int:
    """Return how many of a shard's `images` a part has."""
    return len(range(part.number, images, part.of))


def read_images(shard: Shard, suffix: str | None, part: Part, skip: int) -> Generator[Sample, None, int]:
    """Yield the images of a part after its first `skip`; return how many images the whole shard has.

    Raises:
        InputError: the shard is no tar, is cut short or damaged, cannot be read, or holds no image.
    """
    wanted = SUFFIXES if suffix is None else (suffix.lower().lstrip("."),)
    number, others = 0, set[str]()
    with _opened(shard) as archive:
        key = ""
        while (member := archive.next()) is not None:
            # tarfile remembers every member, which for a million of them is a gigabyte.
            cast(Any, archive).members.clear()
            its_key, its_suffix = _split(member)
            if not its_key or its_key == key:
                continue
            if its_suffix not in wanted:
                if len(others) < 9:
                    others.add(its_suffix)
                continue
            key = its_key
            if number % part.of == part.number and number // part.of >= skip:
                with cast(IO[bytes], archive.extractfile(member)) as content:
                    yield Sample(f"{member.name} in {shard.url}", content.read(), key)
            number += 1
        _check_stop(shard, archive)
    if number == 0:
        found = f"suffixes: {some(sorted(others), 8)}" if others else "no files at all"
        raise InputError(
            f"{shard.url} holds no image of suffix {some(wanted, 12)} ({found}); name the suffix of the images with "
            "data.unlabeled.image_column, or leave the shard out of data.unlabeled.shards"
        )
    return number


def _split(member: tarfile.TarInfo) -> tuple[str, str]:
    """Return a file's key and suffix (in lower case); an empty key for what belongs to no sample."""
    folder, slash, name = member.name.rpartition("/")
    stem, _, suffix = name.partition(".")
    if not member.isfile() or not stem:
        return "", ""
    return f"{folder}{slash}{stem}", suffix.lower()


def _check_stop(shard: Shard, archive: tarfile.TarFile) -> None:
    """Refuse a tar that stops without its end mark: tarfile takes the file's end or a damaged header for its end."""
    stream = cast(IO[bytes], archive.fileobj)
    stream.seek(archive.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _cut_short(shard)
    if any(block):
        raise InputError(
            f"{shard.url} is damaged: there is no file header at byte {archive.offset} of the tar; write or download "
            "it again"
        )
    # To the last byte, where gzip says whether all that came before was right.
    while shard.form == "tar.gz" and stream.read(2**20):
        pass


def _cut_short(shard: Shard) -> InputError:
    return InputError(
        f"{shard.url} is cut short: it has {shard.size} bytes and ends without a tar's end mark; write or download it "
        "again"
    )


@contextmanager
def _opened(shard: Shard) -> Iterator[tarfile.TarFile]:
    with open_shard(shard) as source:
        try:
            plain = source if shard.form == "tar" else cast(IO[bytes], gzip.GzipFile(fileobj=source))
            with tarfile.open(fileobj=plain, mode="r:") as archive:
                yield archive
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{shard.url} cannot be read as {shard.form} ({reason}); it may be cut short: write or download it "
                "again"
            ) from None
