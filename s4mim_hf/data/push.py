"""Upload a prepared folder to the Hub as a data set, in one commit: nobody ever sees half of it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from s4mim_hf.errors import InputError
from s4mim_hf.hub_access import LOG_IN, hub_errors

# What the Hub itself puts into a new repository.
_FROM_THE_HUB = {".gitattributes"}


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
    if huggingface_hub.get_token() is None:
        raise InputError(f"cannot push to {repo_id}: there is no token of the Hub on this machine; {LOG_IN}")
    with hub_errors(f"the data set {repo_id}", "push to"):
        account = HfApi().whoami()
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise InputError(f"cannot push to {repo_id}: the token may only read; use one that may write, and {LOG_IN}")
    namespaces = [account["name"], *(organization["name"] for organization in account.get("orgs", []))]
    namespace, slash, _ = repo_id.rpartition("/")
    if slash and namespace not in namespaces:
        raise InputError(
            f"cannot push to {repo_id}: the token is {account['name']}'s, who may write to {', '.join(namespaces)}, "
            f"but not to {namespace}; use another name or token"
        )
    whole = repo_id if slash else f"{account['name']}/{repo_id}"
    _require_free(whole, private)
    return whole


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
    visibility = "private" if private else "public"
    again = f"hf upload {repo_id} {folder} . --repo-type dataset{' --private' if private else ''}"
    kept = f"{folder} is whole, and can be uploaded later with `{again}`"
    try:
        whole = check_push(repo_id, private=private)
    except InputError as error:
        raise InputError(f"{error}; {kept}") from None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(file.stat().st_size for file in files)
    say(f"uploading {len(files)} files, {size / 2**20:.1f} MiB, to the {visibility} data set {whole}")
    api = HfApi()
    with hub_errors(f"the data set {whole}", "push to", kept=kept):
        url = api.create_repo(whole, repo_type="dataset", private=private, exist_ok=True)
        head = _require_free(whole, private, kept)
        api.create_commit(
            whole,
            [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files],
            commit_message="Prepared with s4mim_hf",
            repo_type="dataset",
            parent_commit=head,
        )
    return str(url)


def _require_free(repo_id: str, private: bool, kept: str = "") -> str | None:
    """Refuse a repository with something in it, or that others could see against what is asked.

    Returns:
        Its last commit; None where there is no such repository.
    """
    ending = f"; {kept}" if kept else ""
    try:
        with hub_errors(f"the data set {repo_id}", "look for", passing=(RepositoryNotFoundError,)):
            info = HfApi().dataset_info(repo_id)
    except RepositoryNotFoundError:
        return None
    files = {sibling.rfilename for sibling in info.siblings or []} - _FROM_THE_HUB
    if files:
        raise InputError(
            f"cannot push to {repo_id}: there is a data set of that name already, with {len(files)} files; give "
            f"another name, or delete it on the Hub first{ending}"
        )
    if private and not info.private:
        raise InputError(
            f"cannot push to {repo_id}: it exists and is public, but a private one is asked for; make it private on "
            f"the Hub, or give --public{ending}"
        )
    return info.sha
