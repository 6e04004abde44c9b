"""Choose the labelled, unlabelled and validation images of a raw folder. Opens no picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from s4mim_hf.data.raw_folder import RawFolder, RawItem, require_masks, scan
from s4mim_hf.data.splits import Amount, draw, draw_labeled, match_ids, parse_amount, parse_labeled, read_id_list
from s4mim_hf.errors import InputError, some

DEFAULT_VALIDATION = "0.2"
# Not the seed of the labelled draw: scores of several draws are compared on the same validation images.
VALIDATION_SEED = (0, 1)


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare, as on the command line of `scripts/prepare_data.py`.

    Attributes:
        source: folder with images/ and masks/.
        output: folder to write, new or empty.
        kind: "folder", or a name of the catalog, whose classes and colours are then used.
        name: what the data set is called; None: the catalog's name, or the source folder's.
        labeled: how many training images keep their masks ("1/8", "92", "all"); None: all, or those of `labeled_ids`.
        labeled_ids: file with the ids that keep their masks, instead of a draw.
        unlabeled_ids: file with the ids that are used without; None: all others.
        validation: "0.2", "50", a folder with images/ and masks/, or "none"; None: val/ where there is one, else 0.2.
        classes: class names in the order of their ids; None: those of classes.json or of the catalog.
        seed: of the labelled draw.
    """

    source: Path
    output: Path
    kind: str = "folder"
    name: str | None = None
    labeled: str | None = None
    labeled_ids: Path | None = None
    unlabeled_ids: Path | None = None
    validation: str | None = None
    classes: Sequence[str] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """Which image goes where.

    Attributes:
        labeled: images that keep their masks, sorted by id.
        unlabeled: images that lose theirs, or have none.
        validation: images kept aside with their masks.
        validation_from: how validation was chosen, in words.
        notes: what a person should know, in sentences.
    """

    labeled: list[RawItem]
    unlabeled: list[RawItem]
    validation: list[RawItem]
    validation_from: str
    notes: list[str] = field(default_factory=list)

    def splits(self) -> dict[str, list[RawItem]]:
        """Return the images by the name of their split."""
        return {"labeled": self.labeled, "unlabeled": self.unlabeled, "validation": self.validation}


def make_plan(options: PrepareOptions) -> Plan:
    """Find the images below `options.source` and choose their splits.

    Raises:
        InputError: the options contradict each other or the data, or a split would be empty.
    """
    if options.unlabeled_ids is not None and options.labeled_ids is None:
        raise InputError("--unlabeled-ids needs --labeled-ids: without it, the labelled images are drawn from all")
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, but {options.seed} was given")
    amount = parse_labeled(options.labeled if options.labeled is not None else "all")
    raw = scan(options.source)
    if not raw.training:
        raise InputError(f"all images of {options.source} are in images/val; training needs some in images/train")
    by_id = {item.id: item for item in raw.training}
    masked = [item.id for item in raw.training if item.mask is not None]
    if not masked:
        raise InputError(f"none of the {len(by_id)} training images of {options.source} has a mask; add some to masks/")
    listed = None if options.labeled_ids is None else _read_lists(options, amount, raw, masked)
    named = set() if listed is None else set(listed.labeled) | set(listed.unlabeled or [])
    validation, drawn, how, notes = _choose_validation(options, raw, masked, named)
    rest = set(by_id) - set(drawn)
    if listed is None:
        labeled = draw_labeled(set(masked) & rest, amount, options.seed)
        unlabeled = rest - set(labeled)
    else:
        labeled = listed.labeled
        unlabeled = rest - set(labeled) if listed.unlabeled is None else set(listed.unlabeled)
        left_out = len(rest) - len(labeled) - len(unlabeled)
        notes += [f"{left_out} training images are in neither list and are left out"] if left_out else []
    return Plan(
        [by_id[image_id] for image_id in sorted(labeled)],
        [by_id[image_id] for image_id in sorted(unlabeled)],
        validation,
        how,
        raw.notes + notes,
    )


@dataclass(frozen=True)
class _Lists:
    """The ids of the two lists; `unlabeled` is None where only the labelled list was given."""

    labeled: list[str]
    unlabeled: list[str] | None


