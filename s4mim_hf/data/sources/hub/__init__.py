"""Any data set that the `datasets` library reads, with a column of pictures and one of masks.

It may be a repository of the Hugging Face Hub (USER/NAME, or USER/NAME@REVISION), or a local folder of parquet files,
an image folder with a metadata file, or what `save_to_disk` has written.
"""

from __future__ import annotations

from typing import Any

import datasets

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Source
from s4mim_hf.data.sources.class_names import checked_classes, read_classes
from s4mim_hf.data.sources.color_table import ColorTable, read_color_table
from s4mim_hf.data.sources.hub.columns import choose_columns, choose_splits, is_array, names_of_ids
from s4mim_hf.data.sources.hub.label_map import LabelMap, read_label_map
from s4mim_hf.data.sources.hub.loading import Loaded, load
from s4mim_hf.data.sources.hub.source import HubSource
from s4mim_hf.data.sources.special_names import is_ignored
from s4mim_hf.errors import InputError, some


def open_hub(options: PrepareOptions) -> Source:
    """Load a data set (from the Hub, into the cache of `datasets`) and choose its splits and columns.

    Raises:
        InputError: there is no such data set or it cannot be reached, a split or column is missing or is not what it
            should be, or the names of the classes contradict each other.
    """
    if options.source is None:
        raise InputError("--source is needed for 'hub': the id of a data set such as USER/NAME, or a local path")
    if options.color_table is not None and options.label_map is not None:
        raise InputError("--color-table gives the ids of colours and --label-map those of ids; leave one of them out")
    loaded = load(options.source, options.config_name)
    splits, notes = choose_splits(list(loaded.splits), options.train_split, options.validation_split)
    features = loaded.splits[splits[0]].features
    image, label = choose_columns(features, options.image_column, options.label_column, options.source)
    if options.color_table is not None and is_array(features[label]):
        raise InputError(
            f"--color-table is for masks that are pictures, but column {label!r} of {options.source} holds arrays of "
            "ids; use --label-map or --classes"
        )
    notes.append(f"pictures are those of column {image!r}, masks those of {label!r}")
    classes, mapping, table = _classes(options, loaded, features[label])
    if classes is not None and mapping is None and table is None:
        notes += [
            f"class {class_id} is called {name!r} and is learnt like any other; --label-map may map it to null, ignored"
            for class_id, name in enumerate(classes.names)
            if is_ignored(name)
        ]
    tables = {name: loaded.splits[name] for name in splits}
    for name, rows in tables.items():
        missing = [column for column in (image, label) if column not in rows.column_names]
        if missing:
            raise InputError(
                f"the split {name!r} of {options.source} has no column {missing[0]!r}; choose other splits"
            )
    return HubSource(options.name or loaded.name, loaded, tables, (image, label), (classes, mapping, table), notes)


def _classes(
    options: PrepareOptions, loaded: Loaded, feature: Any
) -> tuple[Classes | None, LabelMap | None, ColorTable | None]:
    """Return the classes, and what turns the values of masks into ids: a label map, a colour table, or neither.

    Names come from --classes, else the label map, else id2label.json or classes.json beside the data, else the
    column's own type.
    """
    given = None if options.classes is None else checked_classes(options.classes, IGNORE_INDEX, "--classes")[0]
    if options.color_table is not None:
        table = read_color_table(options.color_table, None if given is None else given.names)
        return table.classes, None, table
    own = _own_names(loaded, feature) if given is None else None
    if options.label_map is None:
        if given is not None or own is None:
            return given, None, None
        return _in_order(own, loaded.name), None, None
    mapping = read_label_map(options.label_map, None if given is None else given.names, own or {})
    return (None if mapping.names is None else Classes(mapping.names)), mapping, None


def _own_names(loaded: Loaded, feature: Any) -> dict[int, str] | None:
    """Return the names that the data set itself gives to the values of its masks."""
    path = loaded.side_file("id2label.json")
    if path is not None:
        return names_of_ids(path)
    path = loaded.side_file("classes.json")
    written = None if path is None else read_classes(path)
    if written is not None:
        return dict(enumerate(written[0].names))
    while isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    return dict(enumerate(feature.names)) if isinstance(feature, datasets.ClassLabel) else None


def _in_order(names: dict[int, str], where: str) -> Classes:
    """Return names as classes, once their ids are 0 .. K-1."""
    if sorted(names) != list(range(len(names))):
        raise InputError(
            f"{where} names the ids {some(map(str, sorted(names)), 8)}, but masks need the ids 0 to {len(names) - 1}; "
            "give new ones with --label-map"
        )
    return checked_classes([names[number] for number in sorted(names)], IGNORE_INDEX, where)[0]
