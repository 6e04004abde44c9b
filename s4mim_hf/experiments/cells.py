"""One run of an ablation: what it trains, on which draw, and where it leaves what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.experiments.rows import Row


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of the ablation.

    Attributes:
        fraction: the label fraction whose draw it trains on; "all" for the ceiling.
        row: the row that it belongs to.
        seed: of the run and the draw.
        config: its configuration, `output_dir` included.
        split_hash: of its draw, by which data is known wherever it lies.
        content_hash: of a prepared folder, so that corrected masks are seen; None where the ablation makes the draw.
    """

    fraction: str
    row: Row
    seed: int
    config: RunConfig
    split_hash: str
    content_hash: str | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.fraction}, {self.row.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        assert self.config.output_dir is not None
        return Path(self.config.output_dir)

    @property
    def config_file(self) -> Path:
        """The configuration as it was started with; that this is there shows that an ablation made the folder."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def log_file(self) -> Path:
        """What the run printed, all its parts one after the other."""
        return self.folder.with_name(f"{self.folder.name}.log")


def folder_of(output: Path, fraction: str, row: Row, seed: int) -> Path:
    """Return the folder of a run."""
    return output / "runs" / fraction.replace("/", "-") / row.name / f"seed_{seed}"
