"""Several runs at once, each a process of its own with its own log; interrupted, all of them end and can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from s4mim_hf.engine.config_loading import save_run_config
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.states import clear, state_of
from s4mim_hf.locking import LOCK_FILE, only_one

SECONDS_TO_END = 10.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Failure:
    """How a run failed.

    Attributes:
        cell: the run.
        sentence: the last line of its error.
    """

    cell: Cell
    sentence: str


class Watcher(Protocol):
    """Is told how the runs go."""

    def started(self, cell: Cell) -> None:
        """A run's process has started."""

    def waiting(self) -> None:
        """Some time has passed."""

    def ended(self, cell: Cell, failure: Failure | None) -> None:
        """A run is finished, or has failed."""


def run_cells(cells: Sequence[Cell], jobs: int, watcher: Watcher) -> list[Failure]:
    """Run `cells` in their order, `jobs` at once; one that fails stops no other.

    Args:
        cells: those that are not finished.
        jobs: at least 1.
        watcher: told of every start and end.

    Returns:
        the failures, in the order in which they happened.

    Raises:
        KeyboardInterrupt: by Ctrl-C or SIGTERM, after all processes have ended.
    """
    left = deque(cells)
    running: dict[Cell, subprocess.Popen[bytes]] = {}
    failures: list[Failure] = []
    environment = child_environment(jobs)
    with _sigterm_interrupts():
        try:
            while left or running:
                while left and len(running) < jobs:
                    cell = left.popleft()
                    running[cell] = _start(cell, jobs, environment)
                    watcher.started(cell)
                ended = [cell for cell, process in running.items() if process.poll() is not None]
                for cell in ended:
                    with running.pop(cell) as process:
                        failure = failure_of(cell, process.returncode)
                    failures += [] if failure is None else [failure]
                    watcher.ended(cell, failure)
                if not ended:
                    time.sleep(_POLL_SECONDS)
                    watcher.waiting()
        finally:
            _stop(list(running.values()))
    return failures


def child_environment(jobs: int) -> dict[str, str]:
    """Return the environment of a run: its share of the cores, unless the user has said how many threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A log is no terminal: a line a minute shows how far a run is.
    defaults = {"OMP_NUM_THREADS": str(max(1, cores // jobs)), "TQDM_MININTERVAL": "60"}
    return {**defaults, **os.environ}


def _start(cell: Cell, jobs: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    state = state_of(cell)
    if state == "new":
        clear(cell)
    save_run_config(cell.config, cell.config_file)
    # -P: the folder where somebody happens to stand must not lend its modules' names.
    command = [sys.executable, "-P", "-m", "s4mim_hf.experiments.one_run", str(cell.config_file)]
    command += ["--jobs", str(jobs), "--end-with-parent", *(["--resume"] if state == "interrupted" else [])]
    with cell.log_file.open("a", encoding="utf-8") as log:
        log.write(
            f"\n--- {time.strftime('%Y-%m-%d %H:%M:%S')} {'goes on' if state == 'interrupted' else 'starts'} ---\n"
        )
        log.flush()
        # A session of its own: Ctrl-C comes to us, and we end the runs.
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def failure_of(cell: Cell, code: int) -> Failure | None:
    """Return how a run failed whose process ended with `code`; None where it left its results."""
    if code == 0 and state_of(cell) == "finished":
        return None
    if code < 0:
        killed = " (out of memory, or ended by hand)" if code == -signal.SIGKILL else ""
        return Failure(cell, f"ended by {signal.Signals(-code).name}{killed}")
    return Failure(cell, last_line(cell.log_file) or f"ended with code {code}")


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty, without "error: "; a bar's overwritten states are lines too."""
    lines = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip().removeprefix("error: ") for line in reversed(lines) if line.strip()), "")


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes; what they have saved stays. Checkpoints are renamed into place, so none is ever half written."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for process in processes:
        # Leaving the block closes the pipe and waits for the end.
        with process:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def only_call(output: Path) -> Iterator[None]:
    """Hold the ablation's folder, so that no second call starts the same runs.

    Raises:
        InputError: another call holds it, it is something else's, or the folder cannot be made.
    """
    ours = any((output / name).exists() for name in (LOCK_FILE, "runs"))
    if output.is_dir() and any(output.iterdir()) and not ours:
        raise InputError(f"--output {output} holds something that no ablation made; name a new folder")
    busy = f"another call of ablate.py is at work in {output}; wait for it to end, or name another --output"
    with ExitStack() as held:
        try:
            output.mkdir(parents=True, exist_ok=True)
            held.enter_context(only_one(output / LOCK_FILE, busy, keep=True))
        except OSError as error:
            raise InputError(f"--output {output} cannot be written to: {error.strerror}; name another folder") from None
        yield
