"""MSRC-21: 21 of the 23 classes of the Microsoft Research Cambridge object recognition image database, v2."""

from __future__ import annotations

from s4mim_hf.data.catalog.info import Color, DatasetInfo, LabelStatistics

_CLASSES: dict[str, Color] = {
    "building": (128, 0, 0),
    "grass": (0, 128, 0),
    "tree": (128, 128, 0),
    "cow": (0, 0, 128),
    "sheep": (0, 128, 128),
    "sky": (128, 128, 128),
    "aeroplane": (192, 0, 0),
    "water": (64, 128, 0),
    "face": (192, 128, 0),
    "car": (64, 0, 128),
    "bicycle": (192, 0, 128),
    "flower": (64, 128, 128),
    "sign": (192, 128, 128),
    "bird": (0, 64, 0),
    "book": (128, 64, 0),
    "chair": (0, 192, 0),
    "road": (128, 64, 128),
    "cat": (0, 192, 128),
    "dog": (128, 192, 128),
    "body": (64, 64, 0),
    "boat": (192, 64, 0),
}

VOID_COLORS: dict[str, Color] = {"void": (0, 0, 0), "horse": (128, 0, 128), "mountain": (64, 0, 0)}
"""Colours of the original masks that no class has: unlabelled, and two classes too rare to be learnt.

The database's own notes advise to leave horse and mountain out; all published 21-class numbers do.
"""

MSRC21 = DatasetInfo(
    name="msrc21",
    title="MSRC-21 (21 classes)",
    classes=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    protocol="whole image at original size, mean IoU over 21 classes, void pixels (255) ignored; "
    "published numbers use another split",
    note="For research use. Shotton, Winn, Rother, Criminisi: TextonBoost, ECCV 2006 "
    "(Microsoft Research Cambridge object recognition image database, v2).",
    reference="https://www.microsoft.com/en-us/research/project/image-understanding (images and masks); "
    "http://jamie.shotton.org/work/data/TextonBoostSplits.zip (published split)",
    published_counts={"images": 591, "Train.txt": 276, "Validation.txt": 59, "Test.txt": 256},
    statistics=LabelStatistics(
        counted="355 label maps, the training images of a seeded, stratified split of our own",
        images=355,
        pixels=(
            *(1865220, 4547206, 1679353, 465008, 354561, 1900586, 216938, 1652207, 311868, 517227, 636726),
            *(510177, 410459, 220826, 892281, 305104, 2143572, 261503, 328732, 353378, 124752),
            5086636,
        ),
        images_with=(
            *(88, 148, 81, 29, 20, 98, 18, 47, 35, 28, 20),
            *(20, 21, 23, 21, 18, 99, 14, 18, 39, 19),
            259,
        ),
    ),
)
