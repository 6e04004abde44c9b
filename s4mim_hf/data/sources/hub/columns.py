"""Choose splits and columns of a data set by their names and types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from s4mim_hf.errors import InputError, nearest

_TRAIN = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "dev", "test", "testing")
_IMAGES = ("image", "images", "img", "pixel_values", "picture", "photo", "input_image")
_LABELS = (
    "label", "labels", "mask", "masks", "annotation", "annotations", "annotated", "segmentation", "segmentation_mask",
    "semantic_segmentation", "semantic_mask", "semantic", "seg", "seg_mask", "label_mask", "gt", "ground_truth",
    "target",
)  # fmt: skip


def choose_splits(names: Sequence[str], train: str | None, validation: str | None) -> tuple[list[str], list[str]]:
    """Return the split to train on, then the one to validate on where there is one, and notes.

    Args:
        names: the splits of the data set.
        train: the one asked for; None: "train", or the only one.
        validation: the one asked for; None: "validation", else "val", else "test"; "none": no one.

    Raises:
        InputError: a split is not there, or both are the same.
    """
    train = _split(names, train, "--train-split", names if len(names) == 1 else _TRAIN)
    if train is None:
        raise InputError(f"--train-split is needed: the data set has the splits {', '.join(names)}")
    notes = []
    if validation == "none" and "none" not in names:
        chosen = None
    else:
        chosen = _split(names, validation, "--validation-split", _VALIDATION)
        if chosen == train and validation is not None:
            raise InputError(f"--validation-split {validation} is the split that is trained on; give another, or none")
        chosen = None if chosen == train else chosen
    if chosen is not None and validation is None and chosen != "validation":
        notes.append(f"validation is the split {chosen!r}; see --validation-split")
    used = [train] if chosen is None else [train, chosen]
    left_out = [name for name in names if name not in used]
    if left_out:
        notes.append(f"splits that are left out: {', '.join(left_out)}")
    return used, notes


def _split(names: Sequence[str], asked: str | None, option: str, usual: Sequence[str]) -> str | None:
    if asked is None:
        return next((name for name in usual if name in names), None)
    if asked not in names:
        raise InputError(f"{option} {asked!r} is no split of the data set, which has {', '.join(names)}")
    return asked


def is_picture(feature: Any) -> bool:
    """Return whether a column holds pictures."""
    return isinstance(feature, datasets.Image)


def is_array(feature: Any) -> bool:
    """Return whether a column holds arrays of two dimensions."""
    if isinstance(feature, datasets.Array2D):
        return True
    depth = 0
    while isinstance(feature, datasets.List | datasets.LargeList):
        feature, depth = feature.feature, depth + 1
    return depth == 2 and isinstance(feature, datasets.Value | datasets.ClassLabel)


def is_bytes(feature: Any) -> bool:
    """Return whether a column may hold the bytes of picture files, without saying so."""
    if isinstance(feature, dict):
        return "bytes" in feature
    return isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")


def choose_columns(features: Mapping[str, Any], image: str | None, label: str | None, source: str) -> tuple[str, str]:
    """Return the column of pictures and that of masks.

    Args:
        features: the columns and their types.
        image: the one asked for; None: the only column of pictures besides the masks', or the one that is called so.
        label: the one asked for; None: the one that is called so, or the only other column of pictures.
        source: the data set, for messages.

    Raises:
        InputError: a column is not there, is not what it should be, or there is none or more than one to choose from.
    """
    columns = ", ".join(f"{name} ({describe(feature)})" for name, feature in features.items())
    if image is not None:
        _check(features, image, "--image-column", columns, arrays=False)
    if label is not None:
        _check(features, label, "--label-column", columns, arrays=True)
    pictures = [name for name, feature in features.items() if is_picture(feature)]
    if label is None:
        label = _only_label(features, [name for name in pictures if name != image])
    if label is None or label == image:
        raise InputError(f"--label-column is needed for {source}: which of its columns holds the masks? ({columns})")
    if image is None:
        image = _only_image([name for name in pictures if name != label], source, columns)
    return image, label


def choose_image_column(features: Mapping[str, Any], image: str | None, source: str) -> str:
    """Return the column of pictures; masks, which need not be there, are known by their names.

    Args:
        features: the columns and their types.
        image: the one asked for; None: the only column of pictures that is not called like masks, or else the one that
            is called like pictures.
        source: the data set, for messages.

    Raises:
        InputError: the column is not there or holds no pictures, or there is none or more than one to choose from.
    """
    columns = ", ".join(f"{name} ({describe(feature)})" for name, feature in features.items())
    if image is not None:
        _check(features, image, "--image-column", columns, arrays=False)
        return image
    pictures = [name for name, feature in features.items() if is_picture(feature) and name.lower() not in _LABELS]
    return _only_image(pictures, source, columns)


def _only_image(pictures: Sequence[str], source: str, columns: str) -> str:
    """Return the one column that is left, or the one that is called like pictures."""
    called_so = [name for name in pictures if name.lower() in _IMAGES]
    if len(pictures) != 1 and len(called_so) != 1:
        found = "which of its columns holds the pictures?" if pictures else "none of its columns holds pictures"
        raise InputError(f"--image-column is needed for {source}: {found} ({columns})")
    return pictures[0] if len(pictures) == 1 else called_so[0]


def _only_label(features: Mapping[str, Any], pictures: Sequence[str]) -> str | None:
    """Return the one column that may hold the masks by its name, or else by its type."""
    called_so = [
        name
        for name, feature in features.items()
        if name.lower() in _LABELS and (name in pictures or is_array(feature))
    ]
    if len(called_so) == 1:
        return called_so[0]
    others = [name for name in pictures if name.lower() not in _IMAGES]
    return others[0] if not called_so and len(others) == 1 else None


def _check(features: Mapping[str, Any], name: str, option: str, columns: str, arrays: bool) -> None:
    if name not in features:
        raise InputError(f"{option} {name!r} is no column of the data set{nearest(name, features)} ({columns})")
    feature = features[name]
    if not (is_picture(feature) or is_bytes(feature) or (arrays and is_array(feature))):
        expected = "masks, as pictures or as arrays of two dimensions" if arrays else "pictures"
        raise InputError(
            f"{option} {name!r} is of type {describe(feature)}, but should hold {expected}; choose another ({columns})"
        )


def describe(feature: Any) -> str:
    """Return the type of a column in a word."""
    if isinstance(feature, datasets.Value):
        return str(feature.dtype)
    if isinstance(feature, datasets.List | datasets.LargeList):
        return f"list of {describe(feature.feature)}"
    return "record" if isinstance(feature, dict) else type(feature).__name__


def names_of_ids(path: Path) -> dict[int, str]:
    """Read {"0": NAME, ...} of an id2label.json.

    Raises:
        InputError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return {int(key): str(name) for key, name in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f'{path} is no {{"0": NAME, ...}} that can be read ({error}); correct it, or give --classes'
        ) from None
