"""Which images are labelled: seeded draws that nest, or lists of ids.

An image's id is its path below `images/`, with forward slashes and without its suffix: "train/0016E5_07959".
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np

from s4mim_hf.errors import InputError, nearest, some

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = ("train", "val")


@dataclass(frozen=True)
class Amount:
    """How many of some images: a count, or a fraction of them. Exactly one of the two is given."""

    text: str
    count: int | None = None
    fraction: Fraction | None = None

    def of(self, total: int) -> int:
        """Return how many of `total` images this is; a fraction is rounded, to at least 1.

        Raises:
            InputError: there are fewer images than asked for.
        """
        if self.fraction is not None:
            # Half goes up, unlike Python's round: 0.5 of 5 is 3, of 7 is 4.
            return min(total, max(1, int(self.fraction * total + Fraction(1, 2))))
        assert self.count is not None
        if self.count > total:
            raise InputError(f"{self.count} images are asked for, but only {total} can be chosen from; ask for fewer")
        return self.count


def parse_amount(text: str, option: str, upper: Fraction = Fraction(1)) -> Amount:
    """Read "92" as a count and "1/8" or "0.125" as a fraction in (0, `upper`].

    Args:
        text: what was given.
        option: where it was given, for the message.
        upper: the largest fraction that makes sense.

    Raises:
        InputError: `text` is neither, or out of range.
    """
    expected = f"{option} takes a count such as 92 or a fraction such as 1/8"
    try:
        value = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{expected}, but {text!r} is neither") from None
    if "/" in text or "." in text or "e" in text.lower():
        if not 0 < value <= upper:
            raise InputError(f"{expected} above 0 and at most {float(upper):g}, but {text!r} is {float(value):g}")
        return Amount(text.strip(), fraction=value)
    if value < 1:
        raise InputError(f"{expected}, and at least one image, but {text!r} was given")
    return Amount(text.strip(), count=int(value))


def parse_labeled(text: str) -> Amount:
    """Read how many images keep their labels: "1/8", "92" or "all".

    Raises:
        InputError: `text` is none of these.
    """
    if text.strip() == "all":
        return Amount("all", fraction=Fraction(1))
    try:
        return parse_amount(text, "--labeled")
    except InputError as error:
        raise InputError(f"{error} (or 'all'{nearest(text, ['all'])})") from None


def draw(ids: Iterable[str], amount: Amount, seed: int | Sequence[int]) -> list[str]:
    """Draw `amount` of `ids`: the first ones of one seeded permutation, so that a smaller draw is part of a larger one.

    The order of `ids` does not matter. Returned in the order of the permutation.

    Raises:
        InputError: there are fewer ids than asked for.
    """
    ordered = sorted(ids)
    permutation = np.random.Generator(np.random.PCG64(seed)).permutation(len(ordered))
    return [ordered[index] for index in permutation[: amount.of(len(ordered))]]


def draw_labeled(ids: Iterable[str], amount: Amount, seed: int) -> list[str]:
    """Draw the images that keep their labels, nested over amounts for one seed.

    Raises:
        InputError: there are fewer ids than asked for, or the seed is negative.
    """
    if seed < 0:
        raise InputError(f"--seed must not be negative, but {seed} was given")
    try:
        return draw(ids, amount, seed)
    except InputError as error:
        raise InputError(f"--labeled {amount.text}: {error}") from None


def split_hash(splits: Mapping[str, Iterable[str]]) -> str:
    """Return sha256 (hex) over the sorted ids of each split; the order of ids and of splits does not matter."""
    canonical = {name: sorted(ids) for name, ids in splits.items()}
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def read_id_list(path: str | Path) -> list[str]:
    """Read one image a line: an id, a path, or "IMAGE MASK" as the published split lists have it (IMAGE is kept).

    Blank lines are skipped.

    Raises:
        InputError: the file is missing, is no text, or names nothing.
    """
    path = Path(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise InputError(f"cannot read the id list {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"the id list {path} is no UTF-8 text; it should name one image a line") from None
    entries = [_first_of_pair(line) for line in lines if line]
    if not entries:
        raise InputError(f"the id list {path} is empty; it should name one image a line")
    return entries


def _first_of_pair(line: str) -> str:
    """Return IMAGE of "IMAGE MASK"; a name with a blank in it, such as "my photo.jpg", stays whole."""
    words = line.split()
    both_are_files = len(words) == 2 and all(word.lower().endswith(IMAGE_SUFFIXES) for word in words)
    return words[0] if both_are_files else line


def without_suffix(path: str) -> str:
    """Return a path with forward slashes and without "./" and an image suffix; other dots of the name stay."""
    posix = PurePosixPath(path.replace("\\", "/").removeprefix("./"))
    return str(posix.with_suffix("")) if posix.suffix.lower() in IMAGE_SUFFIXES else str(posix)


def match_ids(entries: Sequence[str], ids: Iterable[str], validation_ids: Iterable[str], where: str) -> list[str]:
    """Find the training image that each entry of a list names.

    An entry may be the id itself, the end of it ("0016E5_07959" for "train/0016E5_07959"), or a longer path that ends
    in it ("JPEGImages/2007_000032.jpg" for "2007_000032"), with or without suffix.

    Args:
        entries: as `read_id_list` returns them.
        ids: the training images.
        validation_ids: images of a validation folder, which no list may name.
        where: the list, for messages.

    Returns:
        One id for each entry, in their order.

    Raises:
        InputError: an entry names no image, several, one that another entry names, or a validation image.
    """
    finder = _Finder(ids)
    kept_aside = set(validation_ids)
    matched: list[str] = []
    unknown: list[str] = []
    ambiguous: list[str] = []
    validation: list[str] = []
    for entry in entries:
        key = without_suffix(entry)
        found = finder.find(key)
        if key in kept_aside and found != {key}:
            validation.append(entry)
        elif len(found) == 1:
            matched.extend(found)
        else:
            (ambiguous if found else unknown).append(entry)
    if validation:
        raise InputError(f"{where} names {len(validation)} validation images: {some(validation)}; take them out")
    if unknown:
        hint = nearest(without_suffix(unknown[0]), finder.exact)
        raise InputError(f"{where} names {len(unknown)} images that are not there: {some(unknown)}{hint}")
    if ambiguous:
        several = some(sorted(finder.find(without_suffix(ambiguous[0]))))
        raise InputError(f"{where}: {some(ambiguous)} may mean several images ({several}); give the path below images/")
    doubled = sorted(image_id for image_id, count in Counter(matched).items() if count > 1)
    if doubled:
        raise InputError(f"{where} names {len(doubled)} images more than once: {some(doubled)}; name each once")
    return matched


def _tails(path: str) -> list[str]:
    """Return the path and what remains of it without its first folder, its first two, and so on: "a/b", "b"."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


class _Finder:
    """Finds ids by their ends, and by paths that end in them."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.exact = set(ids)
        self.by_tail: dict[str, set[str]] = {}
        self.by_whole: dict[str, set[str]] = {}
        for image_id in self.exact:
            for tail in _tails(image_id):
                self.by_tail.setdefault(tail, set()).add(image_id)
            folder, _, rest = image_id.partition("/")
            # Lists of a public split do not know our train/ folder.
            for whole in {image_id, rest if folder in SPLIT_FOLDERS and rest else image_id}:
                self.by_whole.setdefault(whole, set()).add(image_id)

    def find(self, key: str) -> set[str]:
        """Return the ids that `key` may mean."""
        if key in self.exact:
            return {key}
        if key in self.by_tail:
            return self.by_tail[key]
        return next((self.by_whole[tail] for tail in _tails(key) if tail in self.by_whole), set())
