"""From what a person asked for to the list of runs: one validated configuration each, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.engine.checkpoint import MAY_DIFFER
from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.results import config_hash
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError, nearest
from s4mim_hf.experiments.cells import Cell, folder_of
from s4mim_hf.experiments.draws import ALL, DataSource, SyntheticSource, source_of
from s4mim_hf.experiments.earlier import earlier_cells
from s4mim_hf.experiments.rows import (
    BASE,
    FULLY_SUPERVISED,
    ROWS,
    SUPERVISED,
    Row,
    check_overrides,
    row_overrides,
    rows_of,
)


@dataclass(frozen=True)
class AblationOptions:
    """What was asked for, as on the command line of `scripts/ablate.py`.

    Attributes:
        recipe: a recipe's name, or a YAML file.
        rows: names of rows; none: all that the data allows.
        seeds: of the runs, and of the labelled draws.
        labeled: label fractions, for raw images.
        source: folder of raw images to draw from; None: the data that recipe and overrides name.
        kind: how the raw images are laid out; None: the recipe's name where the catalog has it, else "folder".
        validation: as `scripts/prepare_data.py` takes it, for raw images.
        classes: class names, for raw images without classes.json.
        relative_to: the row that differences are to; None: base, or else supervised.
        jobs: how many runs go on at once.
        output: the ablation's folder; None: runs/ablation-RECIPE.
        overrides: settings for all rows, `key=value`.
        command: the command line, to be printed with the results.
    """

    recipe: str = "demo"
    rows: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    labeled: Sequence[str] = ()
    source: Path | None = None
    kind: str | None = None
    validation: str | None = None
    classes: Sequence[str] | None = None
    relative_to: str | None = None
    jobs: int = 1
    output: Path | None = None
    overrides: Sequence[str] = ()
    command: str = ""


@dataclass(frozen=True)
class AblationPlan:
    """All runs, and how their results are put together.

    Attributes:
        output: the ablation's folder.
        source: where the data is from.
        cells: the runs in their order: all rows of a seed before the next seed, so that pairs are complete early.
        earlier: finished runs of earlier calls in the same folder, with the same settings; tables hold them as well.
        rows: of all these, in the order of the tables.
        fractions: likewise.
        seeds: likewise.
        relative_to: the row that differences are to; None where no row serves.
        notes: what a person should know, in sentences.
    """

    output: Path
    source: DataSource
    cells: list[Cell]
    earlier: list[Cell]
    rows: list[Row]
    fractions: list[str]
    seeds: list[int]
    relative_to: str | None
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> list[Cell]:
        """The runs that are in the tables once they are finished."""
        return [*self.cells, *self.earlier]

    def cells_of(self, fraction: str, row: Row) -> list[Cell]:
        """Return the runs of one line of one table."""
        fraction = ALL if row.all_labels else fraction
        return [cell for cell in self.shown if cell.row is row and cell.fraction == fraction]


def plan_ablation(options: AblationOptions) -> AblationPlan:
    """Choose rows and data, and build and check every run's configuration; nothing is written.

    Raises:
        InputError: anything asked for does not exist, does not fit together or is out of range.
    """
    _check_numbers(options)
    # Keys of methods are each row's matter: the recipe's own method may lack them.
    shared = [text for text in options.overrides if not text.strip().startswith("method.")]
    base = load_run_config(options.recipe, [*shared, "data.path=data"])
    output = options.output or Path("runs") / f"ablation-{base.recipe}"
    source = _choose_source(options, base, shared, output)
    rows, notes = _choose_rows(options, source)
    check_overrides(rows, options.recipe, options.overrides)
    configs = {row.name: _row_config(row, options) for row in rows}

    def cell_of(fraction: str, row: Row, seed: int) -> Cell:
        config = configs[row.name] = configs.get(row.name) or _row_config(row, options)
        data = replace(config.data, path=source.path(fraction, seed))
        folder = folder_of(output, fraction, row, seed)
        config = replace(config, seed=seed, data=data, output_dir=str(folder))
        return Cell(fraction, row, seed, config, source.split_hash(fraction, seed), source.content_hash)

    # The ceiling first: it belongs to every fraction.
    lines = [(ALL, row) for row in rows if row.all_labels]
    lines += [(fraction, row) for fraction in source.fractions for row in rows if not row.all_labels]
    cells = [cell_of(fraction, row, seed) for seed in options.seeds for fraction, row in lines]
    if base.model.backbone is None and not isinstance(source, SyntheticSource):
        notes.append(
            "the backbone starts from random weights, which with few labels costs most of the accuracy; a pretrained "
            "one is named by model.backbone=microsoft/resnet-50 (a Hub name or a folder)"
        )
    earlier = earlier_cells(output, cells, cell_of)
    if earlier:
        notes.append(
            f"finished runs of earlier calls with the same settings, which the tables hold as well: {len(earlier)}"
        )
    named = {row.name for row in rows} | {cell.row.name for cell in earlier}
    rows = [row for row in ROWS.values() if row.name in named]
    fractions = dict.fromkeys([*source.fractions, *(cell.fraction for cell in earlier if not cell.row.all_labels)])
    seeds = dict.fromkeys([*options.seeds, *(cell.seed for cell in earlier)])
    relative_to = _choose_reference(options.relative_to, rows)
    return AblationPlan(output, source, cells, earlier, rows, list(fractions), list(seeds), relative_to, notes)


def settings_hash(config: RunConfig) -> str:
    """Return 12 hexadecimal digits that the runs of one row share: of all that counts but the seed."""
    # A run's checkpoint knows its shards by their names and sizes; here, where nothing is opened, the list counts.
    without = [key for key in MAY_DIFFER if key != "data.unlabeled.shards"]
    return config_hash(config, without=("seed", *without))


def _row_config(row: Row, options: AblationOptions) -> RunConfig:
    overrides = row_overrides(row, options.recipe, options.overrides)
    return load_run_config(options.recipe, [*overrides, "data.path=data"])


def _check_numbers(options: AblationOptions) -> None:
    if not options.seeds:
        raise InputError("--seeds names no seed; give some, as in --seeds 0,1,2")
    for seed in options.seeds:
        if seed < 0:
            raise InputError(f"--seeds names {seed}; seeds are whole numbers from 0 on")
        if options.seeds.count(seed) > 1:
            raise InputError(f"--seeds names {seed} twice; name each seed once")
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}; at least 1 run must go on")


def _choose_source(options: AblationOptions, base: RunConfig, shared: Sequence[str], output: Path) -> DataSource:
    names_data = any(text.partition("=")[0].strip() == "data.path" for text in shared)
    if options.source is not None:
        if names_data:
            raise InputError("both --source and data.path=... are given; draws of --source are the data, or data.path")
        kind = options.kind or (base.recipe if base.recipe in CATALOG else "folder")
        if kind not in ("folder", *CATALOG):
            raise InputError(f"--kind {kind!r} is no known data set{nearest(kind, ['folder', *CATALOG])}")
        raw = PrepareOptions(kind, output, str(options.source), validation=options.validation, classes=options.classes)
        return source_of(None, raw, options.labeled, output / "data")
    for option in ("kind", "validation", "classes"):
        if getattr(options, option) is not None:
            raise InputError(f"--{option} is for raw images; give them with --source DIR, or leave it out")
    try:
        path = load_run_config(options.recipe, shared).data.path
    except InputError:
        path = None  # all that is missing: with a path the same settings were fine
    return source_of(path, None, options.labeled, output / "data")


def _choose_rows(options: AblationOptions, source: DataSource) -> tuple[list[Row], list[str]]:
    """Return the rows, and what is to be said of those left out."""
    if source.no_ceiling is None:
        return rows_of(options.rows or list(ROWS)), []
    if FULLY_SUPERVISED in options.rows:
        raise InputError(f"--rows names {FULLY_SUPERVISED}, but {source.no_ceiling}")
    if options.rows:
        return rows_of(options.rows), []
    note = f"row {FULLY_SUPERVISED} is left out: {source.no_ceiling}"
    return rows_of([name for name in ROWS if name != FULLY_SUPERVISED]), [note]


def _choose_reference(asked: str | None, rows: Sequence[Row]) -> str | None:
    names = [row.name for row in rows]
    if asked is None:
        return next((name for name in (BASE, SUPERVISED) if name in names), None)
    if asked not in names:
        raise InputError(
            f"--relative-to is {asked!r}{nearest(asked, names)} (rows of this ablation: {', '.join(names)})"
        )
    return asked
