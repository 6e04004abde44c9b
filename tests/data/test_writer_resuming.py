"""Writing that is interrupted, killed or finds the disk full goes on; memory does not grow with the images."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared_folders import SMALL, Reads, describe, digests, png, write
from writer_child import STUCK

from s4mim_hf.data.prepared_writer import Row
from s4mim_hf.errors import InputError


def interrupted(output: Path, at: tuple[str, int] = ("validation", 1), **options: Any) -> Path:
    """Write until an interruption, and return the partial folder."""
    with pytest.raises(KeyboardInterrupt):
        write(output, Reads({at: KeyboardInterrupt()}), shard_bytes=SMALL, **options)
    assert not output.exists()
    return output.with_name(f".{output.name}.partial")


def finished(partial: Path) -> list[dict[str, Any]]:
    return [shard["record"] for shard in json.loads((partial / "progress.json").read_text())["shards"]]


def test_an_interrupted_call_goes_on_after_its_last_finished_shard(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", shard_bytes=SMALL)
    partial = interrupted(tmp_path / "out")
    kept = finished(partial)
    assert sum(shard["rows"] for shard in kept) == 10
    notes: list[str] = []
    reads = Reads()
    written = write(tmp_path / "out", reads, shard_bytes=SMALL, say=notes.append)
    assert sorted(reads.seen) == [("validation", 0), ("validation", 1)]
    assert notes == [f"10 images are in {partial} from an interrupted call, which goes on after them"]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert written == whole
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "change", [{"fingerprint": "other"}, {"description": describe(max_side=9)}, {"counts": {"validation": 3}}]
)
def test_what_another_call_has_left_is_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    interrupted(tmp_path / "out")
    notes: list[str] = []
    reads = Reads()
    write(tmp_path / "out", reads, shard_bytes=SMALL, say=notes.append, **change)
    assert len(reads.seen) == 12 + ("counts" in change)
    assert len(notes) == 1
    assert "was left by a call with other data or options" in notes[0]


def test_damage_to_what_was_left_is_found(tmp_path: Path) -> None:
    write(tmp_path / "whole", shard_bytes=SMALL)
    partial = interrupted(tmp_path / "out")
    second = partial / finished(partial)[1]["file"]
    second.write_bytes(second.read_bytes()[:-1])
    reads = Reads()
    write(tmp_path / "out", reads, shard_bytes=SMALL)
    assert ("labeled", 0) not in reads.seen
    assert ("unlabeled", 0) in reads.seen
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    partial = interrupted(tmp_path / "again")
    (partial / "progress.json").write_text("{")
    reads = Reads()
    write(tmp_path / "again", reads, shard_bytes=SMALL)
    assert len(reads.seen) == 12


def test_a_call_that_was_killed_while_it_published(tmp_path: Path) -> None:
    write(tmp_path / "whole", shard_bytes=SMALL)
    partial = interrupted(tmp_path / "out")
    first = finished(partial)[0]["file"]
    (partial / first).rename(partial / first.replace(".parquet", "-of-00001.parquet"))
    (partial / "splits.json").write_text("half")
    reads = Reads()
    write(tmp_path / "out", reads, shard_bytes=SMALL)
    assert sorted(reads.seen) == [("validation", 0), ("validation", 1)]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_bug_keeps_what_is_finished_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="bug"):
        write(tmp_path / "out", Reads({("labeled", 1): RuntimeError("bug")}))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="bug"):
        write(tmp_path / "out", Reads({("validation", 1): RuntimeError("bug")}), shard_bytes=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Return a function that sets how large a file of this process may be, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_the_same_call_goes_on(
    tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    rng = np.random.default_rng(0)
    large = [png(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)) for _ in range(2)]
    rows = {
        "validation": lambda index: Row(
            f"validation/{index:05d}", large[index], "a.png", png(np.zeros((9, 9), np.uint8))
        )
    }
    small_files(60_000)
    with pytest.raises(InputError) as caught:
        write(tmp_path / "out", Reads(**rows), shard_bytes=SMALL)
    small_files(resource.RLIM_INFINITY)
    partial = tmp_path / ".out.partial"
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'out'}: File too large; the first 10 images are kept in {partial}: make room, and "
        "the same command goes on after them"
    )
    # The file that did not fit is gone.
    assert {path.name for path in (partial / "data").iterdir()} == {
        Path(shard["file"]).name for shard in finished(partial)
    }
    reads = Reads(**rows)
    write(tmp_path / "out", reads, shard_bytes=SMALL)
    assert len(reads.seen) == 2
    small_files(200)
    with pytest.raises(InputError, match=r"cannot write .*other: File too large; make room, or give another --output"):
        write(tmp_path / "other")
    small_files(resource.RLIM_INFINITY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, subprocess.Popen[str]]]:
    """Return where another process is writing "slow", by how many KiB it grew before that, and the process."""
    folder = tmp_path_factory.mktemp("child")
    command = [sys.executable, str(Path(__file__).with_name("writer_child.py")), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield folder, int(process.stdout.readline()), process
        process.kill()


def test_memory_does_not_grow_with_the_images(child: tuple[Path, int, subprocess.Popen[str]]) -> None:
    folder, grown, _ = child
    assert len(list((folder / "20000" / "data").glob("unlabeled-*"))) > 10
    # 19,000 ids, in several places, are about 4 MB; the pictures are 25 MB.
    assert grown < 10 * 1024


def test_a_process_that_is_killed_is_gone_on_from(child: tuple[Path, int, subprocess.Popen[str]]) -> None:
    folder, _, process = child
    partial = folder / ".slow.partial"
    while not (partial / "progress.json").exists() or len(finished(partial)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    options: dict[str, Any] = {"counts": {"unlabeled": 20}, "shard_bytes": SMALL}
    with pytest.raises(
        InputError, match=r"another process is writing --output .*slow \(it holds .*lock\); wait for it"
    ):
        write(folder / "slow", **options)
    process.kill()
    process.wait()
    reads = Reads()
    write(folder / "slow", reads, **options)
    assert ("labeled", 0) not in reads.seen
    assert ("unlabeled", 0) not in reads.seen
    assert ("unlabeled", STUCK) in reads.seen
    write(folder / "whole", **options)
    assert digests(folder / "slow") == digests(folder / "whole")
    assert not list(folder.glob(".*"))
