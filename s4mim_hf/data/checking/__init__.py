"""Check data before it costs GPU hours: a prepared folder, or the raw data that one is to be made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s4mim_hf.data.checking.findings import Seen
from s4mim_hf.data.checking.gathering import gather
from s4mim_hf.data.checking.pictures import SourceSample
from s4mim_hf.data.checking.report import CheckReport, make_report
from s4mim_hf.data.checking.stored import StoredSamples, compare_with_record, read_record
from s4mim_hf.data.checking.twins import Pictures, find_lookalikes, find_twins, lookalikes_of_a_draw
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepared.download import HUB_PREFIX, download_prepared
from s4mim_hf.data.sources import open_source
from s4mim_hf.data.sources.base import Listing, Source
from s4mim_hf.errors import InputError

__all__ = ["CheckReport", "check", "check_source"]

# As much as a draw takes where nobody says otherwise.
DRAWN_SHARE = 0.2


def check(path: str | Path) -> CheckReport:
    """Check a folder: one that was prepared (it has splits.json), or a raw one (it has images/ and masks/).

    Every picture and label is decoded once.

    Args:
        path: the folder, or "hf://datasets/USER/NAME" for a prepared data set of the Hub, which is downloaded.

    Raises:
        InputError: the folder is neither, or so broken that there is nothing to look at.
    """
    folder = download_prepared(str(path)) if str(path).startswith(HUB_PREFIX) else Path(path)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give a prepared one, or one with images/ and masks/ in it")
    if (folder / "splits.json").is_file() or (folder / "data").is_dir():
        return _check_prepared(folder)
    if (folder / "images").is_dir():
        return check_source(open_source(PrepareOptions(kind="folder", output=folder, source=str(folder))))
    raise InputError(
        f"{folder} is neither a prepared folder (it has no splits.json) nor a raw one (it has no images/); give one of "
        "these, or prepare the data first"
    )


def check_source(source: Source) -> CheckReport:
    """Check all images and labels of a source before splits are drawn from it.

    Its training images with a label count as labelled ones, the others as unlabelled ones.

    Raises:
        InputError: a folder or file of the layout is missing, two images share an id, or there are none.
    """
    listing = source.listing()
    total = len(listing.training) + len(listing.validation or ())
    names = None if source.classes is None else source.classes.names
    numbers = gather(_samples_of(source, listing), total, None if names is None else len(names))
    training = Pictures([numbers["labeled"], numbers["unlabeled"]])
    drawn = listing.validation is None
    alike = (
        lookalikes_of_a_draw(training, DRAWN_SHARE)
        if drawn
        else find_lookalikes(Pictures([numbers["validation"]]), training)
    )
    seen = Seen(names, numbers, find_twins(numbers), alike, drawn=drawn, prepared=False)
    return make_report(source.name, seen, notes=tuple(listing.notes))


def _samples_of(source: Source, listing: Listing) -> Iterator[SourceSample]:
    for item in listing.training:
        labeled = item.label is not None and (listing.labelable is None or item.id in listing.labelable)
        yield SourceSample("labeled" if labeled else "unlabeled", item, source, labeled)
    for item in listing.validation or ():
        yield SourceSample("validation", item, source, True)


def _check_prepared(folder: Path) -> CheckReport:
    record = read_record(folder)
    samples = StoredSamples(folder, record)
    numbers = gather(samples, sum(map(len, record.ids.values())), len(record.classes))
    training = Pictures([numbers["labeled"], numbers["unlabeled"]])
    alike = find_lookalikes(Pictures([numbers["validation"]]), training)
    seen = Seen(record.classes, numbers, find_twins(numbers), alike, drawn=False, prepared=True)
    problems = [*record.problems, *samples.problems, *compare_with_record(record, numbers, folder)]
    return make_report(record.name, seen, split_hash=record.split_hash, problems=problems)
