"""Where the runs of an ablation get their data: one labelled draw for each label fraction and seed.

Three ways: draws of a raw folder, which are prepared once below the ablation's folder; the embedded scenes, rendered
from each seed; or one prepared folder, whose labelled images are what they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.plan import RawData, make_plan
from s4mim_hf.data.prepare import files_hash, prepare
from s4mim_hf.data.prepared import SYNTHETIC, load_prepared
from s4mim_hf.data.splits import parse_labeled, split_hash
from s4mim_hf.data.synthetic import SPLIT_SIZES, synthetic_ids
from s4mim_hf.errors import InputError

ALL = "all"
RAW_FILE = "raw_images.sha256"
"""Beside the draws of raw images: the hash of the files that the last of them were made from."""
Draw = tuple[str, int]
"""A label fraction and a seed."""


class DataSource(ABC):
    """Gives each draw a `data.path`.

    Attributes:
        fractions: the label fractions, as they are called in tables.
        no_ceiling: why not all labels can be had, as a sentence; None where they can.
        description: what is trained on, in words.
        content_hash: of prepared data, which somebody may have prepared anew; see `PreparedData`.
    """

    fractions: tuple[str, ...]
    no_ceiling: str | None = None
    description: str
    content_hash: str | None = None

    @abstractmethod
    def path(self, fraction: str, seed: int) -> str:
        """Return the run's `data.path`; the fraction "all" is that of the ceiling."""

    @abstractmethod
    def split_hash(self, fraction: str, seed: int) -> str:
        """Return the hash of the draw's ids, whether it has been prepared or not.

        Raises:
            InputError: the draw cannot be made.
        """

    def prepare(self, draws: Iterable[Draw], say: Callable[[str], None]) -> None:
        """Make what is not there yet.

        Args:
            draws: which are needed.
            say: called with each thing that a person should know, once.

        Raises:
            InputError: the raw data does not fit, has changed since others of these were made, or another draw is in
                the place of one of these.
        """
        return None


class RawSource(DataSource):
    """Seeded draws of raw images, with the same validation images in all of them.

    The masks are looked through once, for all draws.

    Args:
        options: what to prepare; `output`, `labeled` and `seed` are set for each draw.
        labeled: the label fractions asked for; none: see `default_fraction`.
        folder: where the draws are written.

    Raises:
        InputError: a fraction is none, is given twice, there would be nothing to measure on, or the raw images cannot
            be found.
    """

    def __init__(self, options: PrepareOptions, labeled: Sequence[str], folder: Path) -> None:
        self._raw = RawData(options)
        self.fractions = tuple(parse_labeled(text).text for text in labeled or [default_fraction(self._raw)])
        doubled = next((text for text in self.fractions if self.fractions.count(text) > 1), None)
        if doubled is not None:
            raise InputError(f"--labeled names {doubled} twice; name each fraction once")
        if options.validation == "none":
            raise InputError("--validation none leaves nothing to compare rows by; leave some images for validation")
        self.options = options
        self.folder = folder
        self._hashes: dict[str, str] = {}
        self.description = (
            f"{self._raw.source.name}, labelled images drawn by each run's seed, the same validation images for all"
        )
        if self.fractions == (ALL,):
            self.no_ceiling = "with --labeled all every row has all labels"

    def path(self, fraction: str, seed: int) -> str:
        """Return the draw's folder; all labels are the same images for every seed, and prepared once."""
        place = self.folder / fraction.replace("/", "-")
        return str(place if fraction == ALL else place / f"seed_{seed}")

    def split_hash(self, fraction: str, seed: int) -> str:
        """Draw, but prepare nothing; see `DataSource.split_hash`."""
        path = self.path(fraction, seed)
        if path not in self._hashes:
            self._hashes[path] = split_hash(make_plan(self._options(fraction, seed), self._raw).ids())
        return self._hashes[path]

    def _options(self, fraction: str, seed: int) -> PrepareOptions:
        output = Path(self.path(fraction, seed))
        return replace(self.options, output=output, labeled=fraction, seed=0 if fraction == ALL else seed)

    def prepare(self, draws: Iterable[Draw], say: Callable[[str], None]) -> None:
        """Check every draw, then prepare those that are not there; see `DataSource.prepare`."""
        # All labels are one draw, whatever the seed.
        wanted = {self.path(*draw): draw for draw in draws}
        missing = [self._options(*draw) for draw in wanted.values() if not self._is_there(*draw)]
        said: set[str] = set()

        def say_once(note: str) -> None:
            if note not in said:
                said.add(note)
                say(note)

        files = files_hash(make_plan(self._options(ALL, 0), self._raw))
        self._check_files(files, more=bool(missing), say=say)
        for options in missing:
            prepare(options, say_once, self._raw)
            # Only now: where a mask cannot be used, it is corrected before the next call.
            (self.folder / RAW_FILE).write_text(f"{files}\n", encoding="utf-8")

    def _check_files(self, found: str, *, more: bool, say: Callable[[str], None]) -> None:
        """Notice that pictures or masks have changed since the last draw was made: draws hold copies of them.

        Args:
            found: the files' hash.
            more: whether further draws are to be made, which would then be of other data than the rest.
            say: see `DataSource.prepare`.

        Raises:
            InputError: they have changed, and further draws are needed.
        """
        record = self.folder / RAW_FILE
        if not record.is_file() or record.read_text(encoding="utf-8").strip() == found:
            return
        if not any(self.folder.rglob("splits.json")):
            # All draws have been deleted, as a message advised.
            return
        changed = (
            f"images, masks or class names of {self.options.source} have changed since the draws in {self.folder} were "
            "made (by the files' sizes and times)"
        )
        if more:
            raise InputError(
                f"{changed}, and more draws are needed, which would not compare with them; name another --output, or "
                f"delete {record} if only the files' times differ, as after a copy"
            )
        say(f"{changed}; runs go on with what was copied then: name another --output to compare on what is there now")

    def _is_there(self, fraction: str, seed: int) -> bool:
        """Whether the draw has been prepared.

        Raises:
            InputError: the draw cannot be made, or its folder holds another.
        """
        expected, folder = self.split_hash(fraction, seed), Path(self.path(fraction, seed))
        if not (folder / "splits.json").is_file():
            return False
        found = load_prepared(folder, unlabeled=False).split_hash
        if found != expected:
            raise InputError(
                f"{folder} holds another draw (split hash {found[:12]}) than {self.options.source} gives now "
                f"({expected[:12]}); name another --output, or delete that folder and the runs on it"
            )
        return True


