"""How many images: a count, a fraction, or all."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from s4mim_hf.errors import InputError, nearest

ALL = "all"


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
    if text.strip() == ALL:
        return Amount(ALL, fraction=Fraction(1))
    try:
        return parse_amount(text, "--labeled")
    except InputError as error:
        raise InputError(f"{error} (or '{ALL}'{nearest(text, [ALL])})") from None
