"""The folder in the making: `.NAME.partial` beside the output, which one process at a time fills shard by shard.

data/SPLIT-00000.parquet    finished shards, and the one that is being written
progress.json               what is being made, and which shards are finished
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s4mim_hf.data.prepared.record import SPLITS, ShardRecord, SplitStatistics
from s4mim_hf.data.prepared_writer.reading import BadSamples
from s4mim_hf.errors import DISK_IS_FULL, InputError
from s4mim_hf.locking import only_one

Say = Callable[[str], None]

_PROGRESS = "progress.json"


@dataclass(frozen=True)
class FinishedShard:
    """A shard that is whole and on the disk."""

    split: str
    record: ShardRecord
    statistics: SplitStatistics

    def to_dict(self) -> dict[str, Any]:
        """Return everything in a form that JSON can say."""
        return {"split": self.split, "record": self.record.to_dict(), "statistics": self.statistics.to_dict()}

    @classmethod
    def from_dict(cls, content: Any) -> FinishedShard:
        """Return what `to_dict` gave."""
        statistics = SplitStatistics.from_dict(content["statistics"])
        return cls(str(content["split"]), ShardRecord.from_dict(content["record"]), statistics)


def check_output(output: Path) -> None:
    """Refuse an output that would overwrite something.

    Raises:
        InputError: `output` is a file or a folder with something in it.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a new folder")
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"--output {output} is not empty; give a new folder, or remove it first")


@contextmanager
def partial_folder(output: Path, fingerprint: str, say: Say) -> Iterator[PartialFolder]:
    """Give a folder beside `output`, which becomes `output` when the block ends well.

    Where the block is interrupted, finished shards stay, and the next call for the same thing goes on after them;
    after bad samples, or where no shard is finished, nothing stays.

    Args:
        output: a new or empty folder.
        fingerprint: of what is made; shards are taken over only where it is the same.
        say: called with each thing that a person should know.

    Raises:
        InputError: `output` is not empty, another process is writing it, or it cannot be written.
    """
    check_output(output)
    target = output.resolve()
    partial = PartialFolder(target, fingerprint)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(partial.path.with_name(f"{partial.path.name}.lock"), output):
            # A process that held the lock until now may have finished.
            check_output(output)
            partial.start(say)
            try:
                yield partial
                partial.publish()
            except BadSamples:
                partial.remove()
                raise
            except BaseException:
                if not partial.finished:
                    partial.remove()
                raise
    except OSError as error:
        raise InputError(_cannot_write(output, partial, error)) from None


def only_writer(lock_file: Path, output: Path) -> AbstractContextManager[None]:
    """Hold the lock of a command's output; see `only_one`.

    Raises:
        InputError: another process holds it.
    """
    return only_one(
        lock_file,
        f"another process is writing --output {output} (it holds {lock_file}); wait for it, or give another folder",
    )


def _cannot_write(output: Path, partial: PartialFolder, error: OSError) -> str:
    reason = error.strerror or str(error)
    remedy = "make room" if error.errno in DISK_IS_FULL else "correct this"
    if not partial.finished:
        return f"cannot write {output}: {reason}; {remedy}, or give another --output, and run again"
    return (
        f"cannot write {output}: {reason}; the first {partial.rows()} images are kept in {partial.path}: {remedy}, and "
        "the same command goes on after them"
    )


class PartialFolder:
    """A prepared folder in the making.

    Args:
        output: what it becomes, absolute.
        fingerprint: of what is made.

    Attributes:
        path: where it is until then.
        finished: the shards that are whole, in the order of writing.
    """

    def __init__(self, output: Path, fingerprint: str) -> None:
        self.output, self.fingerprint = output, fingerprint
        self.path = output.parent / f".{output.name}.partial"
        self.finished: list[FinishedShard] = []

    def rows(self, split: str | None = None) -> int:
        """Return how many rows the finished shards have, of one split or of all."""
        return sum(shard.record.rows for shard in self.finished if split in (None, shard.split))

    def start(self, say: Say) -> None:
        """Take over the finished shards of an interrupted call for the same thing; remove all else."""
        before = self._read_progress()
        if self.path.exists() and before is None:
            if any(self.path.rglob("*.parquet")):
                say(f"{self.path} was left by a call with other data or options, and is written anew")
            shutil.rmtree(self.path)
        (self.path / "data").mkdir(parents=True, exist_ok=True)
        self._undo_numbering()
        for shard in before or []:
            file = self.path / shard.record.file
            if not file.is_file() or file.stat().st_size != shard.record.bytes:
                break
            self.finished.append(shard)
        kept = {self.path / shard.record.file for shard in self.finished}
        for file in (self.path / "data").iterdir():
            if file not in kept:
                file.unlink()
        self._save_progress()
        if self.finished:
            say(f"{self.rows()} images are in {self.path} from an interrupted call, which goes on after them")

    def shard_file(self, split: str) -> str:
        """Return where the split's next shard goes, below `path`."""
        number = sum(shard.split == split for shard in self.finished)
        return f"data/{split}-{number:05d}.parquet"

    def finish(self, shard: FinishedShard) -> None:
        """Write down that a shard is whole."""
        self.finished.append(shard)
        self._save_progress()

    def number_shards(self) -> dict[str, list[ShardRecord]]:
        """Give the shards their last names, SPLIT-00000-of-00002.parquet, and return them by split."""
        named: dict[str, list[ShardRecord]] = {split: [] for split in SPLITS}
        for split, records in named.items():
            shards = [shard.record for shard in self.finished if shard.split == split]
            for number, record in enumerate(shards):
                file = f"data/{split}-{number:05d}-of-{len(shards):05d}.parquet"
                (self.path / record.file).rename(self.path / file)
                records.append(replace(record, file=file))
        return named

    def publish(self) -> None:
        """Become the output."""
        if self.output.exists():
            self.output.rmdir()
        self.path.rename(self.output)
        # Not before: whoever is killed in between has all of the data, and a file too many.
        (self.output / _PROGRESS).unlink()

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _undo_numbering(self) -> None:
        """Give back their first names to shards of a call that was killed while it published."""
        for file in (self.path / "data").glob("*-of-*.parquet"):
            file.rename(file.with_name(re.sub(r"-of-\d+", "", file.name)))

    def _read_progress(self) -> list[FinishedShard] | None:
        """Return the shards that an interrupted call for the same thing has finished; None: it was for another."""
        try:
            content = json.loads((self.path / _PROGRESS).read_text(encoding="utf-8"))
            if content["fingerprint"] != self.fingerprint:
                return None
            return [FinishedShard.from_dict(shard) for shard in content["shards"]]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def _save_progress(self) -> None:
        content = {"fingerprint": self.fingerprint, "shards": [shard.to_dict() for shard in self.finished]}
        new = self.path / f"{_PROGRESS}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / _PROGRESS)
