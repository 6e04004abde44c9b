"""Turn a source into a prepared folder: choose the splits, then read, check and write every image, in this order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from s4mim_hf.data.catalog import default_palette
from s4mim_hf.data.options import PrepareOptions, check_options
from s4mim_hf.data.plan import Plan, RawData, make_plan
from s4mim_hf.data.prepared import SplitStatistics
from s4mim_hf.data.prepared_writer import Description, Row, check_output, write_prepared
from s4mim_hf.data.push import check_push, push_prepared
from s4mim_hf.data.samples import SampleReader
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes
from s4mim_hf.errors import some

# These change nothing that is written.
_NOT_WRITTEN = ("output", "push_to_hub", "private")


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        name: what the data set is called.
        classes: class names in the order of their ids.
        splits: statistics of each split that is not empty.
        split_hash: the hash of the splits.
        address: where on the Hub it was pushed to; None: nowhere.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, SplitStatistics]
    split_hash: str
    address: str | None = None


def prepare(options: PrepareOptions, say: Callable[[str], None], raw: RawData | None = None) -> Report:
    """Prepare a source; nothing appears at `options.output` unless all of it is sound.

    Memory does not grow with the pictures: what is kept of an image is its id, where it is, and one bit for each class
    where a draw must know which classes its mask holds; about 1 kB in all. Of a COCO export that `options.annotations`
    names for a folder, all shapes are kept too.

    Args:
        options: what to prepare.
        say: called with each thing that a person should know, one sentence at a time.
        raw: the source that the options name, where it has been opened already.

    Raises:
        InputError: the options contradict each other or the data, or a file is missing, unreadable or does not fit.
            After a failed push, what was prepared stays.
    """
    check_output(options.output)
    check_options(options)
    if options.push_to_hub is not None:
        check_push(options.push_to_hub, private=options.private)
    raw = raw or RawData(options)
    plan = make_plan(options, raw)
    for note in plan.notes:
        say(note)
    classes = raw.classes
    reader = SampleReader(len(classes.names), options.max_side)
    splits = plan.splits()

    def read(split: str, index: int) -> Row:
        item = splits[split][index]
        # Masks of images chosen to be unlabelled are checked too: another draw may use them.
        return reader.row(plan.source_of(split), item, split != "unlabeled", not raw.is_scanned(item))

    description = _describe(options, plan, classes)
    written = write_prepared(
        options.output, description, plan.ids(), read, fingerprint=fingerprint_of(options, plan), say=say
    )
    for note in reader.notes():
        say(note)
    if not plan.covered:
        held = written.splits["labeled"].ids
        absent = [name for class_id, name in enumerate(classes.names) if class_id not in held]
        if absent:
            say(f"{len(absent)} classes have no pixel in the labelled images: {some(absent, 8)}")
    address = None
    if options.push_to_hub is not None:
        address = push_prepared(options.output, options.push_to_hub, private=options.private, say=say)
    return Report(description.name, classes.names, written.splits, written.split_hash, address)


def _describe(options: PrepareOptions, plan: Plan, classes: Classes) -> Description:
    """Gather what is written beside the rows."""
    return Description(
        name=options.name or plan.source.name,
        title=plan.source.title,
        classes=classes.names,
        palette=classes.palette or default_palette(len(classes.names)),
        ignore_index=IGNORE_INDEX,
        protocol=plan.source.protocol,
        note=plan.source.note,
        origin=_origin(options, plan),
        max_side=options.max_side,
    )


def _origin(options: PrepareOptions, plan: Plan) -> dict[str, Any]:
    """Return how the splits were made, for splits.json; no path of this machine goes into it."""
    labeled = "a list of ids" if options.labeled_ids is not None else options.labeled or "all"
    origin = {
        "source": options.kind,
        "seed": options.seed,
        "labeled": labeled,
        "draw": options.draw,
        "group_by": options.group_by,
        "validation": plan.validation_from,
        "version": version("s4mim-hf"),
    }
    return origin if options.protocol is None else {**origin, "label_protocol": options.protocol}


def fingerprint_of(options: PrepareOptions, plan: Plan) -> str:
    """Return sha256 over what the rows are made from: the options, the classes, and size and time of every file.

    A call that was interrupted goes on only where this is the same.
    """
    digest = hashlib.sha256()
    for field in fields(options):
        if field.name not in _NOT_WRITTEN:
            value = getattr(options, field.name)
            digest.update(f"{field.name}={value!r} {_stamp(value)}\n".encode())
    digest.update(files_hash(plan).encode())
    return digest.hexdigest()


def files_hash(plan: Plan) -> str:
    """Return sha256 over a plan's ids and classes, and size and time of every file; the same where all was moved."""
    digest = hashlib.sha256()
    for source in dict.fromkeys(plan.source_of(split) for split in plan.splits()):
        digest.update(f"{source.classes} {[(path.name, _stamp(path)) for path in source.depends_on()]}\n".encode())
    for items in plan.splits().values():
        for item in items:
            digest.update(f"{item.id} {_stamp(item.image)} {_stamp(item.label)}\n".encode())
    return digest.hexdigest()


def _stamp(value: Any) -> str:
    """Return the size and time of a file, or anything else as text."""
    if not isinstance(value, Path):
        return repr(value)
    try:
        status = value.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"
