"""Which training images keep their masks: all, a seeded draw, or those that a list names."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan.raw_data import RawData
from s4mim_hf.data.sources.folder import require_labels
from s4mim_hf.data.splits import Amount, Drawn, Groups, draw_labeled, match_ids, read_id_list
from s4mim_hf.errors import InputError, some


@dataclass(frozen=True)
class Lists:
    """The ids of the two lists; `unlabeled` is None where only the labelled list was given."""

    labeled: frozenset[str] = frozenset()
    unlabeled: frozenset[str] | None = None

    @property
    def named(self) -> frozenset[str]:
        """All ids that either names."""
        return self.labeled | (self.unlabeled or frozenset())


@dataclass(frozen=True)
class Labeled:
    """The training images parted.

    Attributes:
        labeled: ids of those that keep their masks.
        unlabeled: ids of those that are used without.
        notes: what a person should know, in sentences.
        covered: whether it is known, and said in the notes, which classes the labelled images hold.
    """

    labeled: AbstractSet[str]
    unlabeled: AbstractSet[str]
    notes: list[str] = field(default_factory=list)
    covered: bool = False


def read_lists(options: PrepareOptions, amount: Amount, raw: RawData) -> Lists:
    """Read the id lists of --labeled-ids and --unlabeled-ids, and check them against the images and each other.

    Raises:
        InputError: a list cannot be read, names an image that is not there or has no mask, or both name the same.
    """
    assert options.labeled_ids is not None
    first, second = options.labeled_ids, options.unlabeled_ids
    labeled = _matched(first, raw)
    require_labels([item for item in raw.listing.training if item.id in labeled], f"the list {first}")
    if options.labeled is not None and amount.of(len(raw.drawable)) != len(labeled):
        raise InputError(
            f"--labeled {options.labeled} is {amount.of(len(raw.drawable))} images, but {first} names "
            f"{len(labeled)}; leave one of the two out"
        )
    if second is None:
        return Lists(labeled)
    unlabeled = _matched(second, raw)
    both = sorted(labeled & unlabeled)
    if both:
        raise InputError(f"{len(both)} images are in both {first} and {second}: {some(both)}; keep each in one")
    return Lists(labeled, unlabeled)


def _matched(place: str, raw: RawData) -> frozenset[str]:
    aside = [item.id for item in raw.listing.validation or []]
    training = (item.id for item in raw.listing.training)
    return frozenset(match_ids(read_id_list(place), training, aside, place, raw.source.id_of_entry))


def listed(lists: Lists, rest: AbstractSet[str], groups: Groups | None) -> Labeled:
    """Part the training images as lists say.

    Args:
        lists: the lists.
        rest: the training images that are not for validation.
        groups: groups; a list may part them, which is said.
    """
    unlabeled = rest - lists.labeled if lists.unlabeled is None else lists.unlabeled
    left_out = len(rest) - len(lists.labeled) - len(unlabeled)
    notes = [f"{left_out} training images are in neither list and are left out"] if left_out else []
    if groups is not None:
        parted = sorted(set(groups.of(sorted(lists.labeled))).intersection(groups.of(sorted(unlabeled))))
        if parted:
            notes.append(f"{len(parted)} groups of --group-by have labelled and unlabelled images: {some(parted)}")
    return Labeled(lists.labeled, unlabeled, notes)


def drawn(
    options: PrepareOptions, amount: Amount, raw: RawData, rest: AbstractSet[str], groups: Groups | None
) -> Labeled:
    """Draw the images that keep their masks.

    With groups, the images of a drawn group that may not be labelled are left out: they would be its other side.

    Args:
        options: the seed and the rule.
        amount: how many.
        raw: the source.
        rest: the training images that are not for validation.
        groups: groups that must not be parted.

    Raises:
        InputError: there are fewer images than asked for, a mask cannot be used, or nothing names the classes.
    """
    candidates = sorted(item.id for item in raw.drawable if item.id in rest)
    try:
        everything = amount.of(len(candidates)) == len(candidates)
    except InputError as error:
        raise InputError(f"--labeled {amount.text}: {error}") from None
    if everything:
        return Labeled(frozenset(candidates), rest - frozenset(candidates))
    names = None if groups is None else groups.of(candidates)
    found = draw_labeled(raw.presence.select(candidates), amount, options.seed, options.draw, names)
    labeled = frozenset(found.ids)
    unlabeled, notes = rest - labeled, _coverage_notes(found, raw.classes.names)
    if groups is not None and names is not None:
        of_drawn = {groups.find(image_id) for image_id in labeled}
        parted = {image_id for image_id in unlabeled if groups.find(image_id) in of_drawn}
        unlabeled -= parted
        asked = amount.of(len(candidates))
        counted = f"{len(labeled)} images in {len(of_drawn)} of {len(set(names))} groups are labelled"
        reason = f" where {asked} are asked for, because --group-by keeps groups whole"
        notes.append(counted if len(labeled) == asked else counted + reason)
        if parted:
            notes.append(f"{len(parted)} images without masks are of labelled groups, and are left out: {some(parted)}")
    return Labeled(labeled, unlabeled, notes, covered=True)


def _coverage_notes(found: Drawn, names: Iterable[str]) -> list[str]:
    """Return sentences on classes that the labelled images lack."""
    name = list(names)
    notes = []
    if found.unavailable:
        lacking = some((name[class_id] for class_id in found.unavailable), 8)
        notes.append(f"{len(found.unavailable)} classes have no pixel in any training image with a mask: {lacking}")
    if found.absent:
        lacking = some((name[class_id] for class_id in found.absent), 8)
        notes.append(
            f"{len(found.absent)} classes have no pixel in the labelled images: {lacking}; with this seed, "
            f"{found.enough} labelled images hold all that there are"
        )
    return notes
