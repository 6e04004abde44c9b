"""Publishing: a run or a model goes to the Hub in one commit with its card, or stays here whole."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from s4mim_hf.errors import InputError
from s4mim_hf.hub.publication import Publication
from s4mim_hf.hub_access import LOOK_WAITS, Say, Unreachable, hub_errors, patiently
from s4mim_hf.hub_uploads import Target, Upload, check_repo_id, check_target, has_token, silent, upload

KEPT = "nothing of it is to be seen there; the same command goes on where this one stopped"


def check_model_id(repo_id: str) -> None:
    """Refuse what cannot be the id of a model, without asking anybody.

    Raises:
        InputError: it cannot, or it does not say whose the model is, which the card's example must name.
    """
    check_repo_id(repo_id, "model")
    if "/" not in repo_id:
        raise InputError(f"cannot push to the model {repo_id}: it does not say whose it is; write USER/{repo_id}")


def publish(publication: Publication, repo_id: str, *, private: bool = True, update: bool = False, say: Say) -> Upload:
    """Bring a publication to the Hub.

    Everything is in one commit, whose last file is the card. It fails where somebody else has written meanwhile;
    nothing is to be seen before it is made. Large files that an interrupted call has brought there are not sent again.

    Args:
        publication: what to publish.
        repo_id: "USER/NAME" or "ORGANIZATION/NAME". It is made where it does not exist.
        private: whether only its owner may see it.
        update: whether a model that is there already is replaced, with its files that this one has not.
        say: called with each thing that a person should know, one sentence at a time.

    Raises:
        InputError: it may not be written to, the Hub does not take the card, or the upload fails; `Unreachable` where
            there is no answer.
    """
    check_model_id(repo_id)
    target = check_target(repo_id, "model", private=private, update=update, say=say)
    _check_model(target)
    for note in _visibility_notes(target, private):
        say(note)
    validate_card(publication.card, target.words, say)
    visibility = "private" if target.private else "public"
    count, size = len(publication.files), publication.size / 2**20
    say(f"uploading {count} files, {size:.1f} MiB, to the {visibility} model {target.repo_id}")
    return upload(
        target,
        [file.operation() for file in publication.files],
        message="Updated with s4mim_hf" if target.files else "Published with s4mim_hf",
        stale=publication.stale if update else None,
        kept=KEPT,
        say=say,
    )


def rehearse(publication: Publication, repo_id: str, *, private: bool = True, update: bool = False) -> list[str]:
    """Say what publishing would do, as far as that can be known here and now. Changes nothing.

    Args:
        publication: what would be published.
        repo_id: as in `publish`.
        private: as in `publish`.
        update: as in `publish`.

    Returns:
        Sentences.

    Raises:
        InputError: publishing would be refused.
    """
    check_model_id(repo_id)
    unasked = "the card's header was checked here; the Hub was not asked whether it takes it"
    if not has_token():
        return [unasked, f"{repo_id} was not looked for: there is no token of the Hub on this machine"]
    try:
        target = check_target(repo_id, "model", private=private, update=update)
    except Unreachable as error:
        return [unasked, f"{repo_id} was not looked for: {error}"]
    _check_model(target)
    validate_card(publication.card, target.words, silent)
    visibility = "private" if target.private else "public"
    notes = ["the Hub takes the card's header", *_visibility_notes(target, private)]
    if target.head is None:
        return [*notes, f"{target.repo_id} does not exist: it would be made, {visibility}"]
    if not target.files:
        return [*notes, f"{target.repo_id} exists, is {visibility} and empty: it would be filled"]
    stale = publication.stale(target.files)
    deleted = f", and {', '.join(stale)} deleted" if stale else ""
    return [*notes, f"{target.repo_id} exists and is {visibility}: its files would be replaced{deleted}"]


def validate_card(card: ModelCard, what: str, say: Say) -> None:
    """Ask the Hub whether it takes a card's header.

    Raises:
        InputError: it does not; `Unreachable` where there is no answer.
    """
    try:
        with hub_errors(what, "check the card of"):
            patiently(card.validate, LOOK_WAITS, say)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the Hub does not take the card: {' '.join(str(error).split())[:300]}; correct it") from None


def write_card(publication: Publication, file: Path) -> list[Path]:
    """Write a publication's card to a file of its own, and the pictures that it shows into `figures/` beside it.

    Args:
        publication: whose card it is.
        file: where the card goes, such as model_cards/NAME.md.

    Returns:
        The files written.

    Raises:
        InputError: one cannot be written.
    """
    text = str(publication.card)
    pictures: dict[Path, bytes] = {}
    for shown in publication.files:
        if shown.path.endswith(".png") and f"]({shown.path})" in text:
            name = f"{file.stem}_{'curves' if shown.path == 'curves.png' else 'panel'}.png"
            text = text.replace(f"]({shown.path})", f"](figures/{name})")
            pictures[file.parent / "figures" / name] = shown.read()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, content in pictures.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"--card: {file} cannot be written: {error.strerror}; name another file") from None
    return [file, *pictures]


def _check_model(target: Target) -> None:
    """Refuse to replace what is no model of this library."""
    if target.files and "config.json" not in target.files:
        raise InputError(
            f"cannot push to {target.repo_id}: it holds {len(target.files)} files and no config.json, so it is no "
            "model that could be updated; give another name"
        )


def _visibility_notes(target: Target, private: bool) -> list[str]:
    if target.private and not private:
        return [f"{target.repo_id} is private and stays so; open it in its settings on the Hub"]
    return []
