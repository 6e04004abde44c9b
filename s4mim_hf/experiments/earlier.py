"""Finished runs of earlier calls in the same folder that belong to the same comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from s4mim_hf.engine.results import RESULTS_FILE
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.cells import Cell
from s4mim_hf.experiments.draws import ALL
from s4mim_hf.experiments.rows import ROWS, Row
from s4mim_hf.experiments.states import mismatch, state_of

_SEED = re.compile(r"seed_(\d+)")


def earlier_cells(output: Path, planned: Sequence[Cell], cell_of: Callable[[str, Row, int], Cell]) -> list[Cell]:
    """Return the finished runs in `output` that are none of `planned`, but have these settings and this data.

    Args:
        output: the ablation's folder.
        planned: the runs of this call.
        cell_of: the run that this call would make of a label fraction, a row and a seed; what it refuses is left out.
    """
    known = {cell.folder for cell in planned}
    found = []
    for fraction, row, seed in _written(output):
        with suppress(InputError):
            cell = cell_of(fraction, row, seed)
            if cell.folder not in known and state_of(cell) == "finished" and mismatch(cell) is None:
                found.append(cell)
    order = list(ROWS)
    return sorted(found, key=lambda cell: (cell.seed, cell.fraction, order.index(cell.row.name)))


def _written(output: Path) -> Iterator[tuple[str, Row, int]]:
    """Yield label fraction, row and seed of every folder with results."""
    for path in sorted((output / "runs").glob(f"*/*/*/{RESULTS_FILE}")):
        fraction, name, seed = path.parts[-4:-1]
        match = _SEED.fullmatch(seed)
        row = ROWS.get(name)
        if match is not None and row is not None and (fraction == ALL or not row.all_labels):
            yield fraction.replace("-", "/"), row, int(match[1])
