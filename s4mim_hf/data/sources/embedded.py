"""The embedded scenes as a source: rendered in memory, with splits of their own."""

from __future__ import annotations

import numpy as np

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepared.record import SYNTHETIC, SYNTHETIC_PROTOCOL
from s4mim_hf.data.sources.base import Classes, Item, Listing, Source
from s4mim_hf.data.sources.reading import decode_class_map
from s4mim_hf.data.synthetic import CLASSES, PALETTE, synthetic_splits


class EmbeddedSource(Source):
    """The scenes of one seed.

    Args:
        seed: they are rendered from it.
        name: what the data set is called.
    """

    def __init__(self, seed: int, name: str | None = None) -> None:
        self.name = name or SYNTHETIC
        self.title = name or "Synthetic scenes"
        self.classes = Classes(CLASSES, PALETTE)
        self.protocol = SYNTHETIC_PROTOCOL
        self.note = "Rendered by s4mim_hf.data.synthetic."
        splits = synthetic_splits(seed)
        self._rows = [*splits["labeled"], *splits["unlabeled"], *splits["validation"]]
        self._training = len(splits["labeled"]) + len(splits["unlabeled"])

    def listing(self) -> Listing:
        """List the scenes; those of validation are the source's own."""
        items = [Item(row["id"], index, index if "label" in row else None) for index, row in enumerate(self._rows)]
        return Listing(items[: self._training], items[self._training :])

    def read_label(self, item: Item) -> np.ndarray:
        """Return a scene's label map; see `Source.read_label`."""
        assert isinstance(item.label, int)
        return decode_class_map(self._rows[item.label]["label"])

    def read_image(self, item: Item) -> bytes:
        """Return a scene's PNG."""
        assert isinstance(item.image, int)
        image: bytes = self._rows[item.image]["image"]
        return image


def open_embedded(options: PrepareOptions) -> Source:
    """Render the scenes of the options' seed."""
    return EmbeddedSource(options.seed, options.name)
