"""What goes wrong between this machine and the Hub: said in one sentence, or waited out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from s4mim_hf.errors import InputError

Say = Callable[[str], None]
Result = TypeVar("Result")

# Seconds between one try and the next: for a look before anything has begun, and for an upload.
LOOK_WAITS = (1.0, 2.0)
UPLOAD_WAITS = (1.0, 2.0, 4.0, 8.0)
# A Hub that asks for more is not waited for.
LONGEST_WAIT = 300.0

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class Unreachable(InputError):
    """The Hub gives no answer, or must not be asked."""


@contextmanager
def hub_errors(what: str, doing: str, *, kept: str = "", passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what `huggingface_hub` raises in the block into an `InputError`.

    Args:
        what: the repository in words, such as "the data set USER/NAME".
        doing: what is being done with it, such as "download" or "push to".
        kept: what the person still has, and how to go on with it; a clause that ends the sentence.
        passing: errors that the caller knows what to do with.
    """
    try:
        yield
    except passing:
        raise
    # Errors of the Hub's answers and of the connection are HTTPErrors or OSErrors; an upload in threads wraps them in
    # RuntimeErrors, and the cache says that it has nothing where the Hub gave no answer.
    except (HTTPError, OSError, HFValidationError, RuntimeError) as error:
        cause = _root_of(error)
        reason, remedy = _explain(cause, what)
        raised = Unreachable if _is_unanswered(cause) else InputError
        raise raised(f"cannot {doing} {what}: {reason}; {remedy}{f'; {kept}' if kept else ''}") from None


def patiently(action: Callable[[], Result], waits: Sequence[float], say: Say) -> Result:
    """Do something that the Hub takes part in, again after each hiccup, at most `len(waits)` times more.

    Args:
        action: raises what `huggingface_hub` raises; may be called again.
        waits: seconds between one try and the next; where the Hub names a time, that long.
        say: told about each hiccup.
    """
    for wait in waits:
        try:
            return action()
        except (HTTPError, OSError, RuntimeError) as error:
            cause = _root_of(error)
            reason = _hiccup(cause)
            seconds = max(wait, _asked_wait(cause))
            if reason is None or seconds > LONGEST_WAIT:
                raise
        say(f"{reason}; trying again in {seconds:g} s")
        time.sleep(seconds)
    return action()


def _hiccup(error: BaseException) -> str | None:
    """Say what is wrong where it may be over soon; None for everything else."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 429:
            return "the Hub takes no more requests for now"
        return f"the Hub failed with status {status}" if status == 408 or status >= 500 else None
    # What has no answer is a connection that was cut, timed out or never came about.
    return f"the connection to {constants.ENDPOINT} failed" if isinstance(error, HTTPError) else None


def _asked_wait(error: BaseException) -> float:
    """Return the seconds that the Hub asks to wait; 0 where it asks for none."""
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    headers = error.response.headers
    if (asked := headers.get("Retry-After", "").strip()).isdigit():
        return float(asked)
    # The Hub's own header: requests left and seconds until there are more, as in `"api";r=0;t=55`.
    left = re.search(r"\br=0;t=(\d+)", headers.get("RateLimit", "").replace(" ", ""))
    return float(left[1]) if left and error.response.status_code == 429 else 0.0


def _root_of(error: BaseException) -> BaseException:
    """Return the error that an upload in threads, or the cache, has wrapped."""
    wraps = isinstance(error, RuntimeError | LocalEntryNotFoundError)
    return _root_of(error.__cause__) if wraps and error.__cause__ is not None else error


def _is_unanswered(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return False
    return isinstance(error, HTTPError | OfflineModeIsEnabled | LocalEntryNotFoundError)


def _explain(error: BaseException, what: str) -> tuple[str, str]:
    """Return what is wrong, and what to do."""
    if isinstance(error, HFValidationError):
        return _first_line(error), "a repository is called USER/NAME"
    if isinstance(error, OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and it is not in the cache", "unset it, or name a folder"
    if isinstance(error, GatedRepoError):
        return "its owner lets in only those who asked", f"ask for access on {constants.ENDPOINT}, and {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        if huggingface_hub.get_token() is None:
            return "there is none of that name, or it is private", f"check the name; for a private one {LOG_IN}"
        return "there is none of that name that your token may see", "check the name and whose token it is"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision", "give a branch, a tag or a commit of it"
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, what)
    if isinstance(error, LocalEntryNotFoundError):
        return f"{constants.ENDPOINT} gives no answer, and it is not in the cache", "check the connection"
    if isinstance(error, HTTPError):
        return f"{constants.ENDPOINT} gives no answer ({_first_line(error)})", "check the connection"
    return getattr(error, "strerror", None) or _first_line(error), "correct this and try again"


def _explain_status(error: HfHubHTTPError, what: str) -> tuple[str, str]:
    status = error.response.status_code
    said = f" ({error.server_message})" if error.server_message else ""
    if status == 401:
        return f"the Hub does not accept the token{said}", LOG_IN
    if status == 403:
        return f"the token has no right to do this{said}", f"use one that may write to {what}, and {LOG_IN}"
    if status in (409, 412):
        return f"it was changed meanwhile, or exists already{said}", "look at it, then try again"
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return f"the Hub takes no more requests for now{said}", f"try again {f'in {wait} s' if wait else 'later'}"
    if status >= 500:
        return f"the Hub failed with status {status}{said}", "try again later"
    return f"the Hub answered with status {status}{said or f' ({_first_line(error)})'}", "correct this and try again"


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
