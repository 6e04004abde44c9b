"""Uploads to the Hub in one commit: rights and visibility first, patience with hiccups, never half of it there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetInfo, HfApi, ModelInfo, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from s4mim_hf.errors import InputError
from s4mim_hf.hub_access import LOG_IN, LOOK_WAITS, UPLOAD_WAITS, Say, Unreachable, hub_errors, patiently

Kind = Literal["dataset", "model"]

_NOUNS: dict[Kind, str] = {"dataset": "data set", "model": "model"}
# What the Hub itself puts into a new repository.
_FROM_THE_HUB = {".gitattributes"}


@dataclass(frozen=True)
class Target:
    """A repository that may be written to.

    Attributes:
        repo_id: "USER/NAME".
        kind: what it holds.
        private: whether only its owner will see it.
        head: its last commit; None: it does not exist yet.
        files: what is in it at that commit, without what the Hub itself puts there.
    """

    repo_id: str
    kind: Kind
    private: bool
    head: str | None = None
    files: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """Return "the model USER/NAME"."""
        return f"the {_NOUNS[self.kind]} {self.repo_id}"


@dataclass(frozen=True)
class Upload:
    """What an upload made.

    Attributes:
        url: the repository's address.
        commit: its last commit.
        changed: whether that commit is this upload's; False: all was there already.
    """

    url: str
    commit: str
    changed: bool


def silent(sentence: str) -> None:
    """Say nothing."""


def has_token() -> bool:
    """Whether this machine has a token of the Hub."""
    return huggingface_hub.get_token() is not None


def check_repo_id(repo_id: str, kind: Kind) -> None:
    """Refuse what cannot be a repository's id, without asking anybody.

    Raises:
        InputError: it cannot.
    """
    with hub_errors(f"the {_NOUNS[kind]} {repo_id}", "push to"):
        validate_repo_id(repo_id)


def check_target(
    repo_id: str, kind: Kind, *, private: bool, update: bool = False, kept: str = "", say: Say = silent
) -> Target:
    """Find out whether a repository may be written to. Changes nothing.

    Args:
        repo_id: "USER/NAME", "ORGANIZATION/NAME", or "NAME" for the token's owner.
        kind: what it holds.
        private: whether it is to be private.
        update: whether it may have something in it.
        kept: what the person still has, and how to go on with it; a clause that ends an error's sentence.
        say: called with each thing that a person should know, one sentence at a time.

    Raises:
        InputError: the id is none, there is no token or it may not write, or the name is taken or not the token's to
            use; `Unreachable` where the Hub cannot be reached.
    """
    ending = f"; {kept}" if kept else ""
    check_repo_id(repo_id, kind)
    if constants.HF_HUB_OFFLINE:
        raise Unreachable(f"cannot push to {repo_id}: HF_HUB_OFFLINE is set; unset it{ending}")
    if not has_token():
        raise InputError(f"cannot push to {repo_id}: there is no token of the Hub on this machine; {LOG_IN}{ending}")
    with hub_errors(f"the {_NOUNS[kind]} {repo_id}", "push to", kept=kept):
        account = patiently(HfApi().whoami, LOOK_WAITS, say)
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise InputError(
            f"cannot push to {repo_id}: the token may only read; use one that may write, and {LOG_IN}{ending}"
        )
    namespaces = [account["name"], *(organization["name"] for organization in account.get("orgs", []))]
    namespace, slash, _ = repo_id.rpartition("/")
    if slash and namespace not in namespaces:
        raise InputError(
            f"cannot push to {repo_id}: the token is {account['name']}'s, who may write to {', '.join(namespaces)}, "
            f"but not to {namespace}; use another name or token{ending}"
        )
    whole = repo_id if slash else f"{account['name']}/{repo_id}"
    return _look_at(Target(whole, kind, private), update, kept, say)


def upload(
    target: Target,
    additions: Sequence[CommitOperationAdd],
    *,
    message: str,
    stale: Callable[[Collection[str]], Iterable[str]] | None = None,
    kept: str = "",
    say: Say = silent,
) -> Upload:
    """Bring files into a repository in one commit, which fails where somebody else has written meanwhile.

    Large files go up before the commit, and nobody sees them until it is made; those that an interrupted upload has
    brought there are not sent again. Hiccups (429, 5xx, cut connections) are waited out, a bounded number of times.

    Args:
        target: as `check_target` gives it. It is made where it does not exist.
        additions: the files, in the commit's order.
        message: the commit's.
        stale: given the files that are there, names those that the same commit deletes; with it the repository may
            have files in it, without it they are refused.
        kept: as in `check_target`.
        say: as in `check_target`.

    Raises:
        InputError: the upload fails; `Unreachable` where the Hub cannot be reached.
    """
    api = HfApi()
    with hub_errors(target.words, "push to", kept=kept):
        if target.head is None:
            patiently(
                lambda: api.create_repo(
                    target.repo_id, repo_type=target.kind, private=target.private, exist_ok=True
                ),
                UPLOAD_WAITS,
                say,
            )  # fmt: skip
    target = _look_at(target, stale is not None, kept, say)
    added = {addition.path_in_repo for addition in additions}
    deleted = sorted(set(stale(target.files)) & target.files - added) if stale is not None else []
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path, is_folder=False) for path in deleted),
        *additions,
    ]
    with hub_errors(target.words, "push to", kept=kept):
        commit = patiently(_Commit(api, target, operations, message), UPLOAD_WAITS, say)
    prefix = "" if target.kind == "model" else f"{target.kind}s/"
    return Upload(f"{constants.ENDPOINT}/{prefix}{target.repo_id}", commit, changed=commit != target.head)


class _Commit:
    """One commit, which may be tried again, whether or not an answer to the last try was lost."""

    def __init__(
        self,
        api: HfApi,
        target: Target,
        operations: Sequence[CommitOperationAdd | CommitOperationDelete],
        message: str,
    ) -> None:
        self._api = api
        self._target = target
        self._operations = operations
        self._message = message
        self._was_sent = False

    def __call__(self) -> str:
        """Return the commit."""
        if self._was_sent:
            head = self._api.repo_info(self._target.repo_id, repo_type=self._target.kind).sha
            if head is not None and head != self._target.head and self._is_at(head):
                return head
        self._was_sent = True
        made = self._api.create_commit(
            self._target.repo_id,
            self._operations,
            commit_message=self._message,
            repo_type=self._target.kind,
            parent_commit=self._target.head,
        )
        return str(made.oid)

    def _is_at(self, revision: str) -> bool:
        """Whether the repository is at `revision` as the commit was to make it."""
        entries = self._api.list_repo_tree(
            self._target.repo_id, recursive=True, revision=revision, repo_type=self._target.kind
        )
        there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
        return all(_is_done(operation, there.get(operation.path_in_repo)) for operation in self._operations)


def _is_done(operation: CommitOperationAdd | CommitOperationDelete, there: RepoFile | None) -> bool:
    if isinstance(operation, CommitOperationDelete) or there is None:
        return isinstance(operation, CommitOperationDelete) == (there is None)
    if there.lfs is not None:
        return there.lfs.sha256 == operation.upload_info.sha256.hex()
    with operation.as_file() as file:
        content = file.read()
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _look_at(target: Target, update: bool, kept: str, say: Say) -> Target:
    """Return the target as it is now; refuse one that holds something, or is seen by others against what is asked."""
    noun = _NOUNS[target.kind]
    ending = f"; {kept}" if kept else ""
    try:
        with hub_errors(target.words, "look for", kept=kept, passing=(RepositoryNotFoundError,)):
            ask = HfApi().model_info if target.kind == "model" else HfApi().dataset_info
            info: ModelInfo | DatasetInfo = patiently(lambda: ask(target.repo_id), LOOK_WAITS, say)
    except RepositoryNotFoundError:
        return Target(target.repo_id, target.kind, target.private)
    files = frozenset(sibling.rfilename for sibling in info.siblings or []) - _FROM_THE_HUB
    if files and not update:
        way = ", or --update to replace it" if target.kind == "model" else ", or delete it on the Hub first"
        raise InputError(
            f"cannot push to {target.repo_id}: there is a {noun} of that name already, with {len(files)} files; give "
            f"another name{way}{ending}"
        )
    if target.private and not info.private:
        raise InputError(
            f"cannot push to {target.repo_id}: it exists and is public, but a private one is asked for; make it "
            f"private on the Hub, or give --public{ending}"
        )
    return Target(target.repo_id, target.kind, bool(info.private), info.sha, files)
