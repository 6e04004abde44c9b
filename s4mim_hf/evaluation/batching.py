"""Feed images of many sizes to a model: decoded ahead by threads, batched by size, never padded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")

# Items that wait for others of their size, in batches: enough to fill batches where photographs are upright or lying.
_WAITING_BATCHES = 4


def read_ahead(read: Callable[[Key], Item], keys: Iterable[Key], ahead: int, threads: int = 2) -> Iterator[Item]:
    """Yield `read(key)` in the order of `keys`, up to `ahead` of them being read while the caller computes.

    What `read` raises is raised here, at its turn.
    """
    with ThreadPoolExecutor(max_workers=threads) as pool:
        pending: deque[Future[Item]] = deque()
        try:
            for key in keys:
                pending.append(pool.submit(read, key))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def same_size_batches(
    items: Iterable[Item], size_of: Callable[[Item], Hashable], batch_size: int
) -> Iterator[list[Item]]:
    """Group items of one size into lists of up to `batch_size`; every item comes exactly once.

    A few batches' worth of items wait for others of their size; then the largest group goes as it is, so that memory
    stays bounded where every image has its own size.
    """
    waiting: dict[Hashable, list[Item]] = {}
    for item in items:
        size = size_of(item)
        group = waiting.setdefault(size, [])
        group.append(item)
        if len(group) == batch_size:
            yield waiting.pop(size)
        elif sum(map(len, waiting.values())) >= batch_size * _WAITING_BATCHES:
            yield waiting.pop(max(waiting, key=lambda key: len(waiting[key])))
    yield from waiting.values()
