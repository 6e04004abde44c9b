"""Pascal VOC 2012 as it unpacks, and beside it the labels of SBD, which make trainaug of its train.

VOC2012/JPEGImages/ID.jpg                                17,125 pictures, most of them without masks
VOC2012/SegmentationClass/ID.png                         palette pictures: 0 background, 1 .. 20, 255 borders of objects
VOC2012/ImageSets/Segmentation/{train,val}.txt           1,464 and 1,449 ids
benchmark_RELEASE/dataset/{img,cls}/ID.{jpg,mat}         SBD: 11,355 label maps without borders, some of them of val
VOC2012/SegmentationClassAug/ID.png                      or both merged: VOC's masks of train and val, SBD's elsewhere

Everybody's trainaug is train and SBD without val: 10,582 images. Two protocols are in use for which of them are
labelled. *classic* chooses among the 1,464 of train; *blended* among all 10,582, of which 9,118 have SBD's coarser map
only. Where both have one, VOC's own is used: so does the merged folder that the peers train with (all of its masks of
train have VOC's borders, none of the others), which they keep under the name SegmentationClass.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import Classes, Item, Listing, SampleError, Source
from s4mim_hf.data.sources.folder import files_by_id, require_folder
from s4mim_hf.data.sources.reading import read_class_map, reason
from s4mim_hf.data.splits import read_id_list
from s4mim_hf.errors import InputError, some

_INFO = CATALOG["voc"]
_ROOTS = (".", "VOC2012", "VOCdevkit/VOC2012")
_SBD_ROOTS = (".", "dataset", "benchmark_RELEASE/dataset")
_PROTOCOLS = {
    "classic": "labelled images are drawn from the 1,464 of train (classic protocol)",
    "blended": "labelled images are drawn from train and SBD (blended protocol)",
    "listed": "labelled images are those of a list",
}


@dataclass(frozen=True)
class _MoreLabels:
    """Label maps beyond train: where they lie, in words, the file of each id, and where their pictures are."""

    where: str
    labels: Mapping[str, Path] = field(default_factory=dict)
    pictures: Path | None = None


class VocSource(Source):
    """VOC 2012, with the labels of SBD or without.

    Args:
        root: the folder VOC2012.
        more: label maps of other images than train's and val's.
        protocol: "classic", "blended", or "listed": every image may be labelled, because a list says which are.
        all_pictures: whether all pictures but val's are training images, not only those of train and SBD: a list then
            says which are used without labels, and needs no label files for it.
        name: what the data set is called.
    """

    def __init__(self, root: Path, more: _MoreLabels, protocol: str, all_pictures: bool, name: str) -> None:
        self.root = root
        self.more = more
        self.name = name
        self.title = _INFO.title
        self.classes = Classes(_INFO.classes, _INFO.palette)
        self.protocol = f"{_INFO.protocol}; {_PROTOCOLS[protocol]}"
        self.note = _INFO.note
        self._labeled_from_train = protocol == "classic"
        self._all_pictures = all_pictures

    def listing(self) -> Listing:
        """Find the images of train, val and SBD; see `Source.listing`.

        Raises:
            InputError: a folder or list is missing, train and val share an id, or an id has no picture or mask.
        """
        own, _ = files_by_id(self.root / "JPEGImages")
        masks = _files(self.root / "SegmentationClass", ".png")
        train, val = (_read_split(self.root, split) for split in ("train", "val"))
        both = set(train) & set(val)
        if both:
            raise InputError(f"train.txt and val.txt of {self.root} share {len(both)} ids: {some(sorted(both))}")
        for split, ids in (("train.txt", train), ("val.txt", val)):
            _require(ids, own, split, self.root / "JPEGImages")
            _require(ids, masks, split, self.root / "SegmentationClass")
        # A merged folder has SBD's maps beside VOC's own.
        labels = {**self.more.labels, **masks}
        trainaug = (set(train) | set(labels)) - set(val)
        pictures: dict[str, Path | str] = {**self._other_pictures(trainaug - set(own)), **own}
        chosen = set(pictures) - set(val) if self._all_pictures else trainaug
        offered = set(train) if self._labeled_from_train else set(labels)
        return Listing(
            training=[Item(each, pictures[each], labels[each] if each in offered else None) for each in sorted(chosen)],
            validation=[Item(each, pictures[each], masks[each]) for each in sorted(val)],
            labelable=frozenset(train) if self._labeled_from_train else None,
            notes=self._notes(train, val, trainaug),
        )

    def read_label(self, item: Item) -> np.ndarray:
        """Read a mask of VOC or a map of SBD; see `Source.read_label`."""
        assert isinstance(item.label, Path)
        return _read_sbd(item.label) if item.label.suffix == ".mat" else read_class_map(item.label)

    def _other_pictures(self, ids: Collection[str]) -> dict[str, Path]:
        """Return SBD's own copies of pictures that JPEGImages lacks."""
        if not ids:
            return {}
        folder = self.more.pictures
        copies = {} if folder is None else _files(folder, ".jpg")
        _require(sorted(ids), copies, self.more.where, folder or self.root / "JPEGImages")
        return {each: copies[each] for each in ids}

    def _notes(self, train: Collection[str], val: Collection[str], trainaug: Collection[str]) -> list[str]:
        notes = _INFO.count_notes({"train": len(train), "val": len(val)})
        if len(trainaug) > len(set(train)):
            notes += _INFO.count_notes({"trainaug": len(trainaug)})
            more = len(trainaug) - len(set(train))
            use = "are not used" if self._labeled_from_train else "are used where VOC has none of its own"
            notes.append(f"{self.more.where} adds {more} training images; its labels {use}")
        elif not self._all_pictures:
            notes.append(
                f"without the labels of SBD (--sbd) the training images are the {len(train)} of train.txt; published "
                f"results use {_INFO.published_counts['trainaug']:,}, most of them as unlabelled images"
            )
        return notes