def default_fraction(raw: RawData) -> str:
    """Return "1/8" where any training image may be labelled, and "all" where some may not: they are the unlabelled."""
    return ALL if len(raw.drawable) < len(raw.listing.training) else "1/8"


@dataclass
class SyntheticSource(DataSource):
    """The embedded scenes.

    Args:
        scenes: the seed that they are rendered from; None: each run's own.
    """

    scenes: int | None = None

    def __post_init__(self) -> None:
        self.fractions = (str(SPLIT_SIZES["labeled"]),)
        of = "each run's seed" if self.scenes is None else f"seed {self.scenes}"
        self.description = f"embedded synthetic scenes, rendered from {of}, validation included"

    def path(self, fraction: str, seed: int) -> str:
        """Return "synthetic:SEED", with ":all" for all labels."""
        scenes = seed if self.scenes is None else self.scenes
        return f"{SYNTHETIC}:{scenes}" + (":all" if fraction == ALL else "")

    def split_hash(self, fraction: str, seed: int) -> str:
        """Return the hash of the scenes' ids; see `DataSource.split_hash`."""
        return split_hash(synthetic_ids(seed if self.scenes is None else self.scenes, all_labels=fraction == ALL))


class PreparedSource(DataSource):
    """A prepared folder, the same for all seeds.

    Raises:
        InputError: it is none, or has no validation split.
    """

    def __init__(self, path: str) -> None:
        data = load_prepared(path, unlabeled=False)
        if data.validation is None:
            raise InputError(f"{path} has no validation split to compare rows by; prepare it with one")
        self.data_path, self._hash, self.content_hash = path, data.split_hash, data.content_hash
        self.fractions = (str(len(data.labeled)),)
        self.no_ceiling = (
            f"{path} has the labels of {len(data.labeled)} images only; for the ceiling give the raw images "
            "(--source DIR), of which draws are made"
        )
        self.description = f"{data.name} as prepared: one labelled set, only the runs' seeds vary"

    def path(self, fraction: str, seed: int) -> str:
        """Return the folder."""
        return self.data_path

    def split_hash(self, fraction: str, seed: int) -> str:
        """Return the folder's."""
        return self._hash


def source_of(
    data_path: str | None, options: PrepareOptions | None, labeled: Sequence[str], folder: Path
) -> DataSource:
    """Choose the way of the three.

    Args:
        data_path: what the recipe or an override says; None where neither does. Not read where `options` are given.
        options: what to prepare, where raw images are given.
        labeled: the label fractions asked for.
        folder: where draws are written.

    Raises:
        InputError: there is no data, or fractions are asked of data whose labelled images are fixed.
    """
    if options is not None:
        return RawSource(options, labeled, folder)
    if data_path is None:
        raise InputError("there is no data: give raw images with --source DIR, or a prepared folder with data.path=DIR")
    if labeled:
        raise InputError(
            f"--labeled {','.join(labeled)} needs --source: the labelled images of data.path={data_path} are what they "
            "are; give the raw images to draw from"
        )
    if data_path == SYNTHETIC:
        return SyntheticSource()
    name, _, seed = data_path.partition(":")
    return SyntheticSource(int(seed)) if name == SYNTHETIC and seed.isdecimal() else PreparedSource(data_path)
