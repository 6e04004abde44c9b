"""Cityscapes: 19 classes out of the 34 ids that its label files hold."""

from __future__ import annotations

from s4mim_hf.data.catalog.info import Color, DatasetInfo

# Every id of a labelIds file: name, the class that it is trained and scored as (None: ignored), and the class's colour.
_IDS: tuple[tuple[str, int | None, Color | None], ...] = (
    ("unlabeled", None, None),
    ("ego vehicle", None, None),
    ("rectification border", None, None),
    ("out of roi", None, None),
    ("static", None, None),
    ("dynamic", None, None),
    ("ground", None, None),
    ("road", 0, (128, 64, 128)),
    ("sidewalk", 1, (244, 35, 232)),
    ("parking", None, None),
    ("rail track", None, None),
    ("building", 2, (70, 70, 70)),
    ("wall", 3, (102, 102, 156)),
    ("fence", 4, (190, 153, 153)),
    ("guard rail", None, None),
    ("bridge", None, None),
    ("tunnel", None, None),
    ("pole", 5, (153, 153, 153)),
    ("polegroup", None, None),
    ("traffic light", 6, (250, 170, 30)),
    ("traffic sign", 7, (220, 220, 0)),
    ("vegetation", 8, (107, 142, 35)),
    ("terrain", 9, (152, 251, 152)),
    ("sky", 10, (70, 130, 180)),
    ("person", 11, (220, 20, 60)),
    ("rider", 12, (255, 0, 0)),
    ("car", 13, (0, 0, 142)),
    ("truck", 14, (0, 0, 70)),
    ("bus", 15, (0, 60, 100)),
    ("caravan", None, None),
    ("trailer", None, None),
    ("train", 16, (0, 80, 100)),
    ("motorcycle", 17, (0, 0, 230)),
    ("bicycle", 18, (119, 11, 32)),
)

TRAIN_IDS: tuple[int | None, ...] = tuple(train_id for _, train_id, _ in _IDS)
"""The class of each id 0 .. 33 of a labelIds file; None: ignored. No file holds the licence plate's id -1."""

_CLASSES = tuple((name, color) for name, _, color in _IDS if color is not None)

CITYSCAPES = DatasetInfo(
    name="cityscapes",
    title="Cityscapes (fine annotations, 19 classes)",
    classes=tuple(name for name, _ in _CLASSES),
    palette=tuple(color for _, color in _CLASSES),
    protocol="original size (2048x1024), whole image or sliding window, mean IoU over 19 classes, the 15 other ids "
    "ignored, on the 500 images of val",
    note="Cityscapes licence: non-commercial, no redistribution of the data. Cordts et al.: The Cityscapes Dataset for "
    "Semantic Urban Scene Understanding, CVPR 2016.",
    reference="https://github.com/mcordts/cityscapesScripts (cityscapesscripts/helpers/labels.py: ids, train ids, "
    "colours; README.md: layout)",
    published_counts={"train": 2975, "val": 500, "test": 1525},
)
