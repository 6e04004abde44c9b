"""Upload a prepared folder to the Hub as a data set, in one commit: nobody ever sees half of it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd

from s4mim_hf.hub_uploads import check_target, upload


def check_push(repo_id: str, *, private: bool = True) -> str:
    """Find out whether a data set may be pushed, before hours go into preparing it. Changes nothing.

    Args:
        repo_id: "USER/NAME", "ORGANIZATION/NAME", or "NAME" for the token's owner.
        private: whether the repository is to be private.

    Returns:
        The whole id.

    Raises:
        InputError: there is no token or it may not write, the name is taken or not the token's to use, or the Hub
            cannot be reached.
    """
    return check_target(repo_id, "dataset", private=private).repo_id


def push_prepared(folder: Path, repo_id: str, *, private: bool = True, say: Callable[[str], None]) -> str:
    """Upload a prepared folder as a new data set. The folder stays as it is, whatever happens.

    All files go into one commit, which fails where somebody else has written meanwhile. Files that an interrupted
    upload has brought there are not sent again.

    Args:
        folder: the prepared folder.
        repo_id: as in `check_push`. The repository is made where there is none; an empty one is filled.
        private: whether only its owner may see it.
        say: called with each thing that a person should know, one sentence at a time.

    Returns:
        Its address.

    Raises:
        InputError: as in `check_push`, or the upload fails.
    """
    again = f"hf upload {repo_id} {folder} . --repo-type dataset{' --private' if private else ''}"
    kept = f"{folder} is whole, and can be uploaded later with `{again}`"
    target = check_target(repo_id, "dataset", private=private, kept=kept, say=say)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(file.stat().st_size for file in files)
    visibility = "private" if target.private else "public"
    say(f"uploading {len(files)} files, {size / 2**20:.1f} MiB, to the {visibility} data set {target.repo_id}")
    additions = [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]
    return upload(target, additions, message="Prepared with s4mim_hf", kept=kept, say=say).url