def open_voc(options: PrepareOptions) -> Source:
    """Open VOC 2012: --source is VOC2012, VOCdevkit or the folder above; --sbd where SBD's labels are.

    Raises:
        InputError: a folder is missing, options contradict each other, blended labels are asked for without SBD's, or
            SciPy is missing, which reads its .mat files.
    """
    folder = options.folder()
    root = _first(folder, _ROOTS, "JPEGImages")
    if root is None:
        raise InputError(
            f"there is no JPEGImages in {folder}, nor in VOC2012 or VOCdevkit/VOC2012 below it; --source of 'voc' is "
            "VOCdevkit as VOCtrainval_11-May-2012.tar unpacks"
        )
    if options.protocol is not None and options.labeled_ids is not None:
        raise InputError(
            f"--protocol {options.protocol} says which images a draw chooses from, and --labeled-ids names them; leave "
            "--protocol out"
        )
    for part in (root / "SegmentationClass", root / "ImageSets" / "Segmentation"):
        require_folder(part, "it is part of VOCtrainval_11-May-2012.tar, as the lists train.txt and val.txt are")
    more = _find_sbd(options.sbd) if options.sbd is not None else _beside(root)
    protocol = options.protocol or ("classic" if options.labeled_ids is None else "listed")
    if protocol == "blended" and not more.labels:
        raise InputError(
            f"--protocol blended labels images that only SBD has labels of, but {root} has none beside VOC's own; give "
            "--sbd benchmark_RELEASE, or put SegmentationClassAug into VOC2012"
        )
    reads_mat = protocol != "classic" and any(path.suffix == ".mat" for path in more.labels.values())
    if reads_mat and importlib.util.find_spec("scipy") is None:
        raise InputError(
            "the .mat files of SBD need SciPy, which is not installed; pip install scipy, or give --sbd a folder "
            "SegmentationClassAug with PNG files"
        )
    return VocSource(root, more, protocol, options.unlabeled_ids is not None, options.name or _INFO.name)


def _beside(root: Path) -> _MoreLabels:
    """Return the label maps in VOC2012 that are not those of its train and val."""
    if (root / "SegmentationClassAug").is_dir():
        return _MoreLabels("SegmentationClassAug", _files(root / "SegmentationClassAug", ".png"))
    own = {*_read_split(root, "train"), *_read_split(root, "val")}
    masks = _files(root / "SegmentationClass", ".png")
    return _MoreLabels("SegmentationClass", {each: path for each, path in masks.items() if each not in own})


def _find_sbd(folder: Path) -> _MoreLabels:
    """Return SBD's label maps, whatever folder of it is given.

    Raises:
        InputError: the folder is missing, or holds no label maps.
    """
    require_folder(folder, "--sbd is SBD's benchmark_RELEASE, or a folder SegmentationClassAug")
    root = _first(folder, _SBD_ROOTS, "cls")
    if root is not None:
        labels = _files(root / "cls", ".mat")
        found = _MoreLabels("SBD", labels, root / "img" if (root / "img").is_dir() else None)
    else:
        found = _MoreLabels(folder.name, _files(folder, ".png"))
    if not found.labels:
        raise InputError(
            f"--sbd {folder} holds no label maps; expected benchmark_RELEASE (dataset/cls/ID.mat) or a folder "
            "SegmentationClassAug (ID.png)"
        )
    return found


def _first(folder: Path, places: Iterable[str], child: str) -> Path | None:
    """Return the first of some places below `folder` that has the folder `child`."""
    return next((folder / place for place in places if (folder / place / child).is_dir()), None)


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files of a folder that end in `suffix`, by name without it."""
    names = (path for path in folder.iterdir() if path.suffix == suffix and not path.name.startswith("."))
    return {path.stem: path for path in names}


def _read_split(root: Path, split: str) -> list[str]:
    return read_id_list(root / "ImageSets" / "Segmentation" / f"{split}.txt")


def _require(ids: Iterable[str], files: Collection[str], where: str, folder: Path) -> None:
    """Refuse ids without a file."""
    missing = [each for each in ids if each not in files]
    if missing:
        raise InputError(
            f"{len(missing)} images of {where} have no file in {folder}: {some(missing)}; unpack the archive again"
        )


def _read_sbd(path: Path) -> np.ndarray:
    """Read the class map of one of SBD's .mat files as int64 ids (H, W).

    Raises:
        SampleError: the file cannot be read, or holds no class map.
    """
    from scipy.io import loadmat

    wrong = "masks are no class maps of SBD (.mat files with GTcls.Segmentation)"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError("masks cannot be read", error.strerror or str(error)) from None
    try:
        ids = loadmat(io.BytesIO(data), variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0]
    except Exception as error:
        # A damaged file makes SciPy raise almost anything.
        raise SampleError(wrong, reason(error)) from None
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise SampleError(wrong, f"{ids.dtype} of shape {ids.shape}")
    return ids.astype(np.int64)
