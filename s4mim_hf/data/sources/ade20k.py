"""ADE20K as the scene parsing challenge publishes it.

ADEChallengeData2016/images/{training,validation}/ADE_{train,val}_00000001.jpg
ADEChallengeData2016/annotations/{training,validation}/ADE_{train,val}_00000001.png       0 other, 1 .. 150 classes

Here class k is id k - 1, and other objects are ignored (255), as everybody reads them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Item, Listing, SampleError, Source
from s4mim_hf.data.sources.folder import require_labels
from s4mim_hf.data.sources.pairs import paired_items
from s4mim_hf.data.sources.reading import read_class_map
from s4mim_hf.errors import InputError, some

_INFO = CATALOG["ade20k"]
_OTHER = 0
_FOLDER = "ADEChallengeData2016"


class Ade20kSource(Source):
    """The 150 classes of the scene parsing challenge.

    Args:
        root: the folder ADEChallengeData2016.
        name: what the data set is called.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.title = _INFO.title
        self.classes = Classes(_INFO.classes, _INFO.palette)
        self.protocol = _INFO.protocol
        self.note = _INFO.note

    def listing(self) -> Listing:
        """Find the images of training and validation; see `Source.listing`.

        Raises:
            InputError: a folder is missing or empty, an annotation has no image, or one of validation is missing.
        """
        training, validation = (self._items(split) for split in ("training", "validation"))
        require_labels(validation, f"{self.root / 'images' / 'validation'}")
        notes = _INFO.count_notes({"training": len(training), "validation": len(validation)})
        bare = [item.id for item in training if item.label is None]
        if bare:
            notes.append(f"{len(bare)} training images have no annotation and can only be unlabelled: {some(bare)}")
        return Listing(training, validation, notes=notes)

    def read_label(self, item: Item) -> np.ndarray:
        """Read an annotation, class k as id k - 1; see `Source.read_label`."""
        assert isinstance(item.label, Path)
        ids = read_class_map(item.label)
        highest = len(_INFO.classes)
        if ids.max(initial=0) > highest:
            # Annotations that somebody has reduced already have 255 for other objects, and would be one class off.
            odd = ", ".join(map(str, np.unique(ids[ids > highest]).tolist()))
            raise SampleError(
                f"masks hold ids above {highest} (published: 0 for other objects, 1 to {highest}); "
                "take the annotations as they are published, not reduced to 0 .. 149",
                odd,
            )
        return np.where(ids == _OTHER, IGNORE_INDEX, ids - 1)

    def _items(self, split: str) -> list[Item]:
        return paired_items(self.root / "images" / split, self.root / "annotations" / split, f"{_FOLDER}.zip")


def open_ade20k(options: PrepareOptions) -> Source:
    """Open ADE20K: --source is ADEChallengeData2016 or the folder above.

    Raises:
        InputError: the folder has not this layout.
    """
    folder = options.folder()
    root = next((each for each in (folder, folder / _FOLDER) if (each / "images" / "training").is_dir()), None)
    if root is None:
        raise InputError(
            f"there is no images/training in {folder} or in {_FOLDER} below it; --source of 'ade20k' is {_FOLDER}, "
            "the scene parsing challenge's form of ADE20K (not the full data set with *_seg.png)"
        )
    return Ade20kSource(root, options.name or _INFO.name)
