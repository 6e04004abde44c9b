"""Which images are kept aside to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan.raw_data import RawData
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Item, Source
from s4mim_hf.data.sources.folder import FolderSource, require_labels
from s4mim_hf.data.splits import Amount, Groups, draw, group_sizes, parse_amount, permutation, whole_groups
from s4mim_hf.errors import InputError, some

DEFAULT_VALIDATION = "0.2"
# Not the seed of the labelled draw: scores of several draws are compared on the same validation images.
VALIDATION_SEED = (0, 1)


@dataclass(frozen=True)
class Validation:
    """The images kept aside.

    Attributes:
        items: the images, all with labels.
        source: where they are from.
        how: how they were chosen, in words.
        taken: ids of training images that are among them, or stand too near to them to be trained on.
        notes: what a person should know, in sentences.
    """

    items: Sequence[Item]
    source: Source
    how: str
    taken: AbstractSet[str] = frozenset()
    notes: Sequence[str] = field(default_factory=tuple)


def choose_validation(
    options: PrepareOptions, raw: RawData, named: AbstractSet[str], groups: Groups | None
) -> Validation:
    """Choose the validation images, the same for every labelled draw.

    Args:
        options: what is asked for.
        raw: the source.
        named: training images that a list names, which cannot be validation images.
        groups: groups that must not be parted.

    Raises:
        InputError: --validation is nothing that is known, contradicts the source, or leaves nothing to train on.
    """
    asked, own = options.validation, raw.listing.validation
    if own is not None:
        if asked is None:
            how = "the source's own validation images"
            return Validation(own, raw.source, how, notes=_shared(groups, raw.listing.training, own))
        if asked == "none":
            note = f"the {len(own)} validation images of {options.source} are left out (--validation none)"
            return Validation([], raw.source, "none", notes=[note])
        raise InputError(f"--validation {asked}: {options.source} has validation images already; leave the option out")
    if asked == "none":
        return Validation([], raw.source, "none")
    if asked is not None and Path(asked).is_dir():
        source, items = _validation_folder(Path(asked), options, raw)
        notes = _shared(groups, raw.listing.training, items)
        return Validation(items, source, "a folder of its own", notes=notes)
    text = asked or DEFAULT_VALIDATION
    try:
        amount = parse_amount(text, "--validation")
    except InputError:
        raise InputError(
            f"--validation {text!r} is no fraction such as 0.2, no count such as 50, no folder that exists, nor 'none'"
        ) from None
    if groups is None:
        drawn = frozenset(_draw(amount, raw.drawable, named))
        taken: AbstractSet[str] = drawn
    else:
        drawn, taken = _draw_groups(amount, raw, named, groups)
    how = f"{len(drawn)} of the {len(raw.drawable)} training images with masks, drawn ({text})"
    notes = [f"there are no validation images, so validation is {how}; see --validation"] if asked is None else []
    if groups is not None and asked is not None:
        notes.append(f"validation is {how} in whole groups")
    if len(taken) > len(drawn):
        notes.append(
            f"{len(taken) - len(drawn)} images without masks are of the groups of validation images, and are left out"
        )
    return Validation([item for item in raw.drawable if item.id in drawn], raw.source, how, taken, notes)


def _most(amount: Amount, drawable: Sequence[Item], free: int, named: AbstractSet[str]) -> int:
    """Return how many images are asked for, once some are left to train on."""
    count = amount.of(len(drawable)) if amount.count is None else amount.count
    most = free if named else free - 1
    if count > most:
        raise InputError(
            f"--validation {amount.text} takes {count} images with masks, but only {max(most, 0)} of {len(drawable)} "
            "are free; ask for fewer, give a folder, or --validation none"
        )
    return count


def _draw(amount: Amount, drawable: Sequence[Item], named: AbstractSet[str]) -> list[str]:
    """Draw out of the images with masks that no list names, leaving some to train on."""
    free = [item.id for item in drawable if item.id not in named]
    return draw(free, Amount(amount.text, count=_most(amount, drawable, len(free), named)), VALIDATION_SEED)


def _draw_groups(
    amount: Amount, raw: RawData, named: AbstractSet[str], groups: Groups
) -> tuple[frozenset[str], frozenset[str]]:
    """Draw whole groups in which no list names an image; return their images with masks, and all their images."""
    training = [item.id for item in raw.listing.training]
    name_of = dict(zip(training, groups.of(training), strict=True))
    listed = {name_of[image_id] for image_id in named}
    free = [item.id for item in raw.drawable if name_of[item.id] not in listed]
    count = _most(amount, raw.drawable, len(free), named)
    names = sorted({name_of[image_id] for image_id in free})
    sizes = group_sizes([name_of[image_id] for image_id in free])
    order = permutation(len(names), VALIDATION_SEED)
    chosen = {names[unit] for unit in order[: whole_groups(sizes[order], count, "--validation", bool(named))]}
    drawn = frozenset(image_id for image_id in free if name_of[image_id] in chosen)
    return drawn, frozenset(image_id for image_id in training if name_of[image_id] in chosen)


def _validation_folder(folder: Path, options: PrepareOptions, raw: RawData) -> tuple[Source, list[Item]]:
    """Return the images of a validation folder, all with masks, under ids that no training image has."""
    if options.source is not None and folder.resolve() == Path(options.source).resolve():
        raise InputError(
            f"--validation {folder} is the folder of the training images themselves; give another, or a part such as "
            f"{DEFAULT_VALIDATION}"
        )
    source = _beside(folder, options, raw.source)
    listing = source.listing()
    items = [*listing.training, *(listing.validation or [])]
    require_labels(items, f"the validation folder {folder}")
    renamed = [Item(f"validation/{item.id}", item.image, item.label) for item in items]
    training = {item.id for item in raw.listing.training}
    doubled = [item.id for item in renamed if item.id in training]
    if doubled:
        raise InputError(f"training images have the ids of validation images: {some(doubled)}; rename their folder")
    return source, renamed


def _beside(folder: Path, options: PrepareOptions, source: Source) -> Source:
    """Open a validation folder as the training images' source reads masks, or else as a folder with masks of ids.

    Where the training images have annotation files, those of the folder lie in it.

    Raises:
        InputError: its classes are not the source's.
    """
    if isinstance(source, FolderSource):
        return source.beside(folder)
    names = None if source.classes is None else source.classes.names
    drawn = options.kind == "folder" and options.annotations is not None and not (folder / "masks").is_dir()
    annotations = folder if drawn else None
    return open_source(PrepareOptions("folder", options.output, str(folder), classes=names, annotations=annotations))


def _shared(groups: Groups | None, training: Sequence[Item], validation: Sequence[Item]) -> list[str]:
    """Return a warning where a group has images on both sides of a split that is given."""
    if groups is None:
        return []
    # Ids of validation images may be of another make; those are in no group.
    aside = {groups.find(item.id) for item in validation} - {None}
    both = sorted(aside.intersection(groups.of([item.id for item in training])), key=str)
    if not both:
        return []
    return [
        f"{len(both)} groups of --group-by have images for training and for validation ({some(map(str, both))}): "
        "scores may be too good, because the images of a group are alike"
    ]
