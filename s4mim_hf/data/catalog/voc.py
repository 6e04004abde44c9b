"""Pascal VOC 2012: background and 20 objects."""

from __future__ import annotations

from s4mim_hf.data.catalog.info import DatasetInfo, LabelStatistics, default_palette

_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

VOC = DatasetInfo(
    name="voc",
    title="Pascal VOC 2012",
    classes=_CLASSES,
    palette=default_palette(len(_CLASSES)),
    protocol="whole image at original size, mean IoU over 21 classes (background counts), borders of objects (255) "
    "ignored, on the 1,449 images of val",
    note="Flickr terms of use; for research. Everingham et al.: The Pascal Visual Object Classes Challenge: a "
    "Retrospective, IJCV 111, 2015; labels beyond train: Hariharan et al.: Semantic Contours from Inverse Detectors "
    "(SBD), ICCV 2011.",
    reference="http://host.robots.ox.ac.uk/pascal/VOC/voc2012 (development kit: classes, ids, colours, splits); "
    "http://home.bharathh.info/pubs/codes/SBD (SBD)",
    published_counts={"train": 1464, "val": 1449, "trainaug": 10582},
    statistics=LabelStatistics(
        counted="the 1,464 masks of train, with their borders, in a public copy of SegmentationClassAug",
        images=1464,
        pixels=(
            *(182014429, 1780580, 758311, 2232247, 1514260, 1517186, 4375622, 3494749, 6752515, 2861091, 2060925),
            *(3381632, 4344951, 2283739, 2888641, 11995853, 1670340, 2254463, 3612229, 3984238, 2349235),
            14335564,
        ),
        images_with=(
            *(1460, 88, 65, 105, 78, 87, 78, 128, 131, 148, 64),
            *(82, 121, 68, 81, 442, 82, 63, 93, 83, 83),
            1464,
        ),
    ),
)
