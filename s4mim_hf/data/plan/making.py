"""From options to three lists of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from s4mim_hf.data.options import PrepareOptions, check_options
from s4mim_hf.data.plan.labeled import Lists, drawn, listed, read_lists
from s4mim_hf.data.plan.raw_data import RawData
from s4mim_hf.data.plan.validation import choose_validation
from s4mim_hf.data.sources.base import Item, Source
from s4mim_hf.data.splits import Groups, parse_labeled
from s4mim_hf.errors import InputError, check_names, some


@dataclass(frozen=True)
class Plan:
    """Which image goes where.

    Attributes:
        labeled: images that keep their masks, sorted by id.
        unlabeled: images that lose theirs, or have none.
        validation: images kept aside with their masks.
        validation_from: how validation was chosen, in words.
        source: where the training images are from.
        validation_source: where the validation images are from.
        notes: what a person should know, in sentences.
        covered: whether the notes say already which classes the labelled images lack.
    """

    labeled: Sequence[Item]
    unlabeled: Sequence[Item]
    validation: Sequence[Item]
    validation_from: str
    source: Source
    validation_source: Source
    notes: list[str] = field(default_factory=list)
    covered: bool = False

    def splits(self) -> dict[str, Sequence[Item]]:
        """Return the images by the name of their split."""
        return {"labeled": self.labeled, "unlabeled": self.unlabeled, "validation": self.validation}

    def ids(self) -> dict[str, list[str]]:
        """Return the ids by the name of their split."""
        return {split: [item.id for item in items] for split, items in self.splits().items()}

    def source_of(self, split: str) -> Source:
        """Return where the images of a split are from."""
        return self.validation_source if split == "validation" else self.source


def make_plan(options: PrepareOptions, raw: RawData | None = None) -> Plan:
    """Choose the splits.

    Args:
        options: what is asked for.
        raw: the source that they name, where it has been opened already.

    Raises:
        InputError: the options contradict each other or the data, a split would be empty, or a mask that a draw must
            look at cannot be used.
    """
    check_options(options)
    _check_together(options)
    amount = parse_labeled(options.labeled if options.labeled is not None else "all")
    groups = None if options.group_by is None else Groups(options.group_by)
    raw = raw or RawData(options)
    if groups is not None:
        groups.of([item.id for item in raw.listing.training])
    lists = Lists() if options.labeled_ids is None else read_lists(options, amount, raw)
    validation = choose_validation(options, raw, lists.named, groups)
    check_names(item.id for item in validation.items)
    rest = frozenset(item.id for item in raw.listing.training) - validation.taken
    if options.labeled_ids is not None:
        training = listed(lists, rest, groups)
    else:
        training = drawn(options, amount, raw, rest, groups)
    labeled = [item for item in raw.listing.training if item.id in training.labeled]
    unlabeled = [item for item in raw.listing.training if item.id in training.unlabeled]
    _check_disjoint([*labeled, *unlabeled, *validation.items])
    return Plan(
        labeled,
        unlabeled,
        validation.items,
        validation.how,
        raw.source,
        validation.source,
        [*raw.listing.notes, *validation.notes, *training.notes],
        training.covered,
    )


def _check_disjoint(items: Sequence[Item]) -> None:
    """Refuse a source whose own lists name an image twice: it would be trained on and measured on, or count double."""
    counts = Counter(item.id for item in items)
    doubled = [image_id for image_id, count in counts.items() if count > 1]
    if doubled:
        raise InputError(
            f"{len(doubled)} images are in the splits of the source more than once, within one or in two: "
            f"{some(doubled)}; name each image once in the lists"
        )


def _check_together(options: PrepareOptions) -> None:
    """Refuse options that have no effect without another."""
    if options.unlabeled_ids is not None and options.labeled_ids is None:
        raise InputError("--unlabeled-ids needs --labeled-ids: without it, the labelled images are drawn from all")
    if options.draw != "plain" and options.labeled_ids is not None:
        raise InputError(f"--draw {options.draw} has nothing to draw where --labeled-ids says it; leave one out")
    if options.draw != "plain" and options.labeled is None:
        raise InputError(f"--draw {options.draw} needs --labeled: without it every image with a mask is labelled")
