"""A source that has been opened: what it lists, and which classes its masks hold."""

from __future__ import annotations

from functools import cached_property

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.scanning import no_classes, scan_presence
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Classes, Item
from s4mim_hf.data.splits import ClassPresence
from s4mim_hf.errors import InputError, check_names


class RawData:
    """A source and its images, for any number of plans: masks are looked through at most once.

    Args:
        options: which source.

    Raises:
        InputError: the source cannot be opened, has no training images, or none with a mask that may be drawn.
    """

    def __init__(self, options: PrepareOptions) -> None:
        self.source = open_source(options)
        self.listing = self.source.listing()
        self._where = f"{options.kind} {options.source}"
        training = self.listing.training
        check_names(item.id for item in training)
        if not training:
            raise InputError(f"all images of {options.source} are validation images; training needs some more")
        if not self.drawable:
            raise InputError(
                f"none of the {len(training)} training images of {options.source} has a mask that may be used; "
                "training needs some"
            )

    @cached_property
    def drawable(self) -> list[Item]:
        """The training images that may keep their masks in a draw, sorted by id."""
        labelable = self.listing.labelable
        return [
            item
            for item in self.listing.training
            if item.label is not None and (labelable is None or item.id in labelable)
        ]

    @cached_property
    def classes(self) -> Classes:
        """The classes.

        Raises:
            InputError: nothing names them; says which ids the masks hold.
        """
        if self.source.classes is None:
            labeled = [item for item in self.listing.training if item.label is not None]
            raise no_classes(self.source, [*labeled, *(self.listing.validation or [])], self._where)
        return self.source.classes

    @cached_property
    def presence(self) -> ClassPresence:
        """The classes that the images of `drawable` hold.

        Raises:
            InputError: nothing names the classes, or some masks cannot be used; all are read and checked.
        """
        assert self.classes
        return scan_presence(self.source, self.drawable)

    def is_scanned(self, item: Item) -> bool:
        """Return whether an item's mask has been looked at for `presence`, and so need not be checked again."""
        labelable = self.listing.labelable
        return "presence" in self.__dict__ and (labelable is None or item.id in labelable)
