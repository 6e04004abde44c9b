"""What the numbers mean: problems, with which training fails or is silently wrong, and warnings, with which it works.

K is the number of classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s4mim_hf.data.checking.counts import CONSTANT_SHARE, SplitNumbers
from s4mim_hf.data.checking.pictures import LARGEST_ID
from s4mim_hf.data.checking.twins import Lookalikes, Twins
from s4mim_hf.data.prepared_writer.reading import Problem
from s4mim_hf.data.sources.base import IGNORE_INDEX
from s4mim_hf.errors import some

FEW_IMAGES = 3
MUCH_IGNORED = 0.5
# Below it a picture is smaller than one cell of the encoder's last feature map.
SMALL_SIDE = 32
LARGE_PIXELS = 4_000_000
SUGGESTED_SIDE = 1024
# The long sides of the middle 90% of the pictures differ by more than this factor.
SIZE_SPREAD = 4
MANY_CONSTANT = 0.25
# At half a million photos, less than this share looks like another one by chance.
MANY_ALIKE = 0.01
_NAMES = 8
_EXAMPLES = 3
WORDS = {"labeled": "labelled", "unlabeled": "unlabelled", "validation": "validation"}
_UNUSUAL = {
    "I;16": "have 16 bits, of which the upper 8 are used",
    "I;16B": "have 16 bits, of which the upper 8 are used",
    "I": "have 32 bits, which are scaled or cut to 8",
    "F": "hold fractions, which are cut to 0 .. 255",
    "1": "have 1 bit, black or white",
    "RGBA": "have a transparent channel, which is dropped",
    "LA": "have a transparent channel, which is dropped",
    "CMYK": "are in CMYK, and become RGB without their colour profile",
}


@dataclass(frozen=True)
class Seen:
    """All that was counted.

    Attributes:
        classes: class names; None where nobody names them.
        splits: the numbers of each split.
        twins: pictures that are there more than once.
        lookalikes: validation pictures that look like a training picture (or as many that a draw would take).
        drawn: whether `lookalikes` is about a draw that is yet to be made.
        prepared: whether the splits are made; otherwise "labeled" are all training images that have a label.
    """

    classes: tuple[str, ...] | None
    splits: Mapping[str, SplitNumbers]
    twins: Twins
    lookalikes: Lookalikes
    drawn: bool
    prepared: bool

    def names(self, ids: Sequence[int]) -> str:
        """Name some classes."""
        return some((self.classes[each] if self.classes else str(each) for each in ids), _NAMES)


def find_problems(seen: Seen) -> list[str]:
    """Return what makes training fail, or its result wrong."""
    problems = []
    again = "replace or remove them, then prepare the data again" if seen.prepared else "replace or remove them"
    for split, numbers in seen.splits.items():
        for kind, failed in numbers.failures.items():
            problems.append(f"{failed.count} {WORDS[split]} {kind}: {_listed(failed)}; {again}")
        if numbers.odd.count:
            count = IGNORE_INDEX if seen.classes is None else len(seen.classes)
            problems.append(
                f"{numbers.odd.count} {WORDS[split]} masks hold ids other than 0 to {count - 1} and {IGNORE_INDEX} "
                f"(ignored): ids {some(map(_id_name, numbers.odd_ids), _NAMES)} in "
                f"{_listed(numbers.odd)}; name more classes or correct the masks"
            )
    problems += _useless_labels(seen)
    problems += _leaks(seen)
    return problems


def _useless_labels(seen: Seen) -> Iterator[str]:
    """Yield why the labels teach or measure nothing."""
    labeled, validation = seen.splits["labeled"], seen.splits["validation"]
    where = "prepare the data again with some" if seen.prepared else "add masks for some of the training images"
    if not labeled.images:
        yield f"there are no labelled images; {where}"
    elif labeled.masks and not labeled.labeled_pixels:
        yield f"all pixels of the labelled masks are ignored ({IGNORE_INDEX}): there is nothing to learn; correct them"
    elif labeled.masks and not labeled.odd.count and len(labeled.classes_found) == 1:
        yield (
            f"the labelled masks hold one class only ({seen.names(labeled.classes_found)}): there is nothing to tell "
            f"it from; give what is not of this class a class of its own instead of {IGNORE_INDEX}"
        )
    if validation.masks and not validation.labeled_pixels:
        yield f"all pixels of the validation masks are ignored ({IGNORE_INDEX}): no score can be computed; correct them"


def _leaks(seen: Seen) -> Iterator[str]:
    """Yield which validation pictures are trained on."""
    for split in ("labeled", "unlabeled"):
        count = seen.twins.across["validation", split]
        if count:
            yield (
                f"{count} validation pictures are {WORDS[split]} training pictures too: "
                f"{_first(seen.twins.examples['validation', split], count)}; a score on them means nothing: remove "
                "them from one side"
            )


def find_warnings(seen: Seen) -> list[str]:
    """Return what training works with, but a person should know."""
    found = (_about_splits, _about_classes, _about_masks, _about_sizes, _about_pictures, _about_twins)
    return [warning for about in found for warning in about(seen)]


def _about_splits(seen: Seen) -> Iterator[str]:
    if not seen.splits["unlabeled"].images and seen.prepared:
        yield "there are no unlabelled images: training is supervised, whatever the method"
    if not seen.splits["validation"].images and seen.prepared:
        yield "there are no validation images: no score is computed, and the last model is kept instead of the best"


def _about_classes(seen: Seen) -> Iterator[str]:
    labeled, validation = seen.splits["labeled"], seen.splits["validation"]
    if seen.classes is None:
        found = sorted({*labeled.classes_found, *validation.classes_found})
        yield (
            f"nothing names the classes; the masks hold the ids {some(map(str, found), 12) or 'none'} "
            f"({IGNORE_INDEX} is ignored): write a classes.json, or give --classes when you prepare the data"
        )
        return
    ids = range(len(seen.classes))
    if labeled.masks:
        absent = [class_id for class_id in ids if not labeled.images_with[class_id]]
        if absent:
            what = "classes have no pixel in the labelled images and cannot be learnt"
            yield f"{len(absent)} {what}: {seen.names(absent)}"
        rare = [class_id for class_id in ids if 0 < labeled.images_with[class_id] < FEW_IMAGES]
        if rare and labeled.masks >= FEW_IMAGES:
            yield f"{len(rare)} classes are in fewer than {FEW_IMAGES} labelled images: {seen.names(rare)}"
    if validation.masks:
        absent = [class_id for class_id in ids if not validation.images_with[class_id]]
        if absent:
            yield (
                f"{len(absent)} classes have no pixel in the validation images (their score is 0 where one is "
                f"predicted, and left out of the mean where none is): {seen.names(absent)}"
            )


def _about_masks(seen: Seen) -> Iterator[str]:
    for split, numbers in seen.splits.items():
        word = WORDS[split]
        if numbers.ignored_share > MUCH_IGNORED and numbers.labeled_pixels:
            yield f"{numbers.ignored_share:.0%} of the pixels of the {word} masks are ignored ({IGNORE_INDEX})"
        if 0 < numbers.ignored_masks.count < numbers.masks:
            yield f"{numbers.ignored_masks.count} {word} masks are ignored as a whole: {_listed(numbers.ignored_masks)}"
        if numbers.constant.count >= max(2, MANY_CONSTANT * numbers.masks):
            yield (
                f"{numbers.constant.count} of {numbers.masks} {word} masks hold one id in {CONSTANT_SHARE:.0%} or more "
                f"of their pixels: {_listed(numbers.constant)}"
            )
        if numbers.doubtful.count:
            yield (
                f"{numbers.doubtful.count} {word} pictures are turned by their EXIF orientation without a change of "
                f"size ({_listed(numbers.doubtful)}); their masks are taken to be upright already"
            )


def _about_sizes(seen: Seen) -> Iterator[str]:
    decoded = [numbers for numbers in seen.splits.values() if numbers.decoded]
    if not decoded:
        return
    widths, heights = (np.concatenate([getattr(part, side) for part in decoded]) for side in ("widths", "heights"))
    long_sides, short_sides = np.maximum(widths, heights), np.minimum(widths, heights)
    few, many = np.quantile(long_sides, [0.05, 0.95])
    if many > SIZE_SPREAD * few:
        yield (
            f"sizes differ much: the long sides of the middle 90% of the pictures are {few:.0f} to {many:.0f} pixels, "
            "and objects are as different in scale"
        )
    small, large = int((short_sides < SMALL_SIDE).sum()), int((widths * heights > LARGE_PIXELS).sum())
    if small:
        yield f"{small} pictures have a side below {SMALL_SIDE} pixels, the smallest {short_sides.min()}"
    if large:
        yield (
            f"{large} pictures have more than {LARGE_PIXELS // 10**6} megapixels, which makes reading slow; "
            f"--max-side {SUGGESTED_SIDE} stores smaller ones"
        )


def _about_pictures(seen: Seen) -> Iterator[str]:
    modes: Counter[str] = Counter()
    for numbers in seen.splits.values():
        for kind, count in numbers.kinds.items():
            modes[kind.partition(" ")[2]] += count
    said: Counter[str] = Counter()
    for mode, what in _UNUSUAL.items():
        said[what] += modes[mode]
    for what, count in said.items():
        if count:
            yield f"{count} pictures {what}"
    for split, numbers in seen.splits.items():
        if numbers.dark.count:
            yield (
                f"{numbers.dark.count} {WORDS[split]} pictures of 16 bits are nearly black, because they do not use "
                f"their upper bits: {_listed(numbers.dark)}; stretch them to the whole range"
            )


def _about_twins(seen: Seen) -> Iterator[str]:
    twins = seen.twins
    advice = "; a draw of validation images may take one of two" if seen.drawn else ""
    for split, count in twins.within.items():
        if count:
            where = f"repeat another {WORDS[split]} one"
            yield f"{count} {WORDS[split]} pictures {where}: {_first(twins.examples[split, split], count)}{advice}"
    count = twins.across["unlabeled", "labeled"]
    if count:
        pairs = _first(twins.examples["unlabeled", "labeled"], count)
        yield f"{count} unlabelled pictures are labelled pictures too: {pairs}{advice}"
    alike = seen.lookalikes
    if alike.alike and alike.share >= MANY_ALIKE:
        who = (
            f"of {alike.pictures} pictures drawn at random, as validation images are, {alike.alike} look almost like "
            "one that is left to train on"
            if seen.drawn
            else f"{alike.alike} of {alike.pictures} validation pictures look almost like a training picture"
        )
        yield (
            f"{who} ({_first(alike.examples, alike.alike)}): if these are frames of one video, or of one scene, keep "
            "them on one side with --group-by"
        )


def _listed(group: Problem) -> str:
    return _first(group.names, group.count)


def _first(names: Sequence[str], count: int) -> str:
    """Name the first few of `count` things, of which `names` are the first."""
    shown = ", ".join(names[:_EXAMPLES])
    rest = count - min(_EXAMPLES, len(names))
    return f"{shown} and {rest} more" if rest else shown


def _id_name(class_id: int) -> str:
    """Name an id as it is counted; see `pictures.count_ids`."""
    return {-1: "below 0", LARGEST_ID + 1: f"above {LARGEST_ID}"}.get(class_id, str(class_id))
