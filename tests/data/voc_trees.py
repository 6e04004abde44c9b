"""Miniatures of Pascal VOC 2012 and SBD in their published layouts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 8)
# The development kit's colour of the ids that the miniature uses; all other entries of its palette stay black.
PALETTE = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}


def seed_of(image_id: str) -> int:
    """Return a seed that is the same in every process."""
    return int.from_bytes(image_id.encode(), "little") % 2**32


def voc_ids(image_id: str) -> np.ndarray:
    """Return what VOC's mask of an image holds, uint8 (8, 12): objects and their borders."""
    rng = np.random.default_rng(seed_of(image_id))
    return rng.choice(np.array(list(PALETTE), np.uint8), SIZE[::-1])


def sbd_ids(image_id: str) -> np.ndarray:
    """Return what SBD's map of an image holds: no borders, and other pixels than VOC's."""
    rng = np.random.default_rng(seed_of(image_id) + 1)
    return rng.integers(0, 21, SIZE[::-1]).astype(np.uint8)


def write_picture(path: Path, image_id: str) -> None:
    """Write a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed_of(image_id))
    Image.fromarray(rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)).save(path)


def write_ids(path: Path, ids: np.ndarray, colored: bool = False) -> None:
    """Write a class map as a grey PNG, or as a palette PNG with VOC's colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    if colored:
        image.putpalette(b"".join(bytes(PALETTE.get(class_id, (0, 0, 0))) for class_id in range(256)))
        assert image.mode == "P"
    image.save(path)


def write_voc(folder: Path, train: Iterable[str], val: Iterable[str], others: Iterable[str] = ()) -> Path:
    """Write VOCdevkit/VOC2012 below `folder` as the archive unpacks it, and return VOC2012."""
    root = folder / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    train, val = list(train), list(val)
    for name, ids in (("train", train), ("val", val), ("trainval", sorted(train + val))):
        (lists / f"{name}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    for image_id in (*train, *val, *others):
        write_picture(root / "JPEGImages" / f"{image_id}.jpg", image_id)
    for image_id in (*train, *val):
        write_ids(root / "SegmentationClass" / f"{image_id}.png", voc_ids(image_id), colored=True)
    return root


def write_sbd(folder: Path, ids: Iterable[str]) -> Path:
    """Write benchmark_RELEASE below `folder`: MATLAB structs with the published fields; return it."""
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    root = folder / "benchmark_RELEASE" / "dataset"
    (root / "cls").mkdir(parents=True)
    ids = list(ids)
    for image_id in ids:
        write_picture(root / "img" / f"{image_id}.jpg", image_id)
        boundaries = np.empty((20, 1), dtype=object)
        for class_id in range(20):
            boundaries[class_id, 0] = csc_matrix(SIZE[::-1], dtype=bool)
        segmentation = sbd_ids(image_id)
        present = np.unique(segmentation[segmentation > 0]).reshape(-1, 1)
        struct = {"Boundaries": boundaries, "Segmentation": segmentation, "CategoriesPresent": present}
        savemat(root / "cls" / f"{image_id}.mat", {"GTcls": struct}, do_compression=True)
    for name, part in (("train", ids[::2]), ("val", ids[1::2])):
        (root / f"{name}.txt").write_text("".join(f"{image_id}\n" for image_id in part))
    return root.parent
