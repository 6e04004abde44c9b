"""Reading ahead keeps order and errors; batches hold one size and every item once."""

from __future__ import annotations

import random
import threading

import pytest

from s4mim_hf.evaluation.batching import read_ahead, same_size_batches


def test_reading_ahead_keeps_the_order() -> None:
    assert list(read_ahead(lambda key: key * key, range(50), ahead=7)) == [key * key for key in range(50)]
    assert list(read_ahead(str, [], ahead=3)) == []


def test_an_error_comes_at_its_turn() -> None:
    def read(key: int) -> int:
        if key == 3:
            raise OSError("broken")
        return key

    items = read_ahead(read, range(9), ahead=4)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="broken"):
        next(items)


def test_no_more_than_asked_is_read_ahead() -> None:
    read: list[int] = []
    lock = threading.Lock()

    def note(key: int) -> int:
        with lock:
            read.append(key)
        return key

    items = read_ahead(note, range(100), ahead=5)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert max(read) <= 5


@pytest.mark.parametrize("sizes", [1, 3, 200])
def test_every_item_once_one_size_a_batch_and_little_waits(sizes: int) -> None:
    numbers = random.Random(0)
    items = [(index, numbers.randrange(sizes)) for index in range(200)]
    taken = 0

    def counted() -> object:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    given: list[tuple[int, int]] = []
    for batch in same_size_batches(counted(), lambda item: item[1], 4):
        assert 1 <= len(batch) <= 4
        assert len({size for _, size in batch}) == 1
        assert taken - len(given) <= 4 * 4 + 4
        given += batch
    assert sorted(given) == items


def test_one_size_gives_full_batches() -> None:
    assert list(map(len, same_size_batches(range(10), lambda item: 0, 4))) == [4, 4, 2]