def _read_lists(options: PrepareOptions, amount: Amount, raw: RawFolder, masked: Sequence[str]) -> _Lists:
    """Read the id lists and check them against the images and each other."""
    assert options.labeled_ids is not None
    ids = [item.id for item in raw.training]
    kept_aside = [item.id for item in raw.validation or []]
    labeled = match_ids(read_id_list(options.labeled_ids), ids, kept_aside, str(options.labeled_ids))
    require_masks([item for item in raw.training if item.id in set(labeled)], f"the list {options.labeled_ids}")
    if options.labeled is not None and amount.of(len(masked)) != len(labeled):
        raise InputError(
            f"--labeled {options.labeled} is {amount.of(len(masked))} images, but {options.labeled_ids} names "
            f"{len(labeled)}; leave one of the two out"
        )
    if options.unlabeled_ids is None:
        return _Lists(labeled, None)
    unlabeled = match_ids(read_id_list(options.unlabeled_ids), ids, kept_aside, str(options.unlabeled_ids))
    require_disjoint(labeled, unlabeled, options.labeled_ids, options.unlabeled_ids)
    return _Lists(labeled, unlabeled)


def require_disjoint(labeled: Iterable[str], unlabeled: Iterable[str], first: Path, second: Path) -> None:
    """Refuse ids that are in both lists.

    Raises:
        InputError: names both files and the first ids.
    """
    both = sorted(set(labeled) & set(unlabeled))
    if both:
        raise InputError(f"{len(both)} images are in both {first} and {second}: {some(both)}; keep each in one")


def _choose_validation(
    options: PrepareOptions, raw: RawFolder, masked: Sequence[str], named: set[str]
) -> tuple[list[RawItem], list[str], str, list[str]]:
    """Return the validation images, those of them that were drawn from the training ones, how, and notes."""
    asked = options.validation
    if raw.validation is not None:
        if asked is None:
            return raw.validation, [], "the images of val/", []
        if asked == "none":
            return [], [], "none", [f"the {len(raw.validation)} images of images/val are left out (--validation none)"]
        raise InputError(f"--validation {asked}: {options.source} has images/val already; leave the option out")
    if asked == "none":
        return [], [], "none", []
    if asked is not None and Path(asked).is_dir():
        return _validation_folder(Path(asked), {item.id for item in raw.training}), [], "a folder of its own", []
    text = asked or DEFAULT_VALIDATION
    try:
        amount = parse_amount(text, "--validation")
    except InputError:
        raise InputError(
            f"--validation {text!r} is no fraction such as 0.2, no count such as 50, no folder that exists, nor 'none'"
        ) from None
    drawn = _draw_validation(amount, masked, named)
    how = f"{len(drawn)} of the {len(masked)} training images with masks, drawn ({text})"
    by_id = {item.id: item for item in raw.training}
    note = [f"there is no images/val, so validation is {how}; see --validation"] if asked is None else []
    return [by_id[image_id] for image_id in sorted(drawn)], drawn, how, note


def _draw_validation(amount: Amount, masked: Sequence[str], named: set[str]) -> list[str]:
    """Draw validation images out of those with masks that no list names, leaving some to train on."""
    free = [image_id for image_id in masked if image_id not in named]
    count = amount.of(len(masked)) if amount.count is None else amount.count
    most = len(free) if named else len(free) - 1
    if count > most:
        raise InputError(
            f"--validation {amount.text} takes {count} images with masks, but only {max(most, 0)} of {len(masked)} are "
            "free; ask for fewer, give a folder, or --validation none"
        )
    return draw(free, Amount(amount.text, count=count), VALIDATION_SEED)


def _validation_folder(folder: Path, training_ids: set[str]) -> list[RawItem]:
    """Return the images of a validation folder, all with masks, under ids that no training image has."""
    raw = scan(folder)
    items = raw.training + (raw.validation or [])
    require_masks(items, f"the validation folder {folder}")
    renamed = [replace(item, id=f"validation/{item.id}") for item in items]
    doubled = [item.id for item in renamed if item.id in training_ids]
    if doubled:
        raise InputError(f"training images have the ids of validation images: {some(doubled)}; rename their folder")
    return renamed
