"""Turn raw images and masks into a prepared folder: choose the splits, check every file, then write, in this order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from s4mim_hf.data.catalog import CATALOG, default_palette
from s4mim_hf.data.plan import Plan, PrepareOptions, make_plan
from s4mim_hf.data.prepared import SPLITS, SYNTHETIC, SYNTHETIC_PROTOCOL, decode_image, decode_label
from s4mim_hf.data.prepared_writer import Description, Row, check_output, write_prepared
from s4mim_hf.data.raw_folder import IGNORE_INDEX, Classes, RawItem, checked_classes, read_classes
from s4mim_hf.data.raw_pixels import Facts, check_ids, encode_label, ids_held, inspect, mask_ids_of, read_mask
from s4mim_hf.errors import InputError, nearest, some


@dataclass(frozen=True)
class SplitReport:
    """One split in numbers.

    Attributes:
        images: how many.
        smallest: size "WxH" of the image with the fewest pixels.
        largest: of the one with the most.
        ids: the classes that its masks hold; empty for unlabelled images.
    """

    images: int
    smallest: str
    largest: str
    ids: frozenset[int]


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        name: what the data set is called.
        classes: class names in the order of their ids.
        splits: one report for each split that is not empty.
        split_hash: the hash of the splits.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, SplitReport]
    split_hash: str


def prepare_folder(options: PrepareOptions, say: Callable[[str], None]) -> Report:
    """Prepare a raw folder; nothing is written unless all of it is sound.

    Args:
        options: what to prepare.
        say: called with each thing that a person should know, one sentence at a time.

    Raises:
        InputError: the options contradict each other or the data, or a file is missing, unreadable or does not fit.
    """
    check_output(options.output)
    named = _named_classes(options)
    plan = make_plan(options)
    for note in plan.notes:
        say(note)
    splits = plan.splits()
    # Masks of images chosen to be unlabelled are checked too: another draw may use them.
    facts = inspect([item for items in splits.values() for item in items])
    if named is None:
        raise _no_classes(options.source, facts)
    check_ids(facts, named)
    for note in _notes_on_pixels(plan, facts, named):
        say(note)
    ids = {split: [item.id for item in items] for split, items in splits.items()}
    rows = {split: _rows(items, named, split) for split, items in splits.items()}
    digest = write_prepared(options.output, _describe(options, plan, named), ids, rows)
    reports = {split: _report(ids[split], facts, split, len(named.names)) for split in SPLITS if ids[split]}
    return Report(_name(options), named.names, reports, digest)


def prepare_synthetic(output: Path, seed: int = 0, name: str | None = None) -> Report:
    """Write the embedded data as a prepared folder.

    Raises:
        InputError: the output cannot be written, or the seed is negative.
    """
    from s4mim_hf.data.synthetic import CLASSES, PALETTE, synthetic_splits

    check_output(output)
    if seed < 0:
        raise InputError(f"--seed must not be negative, but {seed} was given")
    rows = synthetic_splits(seed)
    facts = {}
    for split in SPLITS:
        for row in rows[split]:
            height, width = decode_image(row["image"]).shape[:2]
            held = frozenset() if split == "unlabeled" else mask_ids_of(decode_label(row["label"]))
            facts[row["id"]] = Facts(width, height, held)
    origin = _origin("synthetic", seed, "embedded", "embedded")
    description = Description(
        name or SYNTHETIC, name or "Synthetic scenes", tuple(CLASSES), tuple(PALETTE), IGNORE_INDEX,
        SYNTHETIC_PROTOCOL, "Rendered by s4mim_hf.data.synthetic.", origin,
    )  # fmt: skip
    ids = {split: [row["id"] for row in rows[split]] for split in SPLITS}
    stored = {split: _synthetic_rows(rows[split], split) for split in SPLITS}
    digest = write_prepared(output, description, ids, stored)
    reports = {split: _report(ids[split], facts, split, len(CLASSES)) for split in SPLITS}
    return Report(description.name, description.classes, reports, digest)


def _synthetic_rows(rows: Sequence[Mapping[str, Any]], split: str) -> Iterator[Row]:
    for row in rows:
        label = None if split == "unlabeled" else row["label"]
        yield Row(row["id"], row["image"], f"{row['id']}.png", label)


def _named_classes(options: PrepareOptions) -> Classes | None:
    """Return the classes that the catalog, --classes or classes.json name; None where none of them does."""
    path = options.source / "classes.json"
    written = read_classes(path)
    given = None if options.classes is None else checked_classes(options.classes, IGNORE_INDEX, "--classes")
    info = CATALOG.get(options.kind)
    if info is not None:
        given, where = Classes(info.classes, info.ignore_index), f"the catalog's classes of {info.name}"
        if options.classes is not None:
            raise InputError(f"--classes is for 'folder'; the classes of {info.name!r} are known")
    elif options.kind != "folder":
        raise InputError(f"{options.kind!r} is no known data set{nearest(options.kind, ['folder', *CATALOG])}")
    else:
        where = "--classes"
    if given is not None and written is not None and given.names != written.names:
        pairs = zip(given.names, written.names, strict=False)
        first = next((f"{ours!r} and {theirs!r}" for ours, theirs in pairs if ours != theirs), "their number")
        raise InputError(
            f"{where} ({len(given.names)}) are not those of {path} ({len(written.names)}), they differ in {first}; "
            "correct one of them"
        )
    return written or given


def _no_classes(source: Path, facts: Mapping[str, Facts]) -> InputError:
    """Return the error that says which ids want names."""
    held = sorted(ids_held(facts.values()) - {IGNORE_INDEX})
    found = some(map(str, held), 12) if held else "none but 255"
    return InputError(
        f"there is no {source / 'classes.json'} and no --classes; the masks hold the ids {found} (255 is ignored): "
        f"name the classes 0 to {held[-1] if held else 'K-1'} with --classes a,b,c"
    )


def _notes_on_pixels(plan: Plan, facts: Mapping[str, Facts], classes: Classes) -> list[str]:
    """Return sentences on what the pixels show: absent classes, masks that may lie upside down."""
    notes = []
    held = ids_held(facts[item.id] for item in plan.labeled)
    absent = [name for class_id, name in enumerate(classes.names) if class_id not in held]
    if absent:
        notes.append(f"{len(absent)} classes have no pixel in the labelled images: {some(absent, 8)}")
    doubtful = sorted(name for name, fact in facts.items() if fact.doubtful)
    if doubtful:
        notes.append(
            f"{len(doubtful)} images are turned by their EXIF orientation without a change of size ({some(doubtful)}); "
            "their masks are taken to be upright already"
        )
    return notes


def _name(options: PrepareOptions) -> str:
    if options.name:
        return options.name
    return options.kind if options.kind in CATALOG else options.source.resolve().name


def _describe(options: PrepareOptions, plan: Plan, classes: Classes) -> Description:
    """Gather what is written beside the rows."""
    labeled = "a list of ids" if options.labeled_ids is not None else options.labeled or "all"
    count, info = len(classes.names), CATALOG.get(options.kind)
    return Description(
        name=_name(options),
        title=info.title if info else _name(options),
        classes=classes.names,
        palette=info.palette if info else default_palette(count),
        ignore_index=IGNORE_INDEX,
        protocol=info.protocol
        if info
        else f"whole image at original size, mean IoU over {count} classes, pixels of id {IGNORE_INDEX} ignored",
        note=info.note if info else "",
        origin=_origin(options.kind, options.seed, labeled, plan.validation_from),
    )


def _origin(kind: str, seed: int, labeled: str, validation: str) -> dict[str, Any]:
    """Return how the splits were made, for splits.json; no path of this machine goes into it."""
    return {
        "source": kind,
        "seed": seed,
        "labeled": labeled,
        "validation": validation,
        "version": version("s4mim-hf"),
    }


def _rows(items: Sequence[RawItem], classes: Classes, split: str) -> Iterator[Row]:
    """Yield the rows of a split, one picture in memory at a time; masks of unlabelled images stay unread."""
    for item in items:
        label = None if split == "unlabeled" else encode_label(read_mask(item), classes)
        yield Row(item.id, item.image.read_bytes(), item.image.name, label)


def _report(ids: Sequence[str], facts: Mapping[str, Facts], split: str, num_classes: int) -> SplitReport:
    ordered = sorted((facts[image_id] for image_id in ids), key=lambda fact: (fact.width * fact.height, fact.width))
    smallest, largest = (f"{fact.width}x{fact.height}" for fact in (ordered[0], ordered[-1]))
    # What is written of an unlabelled image holds no ids, whatever its raw mask held.
    held = frozenset() if split == "unlabeled" else frozenset(ids_held(ordered) & set(range(num_classes)))
    return SplitReport(len(ids), smallest, largest, held)
