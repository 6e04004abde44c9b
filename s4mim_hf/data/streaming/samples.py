"""What is read from shards, and which share of a shard is meant."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """One image, undecoded.

    Attributes:
        name: which one it is, for messages.
        data: the bytes of its file; None: its row holds none.
        key: what it is called in its shard: the path of a tar's files up to their suffix, or the number of a row.
    """

    name: str
    data: bytes | None
    key: str = ""


class Part(NamedTuple):
    """One of several equal shares of a shard; the only one is the whole.

    Attributes:
        number: which, from 0.
        of: how many there are.
    """

    number: int = 0
    of: int = 1
