"""Prepared data sets of the Hub: `hf://datasets/USER/NAME` or `hf://datasets/USER/NAME@REVISION`."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from s4mim_hf.errors import InputError
from s4mim_hf.hub_access import hub_errors

HUB_PREFIX = "hf://"

_RECORDS = ["splits.json", "classes.json", "README.md"]
_LOCATION = re.compile(r"hf://datasets/([^/@\s]+/[^/@\s]+?)/?(?:@(\S+))?")


def download_prepared(location: str, *, unlabeled: bool = True) -> Path:
    """Bring a prepared data set into the Hub's cache on this machine, or find it there.

    Its records come first, so that a repository with other content is refused before it is downloaded.

    Args:
        location: "hf://datasets/USER/NAME[@REVISION]".
        unlabeled: whether to download the unlabelled images, too.

    Returns:
        The folder, which holds one commit.

    Raises:
        InputError: the location is none, there is no such data set, the Hub cannot be reached, or it is not prepared.
    """
    found = _LOCATION.fullmatch(location)
    if found is None:
        raise InputError(f"{location!r} is no data set of the Hub; write hf://datasets/USER/NAME or .../NAME@REVISION")
    repo_id, revision = found.groups()
    patterns = [f"data/{split}-*.parquet" for split in ("labeled", "validation", *(["unlabeled"] * unlabeled))]
    with hub_errors(f"the data set {repo_id}{f' at {revision!r}' if revision else ''}", "download"):
        folder = Path(snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=_RECORDS))
        if not (folder / "splits.json").is_file():
            raise InputError(
                f"the data set {repo_id} has no splits.json: it is none that scripts/prepare_data.py has written; "
                "prepare it first, with the kind 'hub'"
            )
        # The commit, not the branch: what was looked at is what is downloaded.
        snapshot_download(repo_id, repo_type="dataset", revision=folder.name, allow_patterns=patterns)
    return folder
