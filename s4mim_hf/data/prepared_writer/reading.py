"""Read rows in threads, a few ahead of the writer, in their order; and gather what cannot be used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from s4mim_hf.data.prepared_writer.rows import Row
from s4mim_hf.data.sources.base import SampleError
from s4mim_hf.errors import InputError

Position = tuple[str, int]
"""A split, and the number of an image in it."""
Reader = Callable[[str, int], Row]
# What is read: rows when a folder is written, classes when masks are only looked through.
T = TypeVar("T")
# Where it is read: a position, or a picture that is to be looked at.
P = TypeVar("P")

THREADS = min(8, os.cpu_count() or 1)
# Rows that are read before they are needed. Pictures in memory: these, and those that the threads are decoding.
AHEAD = 2 * THREADS
_NAMES_KEPT = 20


@dataclass
class Problem:
    """Images that cannot be used for one reason: how many, and the first of them, with what is special about each."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count an image."""
        self.count += 1
        if len(self.names) < _NAMES_KEPT:
            self.names.append(name)


class BadSamples(InputError):
    """Images or labels that cannot be used; nothing was written.

    Attributes:
        problems: what is wrong, by its kind ("masks have another size than their image"), in the order of finding.
    """

    def __init__(self, problems: dict[str, Problem]) -> None:
        parts = []
        for kind, problem in problems.items():
            rest = problem.count - len(problem.names[:3])
            more = f" and {rest} more" if rest else ""
            parts.append(f"{problem.count} {kind}: {', '.join(problem.names[:3])}{more}")
        super().__init__(f"{'; '.join(parts)}; correct or remove these, then run again")
        self.problems = problems


def rows_in_order(
    read: Callable[[str, int], T],
    ids: Mapping[str, Sequence[str]],
    positions: Iterable[Position],
    progress: Callable[[], object],
) -> Generator[tuple[str, T], None, None]:
    """Yield (split, row) for each position, in order, while threads read a bounded number of rows ahead.

    From the first row on that cannot be used, nothing more is yielded: the others are only read to find what else is
    wrong.

    Args:
        read: called in several threads at once.
        ids: the ids of each split, for the message.
        positions: what to read.
        progress: called after each row.

    Raises:
        BadSamples: `read` raised `SampleError` for some.
    """
    problems: dict[str, Problem] = {}
    for (split, index), future in read_ahead(lambda position: read(*position), positions):
        try:
            row = future.result()
        except SampleError as error:
            _note(problems, error, ids[split][index])
        except OSError as error:
            # Of the raw data; what goes wrong with the output is raised elsewhere.
            _note(problems, SampleError("images cannot be read", error.strerror or str(error)), ids[split][index])
        else:
            if not problems:
                yield split, row
        progress()
    if problems:
        raise BadSamples(problems)


def _note(problems: dict[str, Problem], error: SampleError, image_id: str) -> None:
    problem = problems.setdefault(error.kind, Problem())
    problem.add(f"{image_id} ({error.detail})" if error.detail else image_id)


def read_ahead(read: Callable[[P], T], places: Iterable[P]) -> Iterator[tuple[P, Future[T]]]:
    """Yield each place, in order, with what is read there, which may still be being read.

    Args:
        read: called in several threads at once.
        places: what to read; a bounded number of them is taken before it is needed.
    """
    with ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="read") as pool:
        pending: deque[tuple[P, Future[T]]] = deque()
        try:
            for place in places:
                pending.append((place, pool.submit(read, place)))
                if len(pending) > AHEAD:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            for _, future in pending:
                future.cancel()
