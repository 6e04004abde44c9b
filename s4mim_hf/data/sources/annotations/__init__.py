"""Labels that an annotation tool has left as shapes in JSON, instead of masks: LabelMe's files, or COCO's.

SOURCE holds the pictures, in images/ or directly, and --annotations names the JSON file, or the folder that has JSON
files in it, which may be SOURCE itself. An image without annotations is unlabelled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.sources.annotations.coco_json import CocoJson, is_coco
from s4mim_hf.data.sources.annotations.drawings import Annotations, Pictures
from s4mim_hf.data.sources.annotations.labelme import LabelMe, is_labelme
from s4mim_hf.data.sources.annotations.source import AnnotatedSource
from s4mim_hf.data.sources.base import IGNORE_INDEX, Classes, Source
from s4mim_hf.data.sources.class_names import agreed_classes, checked_classes, read_classes
from s4mim_hf.data.sources.folder import files_by_id
from s4mim_hf.errors import InputError, some

_NO_CLASS = "__ignore__"
_EXPECTED = "--annotations takes LabelMe's or COCO's JSON, or a folder of it"


def open_annotated(options: PrepareOptions) -> Source:
    """Open a folder of pictures whose labels are in LabelMe's or COCO's JSON.

    All annotation files are read and checked here; pictures are not opened.

    Raises:
        InputError: a file is missing or is neither, a shape cannot be used, a label is no class, a picture is missing
            or annotated twice, or nothing names the classes.
    """
    assert options.annotations is not None
    if options.color_table is not None:
        raise InputError("--color-table is for masks, but --annotations gives shapes instead of them; leave one out")
    folder = options.folder()
    root = folder / "images" if (folder / "images").is_dir() else folder
    images, notes = files_by_id(root, expected=(".json", ".txt"))
    annotations, left_out = _read(options.annotations, Pictures(images, root))
    annotations.problems.refuse()
    if not annotations.references:
        raise InputError(f"{options.annotations} annotates no picture; {_EXPECTED} for the pictures below {root}")
    classes = _classes(options, folder, annotations)
    if left_out:
        notes.append(f"{len(left_out)} JSON files are neither LabelMe's nor COCO's and are left out: {some(left_out)}")
    return AnnotatedSource(options.name or folder.resolve().name, classes, annotations, notes)


def _read(path: Path, pictures: Pictures) -> tuple[Annotations, list[str]]:
    """Read all annotation files, one in memory at a time; also return those that are none."""
    folder = path if path.is_dir() else path.parent
    labelme, coco = LabelMe(pictures, folder), CocoJson(pictures)
    files: dict[str, Path] = {}
    others = []
    for file in _json_files(path):
        content = _load(file)
        if is_labelme(content):
            labelme.add(file, content)
            files.setdefault("LabelMe", file)
        elif is_coco(content):
            coco.add(file, content)
            files.setdefault("COCO", file)
        else:
            others.append(file.name)
    if len(files) == 2:
        raise InputError(
            f"{files['LabelMe']} is LabelMe's and {files['COCO']} is COCO's; give --annotations one of them"
        )
    if not files:
        found = f"{path} is neither" if path.is_file() else f"{path} has none in its {len(others)} JSON files"
        raise InputError(f"{_EXPECTED}, but {found}")
    return (labelme if "LabelMe" in files else coco), others


def _json_files(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the JSON files below a folder in the order of their names."""
    if not path.exists():
        raise InputError(f"there is no {path}; {_EXPECTED}")
    if path.is_file():
        yield path
        return
    for parent, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(".json") and not name.startswith(".") and name != "classes.json":
                yield Path(parent, name)


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is no JSON file that can be read ({error}); export it again, or remove it") from None


def _classes(options: PrepareOptions, folder: Path, annotations: Annotations) -> Classes:
    """Return the classes that --classes, classes.json, labels.txt or the annotation files themselves name."""
    assert options.annotations is not None
    beside = options.annotations if options.annotations.is_dir() else options.annotations.parent
    written = [path for place in (folder, beside) if (path := place / "classes.json").exists()]
    listed = [path for place in (folder, beside) if (path := place / "labels.txt").exists()]
    classes = None
    if options.classes is not None:
        names = [name for name in options.classes if name.strip() != _NO_CLASS]
        classes, _ = checked_classes(names, IGNORE_INDEX, "--classes")
    if written and (found := read_classes(written[0])) is not None:
        return found[0] if classes is None else agreed_classes(classes, "--classes", found[0], written[0])
    if classes is not None:
        return classes
    if listed:
        return _read_label_list(listed[0])
    if annotations.class_names():
        return checked_classes(annotations.class_names(), IGNORE_INDEX, f"{annotations.tool}'s categories")[0]
    labels = sorted(label for label in annotations.counts if label != _NO_CLASS)
    found_labels = some((f"{label} ({annotations.counts[label]})" for label in labels), 255)
    raise InputError(
        f"nothing names the classes; the labels of {options.annotations}, and their shapes, are {found_labels}; "
        f"give --classes {','.join(labels)} in the order of their ids, with background first where it is to be learnt, "
        f"or write labels.txt"
    )


def _read_label_list(path: Path) -> Classes:
    """Read LabelMe's list of labels: one a line; "__ignore__" is no class."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no text that can be read ({error}); it should name one label a line") from None
    return checked_classes([line for line in lines if line and line != _NO_CLASS], IGNORE_INDEX, str(path))[0]
