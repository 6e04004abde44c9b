"""Rows of prepared folders, and of whatever else the `datasets` library reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from s4mim_hf.data.prepared import HUB_PREFIX, SPLITS, SYNTHETIC, load_prepared
from s4mim_hf.data.sources.hub.columns import choose_image_column
from s4mim_hf.data.sources.hub.loading import load
from s4mim_hf.data.sources.hub.stored import RowIds, as_stored, read_path
from s4mim_hf.errors import InputError, nearest, some
from s4mim_hf.hub_access import hub_errors
from s4mim_hf.prediction.sources.base import ListedImages

_ADDRESS = re.compile(r"(?:hf://datasets/)?([\w.-]+/[\w.-]+?)(?:@([^/\s]+))?(?:/([\w.-]+))?/?")
_DATA_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".csv")


def is_prepared(source: str) -> bool:
    """Say whether a source is a prepared folder, or the embedded data."""
    return source == SYNTHETIC or source.startswith(f"{SYNTHETIC}:") or (Path(source) / "splits.json").is_file()


def holds_tables(folder: Path) -> bool:
    """Say whether a folder is a data set: what `save_to_disk` has written, or files of rows."""
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return saved or any(path.suffix in _DATA_SUFFIXES for path in folder.rglob("*"))


def is_on_hub(source: str) -> bool:
    """Say whether a source that is no path here may be a data set of the Hub: an address, or USER/NAME."""
    return source.startswith(HUB_PREFIX) or re.fullmatch(r"\w[\w.-]*/[\w.-]+(@\S+)?", source) is not None


def open_hub(source: str, split: str | None, image_column: str | None) -> ListedImages:
    """List the rows of hf://datasets/USER/NAME[@REVISION][/CONFIG] or USER/NAME, prepared or not.

    Raises:
        InputError: there is none, it cannot be reached, or it has no such split or column.
    """
    found = _ADDRESS.fullmatch(source)
    if found is None:
        raise InputError(f"{source!r} is no data set of the Hub; write hf://datasets/USER/NAME or .../NAME/CONFIG")
    repository, revision, config = found.groups()
    named = repository + (f"@{revision}" if revision else "")
    if config is None and _has_splits_json(repository, revision, source):
        return open_prepared(f"hf://datasets/{named}", split, image_column)
    return open_table(named, split, image_column, config)


def _has_splits_json(repository: str, revision: str | None, source: str) -> bool:
    hint = "" if source.startswith(HUB_PREFIX) else f"there is no file or folder {source} here, either"
    with hub_errors(f"the data set {repository}", "load", kept=hint):
        try:
            hf_hub_download(repository, "splits.json", repo_type="dataset", revision=revision)
            return True
        except EntryNotFoundError as error:
            # Without a connection, what is not in the cache may be there or not: the data set as a whole tells.
            if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                raise
            return False


def open_prepared(source: str, split: str | None, image_column: str | None) -> ListedImages:
    """List the images of one split of prepared data, the unlabelled ones unless told otherwise.

    Raises:
        InputError: the data cannot be loaded, or the split is none or empty.
    """
    if image_column is not None:
        raise InputError(
            f"--image-column is given, but {source} is prepared data, whose images are in 'image'; omit it"
        )
    wanted = split or "unlabeled"
    if wanted not in SPLITS:
        raise InputError(f"--split {wanted!r} is no split of prepared data, which has {', '.join(SPLITS)}")
    data = load_prepared(source, unlabeled=wanted == "unlabeled")
    rows = {"labeled": data.labeled, "unlabeled": data.unlabeled, "validation": data.validation}[wanted]
    if rows is None or len(rows) == 0:
        raise InputError(f"{source} has no {wanted} images to predict; choose another --split, or give images")
    # The column alone: the pictures are read when their turn comes.
    return ListedImages([str(name) for name in rows["id"]], _reader(rows, "image", None), is_data_set=True)


def open_table(source: str, split: str | None, image_column: str | None, config: str | None = None) -> ListedImages:
    """List the rows of a split of a data set, local or on the Hub.

    Raises:
        InputError: it cannot be loaded, or has no such split or column of pictures.
    """
    loaded = load(source, config, named_by="the data set to predict")
    names = list(loaded.splits)
    if split is None and len(names) > 1:
        raise InputError(f"{source} has the splits {some(names, 9)}; choose one with --split")
    if split is not None and split not in names:
        raise InputError(f"{source} has no split {split!r}{nearest(split, names)}; it has {some(names, 9)}")
    chosen = split or names[0]
    rows = loaded.splits[chosen]
    if len(rows) == 0:
        raise InputError(f"the split {chosen!r} of {source} has no rows; choose another with --split")
    column = choose_image_column(rows.features, image_column, source)
    names = RowIds(chosen, rows, column, loaded.folder).read()
    return ListedImages(names, _reader(rows, column, loaded.folder), is_data_set=True)


def _reader(rows: Any, column: str, folder: Path | None) -> Callable[[int], bytes]:
    """Return what gives the bytes of the picture in a row; in the arrow format nothing is decoded."""
    pictures = rows.select_columns([column]).with_format("arrow")

    def read(number: int) -> bytes:
        data, path = as_stored(pictures[number])
        if data is not None:
            return data
        if path is None:
            raise ValueError("its row holds neither bytes nor a path")
        return read_path("images", path, folder)

    return read
