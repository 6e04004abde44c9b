"""A small text file from a web address."""

from __future__ import annotations

from http import HTTPStatus

from huggingface_hub import get_session

from s4mim_hf.errors import InputError

# Hundreds of thousands of paths fit; what is larger is no list.
MOST_BYTES = 64 * 2**20
SECONDS = 30.0


def is_url(place: str) -> bool:
    """Return whether a place is an http(s) address rather than a file."""
    return place.lower().startswith(("http://", "https://"))


def download_text(url: str, what: str) -> str:
    """Return the text at an http(s) address.

    Args:
        url: the address.
        what: what should be there, for messages, such as "the id list".

    Raises:
        InputError: the address cannot be reached or answers with an error, or what is there is no text.
    """
    instead = "check the address, or download the file and give its path"
    try:
        # The client of the Hub's library, which is there anyway: it keeps to proxies and to the offline switch.
        with get_session().stream("GET", url, follow_redirects=True, timeout=SECONDS) as response:
            status, kind = response.status_code, response.headers.get("content-type", "")
            data = bytearray()
            if status == HTTPStatus.OK:
                for part in response.iter_bytes():
                    data += part
                    if len(data) > MOST_BYTES:
                        break
    except Exception as error:
        # Which library the client is of, and so the kinds of its errors, differ between versions of the Hub's.
        reason = str(error) or type(error).__name__
        raise InputError(f"cannot fetch {what} {url}: {reason}; check the connection, or {instead}") from None
    if status != HTTPStatus.OK:
        raise InputError(f"cannot fetch {what} {url}: the server answers {_answer(status)}; {instead}")
    if len(data) > MOST_BYTES:
        raise InputError(f"{what} {url} has more than {MOST_BYTES >> 20} MiB, so it is none; {instead}")
    if "html" in kind or data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{what} {url} is a web page and no text file; give the address of the raw file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{what} {url} is no UTF-8 text; {instead}") from None


def _answer(status: int) -> str:
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)
