"""Write a prepared folder, on constant memory and resumably: it appears whole, by one rename, or not at all."""

from __future__ import annotations

from s4mim_hf.data.prepared_writer.partial import check_output
from s4mim_hf.data.prepared_writer.reading import BadSamples, Problem
from s4mim_hf.data.prepared_writer.rows import Description, Row, Written
from s4mim_hf.data.prepared_writer.writing import SHARD_BYTES, write_prepared

__all__ = ["SHARD_BYTES", "BadSamples", "Description", "Problem", "Row", "Written", "check_output", "write_prepared"]
