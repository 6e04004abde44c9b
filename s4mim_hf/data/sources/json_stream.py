"""Read the arrays of a large JSON file element by element, with the place of each, on constant memory."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from s4mim_hf.errors import InputError

_CHUNK = 1 << 22
_BLANKS = " \t\r\n"
_WITHIN_NUMBERS = "+-.eE"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Element(NamedTuple):
    """An element of one of the arrays.

    Attributes:
        key: the array's key in the outermost object.
        value: the element, decoded.
        start: its first byte in the file.
        length: how many bytes it takes.
    """

    key: str
    value: Any
    start: int
    length: int


def iterate_arrays(path: Path, keys: Container[str]) -> Iterator[Element]:
    """Yield the elements of those arrays of the outermost object that have these keys, in the file's order.

    What stands under other keys, or is no array, is passed over.

    Raises:
        InputError: the file cannot be read, is no JSON, or is no object.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(file).arrays(keys)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except _NoJsonError as error:
        raise InputError(f"{path} is no JSON file of annotations: {error}; is it cut short?") from None


def read_elements(path: Path, places: Iterable[tuple[int, int]]) -> list[Any]:
    """Decode the elements of which first byte and length are given.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no JSON value at one of the places.
    """
    values = []
    with path.open("rb") as file:
        for start, length in places:
            file.seek(start)
            values.append(json.loads(file.read(length)))
    return values


class _NoJsonError(ValueError):
    """What is wrong with the file, in words."""


class _Reader:
    """Holds a piece of the file, and where in it the next value begins.

    The piece is read as Latin-1, one letter a byte, so that letters count bytes; bytes of other encodings occur within
    strings only, where they do not end one. Values with such strings are decoded again, as UTF-8.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.text = ""
        self.at = 0
        self.base = 0
        self.decode = json.JSONDecoder().raw_decode
        if file.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK:
            self.base = len(_BYTE_ORDER_MARK)
        file.seek(self.base)

    def arrays(self, keys: Container[str]) -> Iterator[Element]:
        self._take("{")
        separator = "," if self._peek() != "}" else self._take("}")
        while separator == ",":
            key, start, _ = self._value()
            if not isinstance(key, str):
                raise _NoJsonError(f"the key at byte {start} is no text")
            self._take(":")
            if key in keys and self._peek() == "[":
                yield from self._elements(key)
            else:
                self._value()
            separator = self._take(",}")
        if self._peek():
            raise self._unexpected("the end of the file")

    def _elements(self, key: str) -> Iterator[Element]:
        self._take("[")
        separator = "," if self._peek() != "]" else self._take("]")
        while separator == ",":
            yield Element(key, *self._value())
            separator = self._take(",]")

    def _more(self) -> bool:
        """Read on, dropping what is decoded already; False at the end of the file."""
        # As much again as is held: a value that spans many pieces is not decoded once for each of them.
        piece = self.file.read(max(_CHUNK, len(self.text) - self.at))
        self.base += self.at
        self.text, self.at = self.text[self.at :] + piece.decode("latin-1"), 0
        return bool(piece)

    def _peek(self) -> str:
        """Return the next letter that is no blank, without taking it; "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _BLANKS:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def _take(self, expected: str) -> str:
        letter = self._peek()
        if not letter or letter not in expected:
            raise self._unexpected(" or ".join(map(repr, expected)))
        self.at += 1
        return letter

    def _value(self) -> tuple[Any, int, int]:
        """Return the next value, its first byte and its length."""
        if not self._peek():
            raise self._unexpected("a value")
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise _NoJsonError(f"{error.msg} (in the value at byte {self.base})") from None
                continue
            length = end - self.at
            # A number may go on in the next piece: "-0" in "-0." as well, for the decoder stops before the dot.
            if (end < len(self.text) and self.text[end] not in _WITHIN_NUMBERS) or not self._more():
                break
        raw, start = self.text[self.at : self.at + length], self.base + self.at
        self.at += length
        return value if raw.isascii() else self._decoded(raw, start), start, length

    @staticmethod
    def _decoded(raw: str, start: int) -> Any:
        try:
            return json.loads(raw.encode("latin-1"))
        except ValueError:
            raise _NoJsonError(f"text that is not UTF-8 in the value at byte {start}") from None

    def _unexpected(self, expected: str) -> _NoJsonError:
        letter = self._peek()
        found = repr(letter) if letter else "the end of the file"
        return _NoJsonError(f"{found} at byte {self.base + self.at}, expected {expected}")
