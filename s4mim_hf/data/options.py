"""What to prepare, and which kind of source takes which of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from s4mim_hf.errors import InputError, nearest

DRAWS = ("plain", "balanced")
PROTOCOLS = ("classic", "blended")


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare, as on the command line of `scripts/prepare_data.py`.

    Attributes:
        kind: the form of the source, a key of `KINDS`.
        output: folder to write, new or empty.
        source: folder of the raw data; for "hub" a repository's id, or a path that `datasets.load_dataset` reads.
        name: what the data set is called; None: the catalog's name, or the source folder's.
        labeled: how many training images keep their masks ("1/8", "92", "all"); None: all, or those of `labeled_ids`.
        labeled_ids: file or http(s) URL with the ids that keep their masks, instead of a draw.
        unlabeled_ids: likewise with the ids that are used without; None: all others.
        validation: "0.2", "50", a folder laid out as the source, or "none"; None: the source's own validation images
            where it has some, else 0.2.
        classes: class names in the order of their ids; None: those that the source names.
        seed: of the labelled draw.
        draw: "plain" (all images alike) or "balanced" (always the class that has the fewest images so far).
        group_by: regular expression whose first group (or whole match) in an image's id names the group, such as a
            video, that must stay on one side; None: every image stands by itself.
        max_side: longest side in pixels that pictures are stored with; None: as they are.
        protocol: voc: "classic" (labels of train only) or "blended" (labels of train and SBD).
        sbd: voc: folder with the labels of SBD.
        annotations: folder: LabelMe files or a COCO export instead of masks/; coco: an instances file.
        color_table: folder, hub: file that gives the class of each colour of masks in RGB.
        image_column: hub: the column with the pictures.
        label_column: hub: the column with the masks.
        train_split: hub: the split to train on.
        validation_split: hub: the split to validate on.
        label_map: hub: file that gives the new id, or the name, of each old id.
        config_name: hub: the configuration of the data set.
        push_to_hub: repository's id to push the prepared folder to.
        private: whether that repository is private where it is new.
    """

    kind: str
    output: Path
    source: str | None = None
    name: str | None = None
    labeled: str | None = None
    labeled_ids: str | None = None
    unlabeled_ids: str | None = None
    validation: str | None = None
    classes: Sequence[str] | None = None
    seed: int = 0
    draw: str = "plain"
    group_by: str | None = None
    max_side: int | None = None
    protocol: str | None = None
    sbd: Path | None = None
    annotations: Path | None = None
    color_table: Path | None = None
    image_column: str | None = None
    label_column: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    label_map: Path | None = None
    config_name: str | None = None
    push_to_hub: str | None = None
    private: bool = True

    def folder(self) -> Path:
        """Return the source as an existing folder.

        Raises:
            InputError: there is no --source, or it is no folder.
        """
        if self.source is None:
            raise InputError(f"--source is needed for {self.kind!r}: {KINDS[self.kind].source}")
        path = Path(self.source)
        if not path.is_dir():
            found = "is no folder" if path.exists() else "is missing"
            raise InputError(f"the folder {path} {found}; --source of {self.kind!r} is {KINDS[self.kind].source}")
        return path


@dataclass(frozen=True)
class Kind:
    """One form of source on the command line.

    Attributes:
        summary: what it is, in a few words.
        source: what --source is, after "is".
        takes: the options that it has beside those of all.
    """

    summary: str
    source: str
    takes: frozenset[str] = frozenset()


# Every kind has these; whatever is in neither is refused.
EVERY_KIND = frozenset({"kind", "output", "name", "seed", "max_side", "push_to_hub", "private"})
EVERY_SOURCE = frozenset({"source", "labeled", "labeled_ids", "unlabeled_ids", "validation", "draw", "group_by"})

KINDS: dict[str, Kind] = {
    "folder": Kind(
        "your own images: masks as PNG, LabelMe or COCO JSON",
        "a folder with images/ and masks/ (or images/ and --annotations)",
        EVERY_SOURCE | {"classes", "annotations", "color_table"},
    ),
    "camvid": Kind(
        "CamVid",
        "CamVid as SegNet's repository has it, the original with masks in 32 colours, or images/ and masks/",
        EVERY_SOURCE,
    ),
    "msrc21": Kind(
        "MSRC-21", "MSRC_ObjCategImageDatabase_v2, or a folder with images/ and masks/ of class ids", EVERY_SOURCE
    ),
    "voc": Kind(
        "Pascal VOC 2012, with SBD's labels or without",
        "the folder VOCdevkit, or VOC2012 in it",
        EVERY_SOURCE | {"protocol", "sbd"},
    ),
    "cityscapes": Kind("Cityscapes", "the folder with leftImg8bit/ and gtFine/", EVERY_SOURCE),
    "coco": Kind(
        "COCO",
        "the folder with train2017/, val2017/ and their annotations",
        EVERY_SOURCE | {"annotations"},
    ),
    "ade20k": Kind("ADE20K (150 classes)", "the folder ADEChallengeData2016", EVERY_SOURCE),
    "hub": Kind(
        "a data set of the Hugging Face Hub",
        "its id, such as USER/NAME, or a local path that datasets.load_dataset reads",
        EVERY_SOURCE
        | {
            "classes",
            "image_column",
            "label_column",
            "train_split",
            "validation_split",
            "label_map",
            "color_table",
            "config_name",
        },
    ),
    "synthetic": Kind("the embedded scenes", "not needed"),
}


def option_name(field: str) -> str:
    """Return a field of `PrepareOptions` as the command line calls it."""
    return f"--{field.replace('_', '-')}"


def check_options(options: PrepareOptions) -> None:
    """Refuse an unknown kind, options that the kind does not have, and values that none has.

    Raises:
        InputError: names the option, and what to do.
    """
    if options.kind not in KINDS:
        raise InputError(f"{options.kind!r} is no known data set{nearest(options.kind, KINDS)}")
    for field in fields(options):
        if not takes(options.kind, field.name) and getattr(options, field.name) != field.default:
            raise InputError(refusal(options.kind, field.name, option_name(field.name)))
    if options.push_to_hub is None and not options.private:
        raise InputError("--public belongs to --push-to-hub USER/NAME; give both, or neither")
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, but {options.seed} was given")
    _check_choice("--draw", options.draw, DRAWS)
    if options.protocol is not None:
        _check_choice("--protocol", options.protocol, PROTOCOLS)
    if options.max_side is not None and options.max_side < 1:
        raise InputError(f"--max-side must be at least 1 pixel, but {options.max_side} was given")


def takes(kind: str, field: str) -> bool:
    """Return whether a kind has an option."""
    return field in EVERY_KIND or field in KINDS[kind].takes


def refusal(kind: str, field: str, option: str) -> str:
    """Return the sentence for an option that a kind does not have."""
    if kind == "synthetic":
        return f"{option} is not for synthetic data, which has its own splits; leave it out"
    having = [name for name in KINDS if takes(name, field)]
    return f"{option} is not for {kind!r}, only for {', '.join(having)}; leave it out"


def _check_choice(option: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{option} is {value!r}{nearest(str(value), choices)} (choose from {', '.join(choices)})")
