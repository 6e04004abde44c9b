"""A process that writes prepared folders: many small images, and then one that it never finishes.

    python writer_child.py FOLDER

Prints how much its peak memory grew between 1,000 and 20,000 images, in KiB; then writes FOLDER/slow until somebody
kills it.
"""

from __future__ import annotations

import resource
import sys
import threading
from pathlib import Path

from prepared_folders import make_row, write

from s4mim_hf.data.prepared_writer import Row

# The unlabelled image that is never read.
STUCK = 12


def peak() -> int:
    """Return the most memory that this process has had, in KiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most


def tiny(split: str, index: int) -> Row:
    row = ROWS[split]
    return Row(f"{split}/{index:05d}", row.image, row.file_name, row.label, row.width, row.height, row.pixels)


def slow(split: str, index: int) -> Row:
    if (split, index) == ("unlabeled", STUCK):
        threading.Event().wait()
    return make_row(split, index)


ROWS = {split: make_row(split, 0) for split in ("labeled", "unlabeled", "validation")}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for count in (1000, 20000):
        write(folder / str(count), tiny, counts={"unlabeled": count}, shard_bytes=2**20)
        if count == 1000:
            before = peak()
    print(peak() - before, flush=True)
    write(folder / "slow", slow, counts={"unlabeled": 20}, shard_bytes=6000)
