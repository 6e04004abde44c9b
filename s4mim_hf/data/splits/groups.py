"""Groups of near-identical images, such as the frames of one video, which must not be parted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from s4mim_hf.errors import InputError, some


class Groups:
    """Says of each image which group it is in.

    Args:
        pattern: a regular expression; its first group, or the whole match where it has none, names the group.

    Raises:
        InputError: it is no regular expression.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise InputError(f"--group-by {pattern!r} is no regular expression ({error}); correct it") from None
        self.text = pattern

    def find(self, image_id: str) -> str | None:
        """Return the name of an image's group; None where the expression does not match its id."""
        match = self._pattern.search(image_id)
        return None if match is None else match.group(1 if self._pattern.groups else 0)

    def of(self, ids: Sequence[str]) -> list[str]:
        """Return the name of each image's group.

        Raises:
            InputError: the expression does not match some id.
        """
        names, bare = [], []
        known: dict[str, str] = {}
        for image_id in ids:
            name = self.find(image_id)
            if name is None:
                bare.append(image_id)
            else:
                # One object for each name, however many images have it.
                names.append(known.setdefault(name, name))
        if bare:
            raise InputError(
                f"--group-by {self.text!r} does not match {len(bare)} of {len(ids)} ids ({some(bare)}); it must find "
                "the group's name in every id"
            )
        return names
