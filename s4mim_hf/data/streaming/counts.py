"""How many images each shard has, as far as anybody has looked.

A tar tells only when it has been read through. A resumed run would have to read all that it had passed; so what was
learned is kept in the run's folder. It is a shortcut: without it the same samples come, later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from s4mim_hf.data.streaming.shards import Shard


class ShardCounts:
    """Images per shard.

    Args:
        folder: where files of counts lie; None: they are kept in memory alone.
        rank: the process's, whose own file new counts go to: several machines can not share one.
        known: counts that are known already.
    """

    def __init__(self, folder: Path | None = None, rank: int = 0, known: Mapping[Shard, int] | None = None) -> None:
        self._file = None if folder is None else folder / f"shard_counts.{rank}.jsonl"
        self._known = {(shard.name, shard.size): images for shard, images in (known or {}).items()}
        for file in sorted(folder.glob("shard_counts.*.jsonl")) if folder is not None else ():
            self._known.update(_read(file))

    def get(self, shard: Shard) -> int | None:
        """Return a shard's number of images, None where it is not known."""
        return self._known.get((shard.name, shard.size))

    def learn(self, shard: Shard, images: int) -> None:
        """Remember a shard's number of images."""
        if self.get(shard) is not None:
            return
        self._known[shard.name, shard.size] = images
        if self._file is not None:
            line = json.dumps({"shard": shard.name, "bytes": shard.size, "images": images})
            # A shortcut is no reason to end a run: where the disk is full, the next checkpoint will say so.
            with suppress(OSError), self._file.open("a", encoding="utf-8") as file:
                # One write of one line: workers that share the file do not mix theirs.
                file.write(f"{line}\n")


def _read(file: Path) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            found[str(entry["shard"]), int(entry["bytes"])] = int(entry["images"])
        except (ValueError, KeyError, TypeError):
            # A run that was killed while it wrote.
            continue
    return found
