"""Rows of a data set as images and labels. Nothing is decoded but masks, and only the ids of the rows are kept."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

from s4mim_hf.data.sources.base import Classes, Item, Listing, SampleError, Source
from s4mim_hf.data.sources.color_table import ColorTable, decode_color_map
from s4mim_hf.data.sources.folder import protocol_of
from s4mim_hf.data.sources.hub.columns import is_array
from s4mim_hf.data.sources.hub.label_map import LabelMap
from s4mim_hf.data.sources.hub.loading import Loaded
from s4mim_hf.data.sources.hub.stored import RowIds, as_stored, chunks_of, read_path
from s4mim_hf.data.sources.reading import decode_class_map


class HubSource(Source):
    """Rows of one or two splits; an item's references are its row, counted through both.

    Args:
        name: what the data set is called.
        loaded: where it is from.
        tables: the split to train on, then the one to validate on where there is one.
        columns: the names of the columns of pictures and of masks.
        meaning: the classes where they are known, and what turns the masks' values into their ids.
        notes: what a person should know already.
    """

    def __init__(
        self,
        name: str,
        loaded: Loaded,
        tables: Mapping[str, datasets.Dataset],
        columns: tuple[str, str],
        meaning: tuple[Classes | None, LabelMap | None, ColorTable | None],
        notes: Sequence[str],
    ) -> None:
        self.name = name
        self.title = loaded.title
        self.note = loaded.origin
        self.classes, self._map, self._colors = meaning
        self.protocol = protocol_of(self.classes)
        self._folder = loaded.folder
        self._splits = list(tables)
        self._notes = notes
        self._tables = list(tables.values())
        image, label = columns
        # The arrow format gives rows as they are stored: no picture is decoded.
        self._ids = [RowIds(split, table, image, loaded.folder) for split, table in tables.items()]
        self._images = [table.select_columns([image]).with_format("arrow") for table in tables.values()]
        self._arrays = is_array(next(iter(tables.values())).features[label])
        form = "numpy" if self._arrays else "arrow"
        self._labels = [table.select_columns([label]).with_format(form) for table in tables.values()]

    def listing(self) -> Listing:
        """List the rows; see `Source.listing`. One whose mask is null is unlabelled."""
        found = [self._items(number) for number in range(len(self._splits))]
        notes = list(self._notes)
        if len(found) == 1:
            return Listing(found[0], notes=notes)
        validation = [item for item in found[1] if item.label is not None]
        bare = len(found[1]) - len(validation)
        if bare:
            notes.append(f"{bare} rows of {self._splits[1]!r} have no mask and are left out")
        return Listing(found[0], validation or None, notes=notes)

    def read_image(self, item: Item) -> bytes:
        """Return the bytes of a row's picture; see `Source.read_image`."""
        data, path = self._stored(self._images, item.image)
        if data is None and path is None:
            raise SampleError("images are missing from their rows")
        return data if data is not None else read_path("images", str(path), self._folder)

    def read_label(self, item: Item) -> np.ndarray:
        """Decode a row's mask; see `Source.read_label`."""
        if self._arrays:
            label = self._array(item)
        else:
            data, path = self._stored(self._labels, item.label)
            data = read_path("masks", str(path), self._folder) if data is None else data
            label = decode_class_map(data) if self._colors is None else decode_color_map(data, self._colors)
        return label if self._map is None else self._map.apply(label)

    def file_name(self, item: Item) -> str:
        """Return what the picture's file was called, or the end of its id and the suffix of its format."""
        data, path = self._stored(self._images, item.image)
        if path is not None:
            return path.replace("\\", "/").rsplit("/", 1)[-1]
        try:
            with Image.open(io.BytesIO(data or b"")) as image:
                suffix = str(image.format).lower().replace("jpeg", "jpg")
        except Exception:
            # Whoever decodes the picture says what is wrong with it.
            suffix = "png"
        return f"{item.id.rsplit('/', 1)[-1]}.{suffix}"

    def depends_on(self) -> list[Path]:
        """Return the files that the rows are in; see `Source.depends_on`."""
        return [Path(file["filename"]) for table in self._tables for file in table.cache_files]

    def _items(self, number: int) -> list[Item]:
        start = sum(len(table) for table in self._images[:number])
        ids = self._ids[number].read()
        empty = _empty_rows(self._labels[number])
        items = [
            Item(image_id, start + row, None if none else start + row)
            for row, (image_id, none) in enumerate(zip(ids, empty, strict=True))
        ]
        return sorted(items, key=lambda item: item.id)

    def _row(self, tables: Sequence[datasets.Dataset], reference: Any) -> Any:
        """Return a row of the two splits, counted through both."""
        assert isinstance(reference, int)
        for table in tables:
            if reference < len(table):
                return table[reference]
            reference -= len(table)
        raise IndexError(reference)

    def _stored(self, tables: Sequence[datasets.Dataset], reference: Any) -> tuple[bytes | None, str | None]:
        """Return the bytes of a picture, or its path, as the row has them."""
        return as_stored(self._row(tables, reference))

    def _array(self, item: Item) -> np.ndarray:
        (array,) = self._row(self._labels, item.label).values()
        label = np.asarray(array)
        if label.ndim != 2 or label.dtype == object:
            raise SampleError("masks are arrays whose rows differ in length")
        ids = label.astype(np.int64)
        if not np.array_equal(ids, label):
            raise SampleError("masks are arrays of numbers that are no whole ids")
        return ids


def _empty_rows(table: datasets.Dataset) -> list[bool]:
    """Return which rows of a table of one column are null, or are pictures with neither bytes nor a path."""
    empty: list[bool] = []
    for chunk in chunks_of(table, table.column_names[0]):
        none = chunk.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_struct(chunk.type):
            fields = [name for name in ("bytes", "path") if chunk.type.get_field_index(name) >= 0]
            parts = [chunk.field(name).is_null().to_numpy(zero_copy_only=False) for name in fields]
            none = none | np.logical_and.reduce(parts) if parts else none
        empty += none.tolist()
    return empty
