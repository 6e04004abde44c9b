"""Load a data set by the `datasets` library, and say in one sentence why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from s4mim_hf.errors import InputError
from s4mim_hf.hub_access import hub_errors

_PREFIX = "hf://datasets/"
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SECONDS = 10.0
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Loaded:
    """A data set that can be read.

    Attributes:
        name: its name, without its user.
        title: its id on the Hub, or the same as `name`.
        origin: where it is from, for the card.
        splits: its rows by the name of the split.
        folder: local folder that relative paths start from.
        side_file: finds a file that lies beside the data, by its name; None where there is none.
    """

    name: str
    title: str
    origin: str
    splits: dict[str, datasets.Dataset]
    folder: Path | None
    side_file: Callable[[str], Path | None]


def load(source: str, config_name: str | None, *, named_by: str = "--source") -> Loaded:
    """Load all splits of a local data set, or of one of the Hub.

    Args:
        source: a local path, or an id of the Hub with or without "hf://datasets/", perhaps with @REVISION.
        config_name: which of several data sets of one repository; None: the only one.
        named_by: the option that named it, for messages.

    Raises:
        InputError: there is none, it cannot be reached, or it cannot be read.
    """
    path = Path(source).expanduser()
    if path.exists():
        return _load_local(path, source, config_name, named_by)
    repository, _, revision = source.removeprefix(_PREFIX).partition("@")
    if not _ID.fullmatch(repository):
        raise InputError(f"there is no {source}; {named_by} of 'hub' is an id such as USER/NAME, or a local path")
    return _load_from_hub(repository, revision or None, config_name, named_by)


def _load_local(path: Path, source: str, config_name: str | None, named_by: str) -> Loaded:
    folder = path if path.is_dir() else path.parent
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        found = _read(source, lambda: datasets.load_from_disk(str(path)))
    elif path.is_dir():
        found = _read(source, lambda: datasets.load_dataset(str(path), config_name))
    elif path.suffix == ".parquet":
        found = _read(source, lambda: datasets.load_dataset("parquet", data_files={"train": str(path)}))
    else:
        raise InputError(
            f"{named_by} {path} is a file; give a parquet file, or a folder that datasets.load_dataset reads"
        )
    splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    name = path.resolve().stem if path.is_file() else path.resolve().name

    def side_file(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    return Loaded(name, name, "", splits, folder, side_file)


def _load_from_hub(repository: str, revision: str | None, config_name: str | None, named_by: str) -> Loaded:
    what = f"the data set {repository}" + (f" at {revision!r}" if revision else "")
    with hub_errors(what, "load", kept=f"{named_by} takes a local folder, too"):
        # datasets asks again and again for half a minute where there is no network.
        offline = constants.HF_HUB_OFFLINE
        commit = revision if offline else HfApi().dataset_info(repository, revision=revision, timeout=_SECONDS).sha
        splits = dict(_read(what, lambda: datasets.load_dataset(repository, config_name, revision=commit)))

    def side_file(name: str) -> Path | None:
        with hub_errors(what, f"load {name} of"):
            try:
                return Path(hf_hub_download(repository, name, repo_type="dataset", revision=commit))
            except EntryNotFoundError as error:
                # Without a connection, what is not in the cache may be there or not.
                if isinstance(error, LocalEntryNotFoundError) and not offline:
                    raise
                return None

    origin = f"From the data set {repository} of the Hugging Face Hub" + (f", revision {commit}." if commit else ".")
    return Loaded(repository.split("/")[-1], repository, origin, splits, None, side_file)


def _read(source: str, reader: Callable[[], Any]) -> Any:
    """Call a function of `datasets`, whose errors are of many kinds."""
    try:
        found = reader()
        # datasets copies the tables once, and Arrow would keep the memory of it: some hundred MB of a GB.
        pa.default_memory_pool().release_unused()
        return found
    except ConnectionError:
        # The Hub is out of reach, or HF_HUB_OFFLINE is set and nothing is in the cache: the caller explains it.
        raise
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise InputError(f"{source} cannot be loaded: {_reason(error)}") from error
        raise InputError(
            f"{source} is a Python script, which datasets {datasets.__version__} does not run; give a copy in parquet, "
            "such as its revision refs/convert/parquet where the Hub has made one "
            "(--source USER/NAME@refs/convert/parquet)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        text = _reason(error.__cause__ or error)
        hint = "; choose one with --config-name" if "onfig" in text else ""
        raise InputError(f"{source} cannot be loaded: {text}{hint}") from error


def _reason(error: BaseException) -> str:
    """Return the first sentence or two of an error's message on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
