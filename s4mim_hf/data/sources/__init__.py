"""Forms in which images and labels lie, one module each; a form's libraries are imported when it is used."""

from __future__ import annotations

from importlib import import_module

from s4mim_hf.data.options import PrepareOptions, check_options
from s4mim_hf.data.sources.base import Source

_OPENERS = {
    "folder": ("folder", "open_folder"),
    "msrc21": ("msrc21", "open_msrc21"),
    "camvid": ("camvid", "open_camvid"),
    "voc": ("voc", "open_voc"),
    "cityscapes": ("cityscapes", "open_cityscapes"),
    "coco": ("coco", "open_coco"),
    "ade20k": ("ade20k", "open_ade20k"),
    "hub": ("hub", "open_hub"),
    "synthetic": ("embedded", "open_embedded"),
}


def open_source(options: PrepareOptions) -> Source:
    """Return the source that `options` describe; no picture is opened yet.

    Raises:
        InputError: the kind is unknown or does not take an option, or its folder is missing.
    """
    check_options(options)
    module, function = _OPENERS[options.kind]
    source: Source = getattr(import_module(f"{__name__}.{module}"), function)(options)
    return source


def layout_of(kind: str) -> str:
    """Return how the data of a kind must lie, as its module says."""
    return import_module(f"{__name__}.{_OPENERS[kind][0]}").__doc__ or ""
