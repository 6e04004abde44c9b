"""Fixtures of whole runs; what makes them stands in `tiny_runs`, which tests import as well."""

from tiny_runs import prepared, tiny_config

__all__ = ["prepared", "tiny_config"]
