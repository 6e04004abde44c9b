"""Take the ids of published label files to the classes 0 .. K-1.

H, W: height and width of a label map.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from s4mim_hf.data.sources.base import IGNORE_INDEX, SampleError
from s4mim_hf.errors import some

_UNKNOWN = -1


class IdTable:
    """Which class each id of a file is.

    Args:
        classes: the class, or 255 for ignored pixels, of each id 0 .. 255 that the files may hold. 255 stays 255.
        expected: which ids these are, in words, after "masks hold ids other than".
    """

    def __init__(self, classes: Mapping[int, int], expected: str) -> None:
        self.expected = expected
        self._classes = np.full(IGNORE_INDEX + 1, _UNKNOWN, np.int64)
        self._classes[[*classes, IGNORE_INDEX]] = [*classes.values(), IGNORE_INDEX]

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """Return the classes of a file's ids, both int64 (H, W).

        Raises:
            SampleError: the file holds other ids. They cannot stay as they are, where they would pass for classes.
        """
        known = (ids >= 0) & (ids <= IGNORE_INDEX)
        classes = self._classes[np.where(known, ids, 0)]
        odd = ~known | (classes == _UNKNOWN)
        if odd.any():
            names = some(map(str, np.unique(ids[odd]).tolist()), 8)
            raise SampleError(f"masks hold ids other than {self.expected}", f"ids {names}")
        return classes
