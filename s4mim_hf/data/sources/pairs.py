"""Pictures in one folder and their label files in another."""

from __future__ import annotations

from pathlib import Path

from s4mim_hf.data.sources.base import Item
from s4mim_hf.data.sources.folder import files_by_id, require_folder
from s4mim_hf.errors import InputError, some


def paired_items(images: Path, labels: Path, part_of: str, prefix: str = "", ending: str = "") -> list[Item]:
    """Return the pictures of a folder, sorted by id, with their label files where these are there.

    Args:
        images: folder of pictures; a picture's id is its path below it without suffix.
        labels: folder of label files.
        part_of: what both belong to, for messages.
        prefix: put before each id.
        ending: what a label file's name has after the picture's, as "_GT".

    Raises:
        InputError: a folder is missing, there are no pictures, or a label file has no picture.
    """
    for folder in (images, labels):
        require_folder(folder, f"it is part of {part_of}")
    pictures, _ = files_by_id(images)
    if not pictures:
        raise InputError(f"there are no images in {images}; it is part of {part_of}: unpack that again")
    files = {name.removesuffix(ending): path for name, path in files_by_id(labels)[0].items()}
    alone = sorted(set(files) - set(pictures))
    if alone:
        raise InputError(
            f"{len(alone)} label files of {labels} have no image in {images}: {some(alone)}; "
            f"unpack {part_of} again, or take them away"
        )
    return [Item(prefix + name, pictures[name], files.get(name)) for name in sorted(pictures)]
