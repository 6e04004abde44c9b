"""Data sets that are known by name: their classes, colours and how they are evaluated."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[int, int, int]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before any file of it is read.

    Attributes:
        name: the name on the command line and of the recipe.
        title: the name in prose.
        classes: class names; class k is id k of the masks.
        palette: the usual colour of each class, (R, G, B) in 0 .. 255.
        protocol: how published numbers are measured, in words.
        note: licence and citation.
        ignore_index: the id of pixels that no loss and no score counts.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    protocol: str
    note: str
    ignore_index: int = 255

    def __post_init__(self) -> None:
        assert len(self.classes) == len(self.palette), "one colour per class"


_CAMVID: dict[str, Color] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}

_MSRC21: dict[str, Color] = {
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

CATALOG: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="camvid",
            title="CamVid (SegNet's split, 480x360, 11 classes)",
            classes=tuple(_CAMVID),
            palette=tuple(_CAMVID.values()),
            protocol="whole image at original size, mean IoU over 11 classes, unlabelled pixels (255) ignored",
            note="For research use. Brostow, Fauqueur, Cipolla: Semantic object classes in video, "
            "Pattern Recognition Letters 30, 2009; split of Badrinarayanan, Kendall, Cipolla: SegNet, 2017.",
        ),
        DatasetInfo(
            name="msrc21",
            title="MSRC-21 (21 classes)",
            classes=tuple(_MSRC21),
            palette=tuple(_MSRC21.values()),
            protocol="whole image at original size, mean IoU over 21 classes, void pixels (255) ignored; "
            "published numbers use another split",
            note="For research use. Shotton, Winn, Rother, Criminisi: TextonBoost, ECCV 2006 "
            "(Microsoft Research Cambridge object recognition image database, v2).",
        ),
    )
}


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Return Pascal VOC's colours for ids 0 .. num_classes-1 (class 0 is black).

    The bits of the id are dealt to R, G, B in turn, filling each channel from its highest bit.

    Raises:
        ValueError: `num_classes` is not in 0 .. 256, where colours would repeat.
    """
    if not 0 <= num_classes <= 256:
        raise ValueError(f"there are 256 distinct colours, but {num_classes} classes were asked for")
    palette = []
    for class_id in range(num_classes):
        red = green = blue = 0
        for position in range(8):
            bits = class_id >> (3 * position)
            red |= (bits & 1) << (7 - position)
            green |= ((bits >> 1) & 1) << (7 - position)
            blue |= ((bits >> 2) & 1) << (7 - position)
        palette.append((red, green, blue))
    return tuple(palette)
