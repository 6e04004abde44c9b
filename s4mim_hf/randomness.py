"""Random numbers that depend on a seed, a purpose and a position, and on nothing that happened before.

Every random purpose (the order of the images, one image's crop, one step's masks, ...) has generators of its own, made
anew from the run's seed, the purpose's name and the position. A term that is switched off therefore changes no draw of
another, and a run that is resumed at step n draws what it would have drawn: there is no random state to save.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """Return a seed in [0, 2**64) for one purpose at one position.

    The value is the same in every process and on every machine (a hash of the arguments, not Python's salted `hash`).

    Args:
        seed: the run's seed, any integer.
        purpose: what the numbers are for, as "weak-labeled".
        counters: where in the run they are used, as a step or the position of a sample.
    """
    # repr quotes the purpose, so that no two lists of arguments give the same text.
    text = repr((int(seed), str(purpose), *map(int, counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a new CPU generator for one purpose at one position; see `derive_seed` for the arguments."""
    return torch.Generator(device="cpu").manual_seed(derive_seed(seed, purpose, *counters))
