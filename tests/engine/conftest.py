"""Fixtures of whole runs; what makes them stands in `tiny_runs`, which tests import as well."""

from config_files import recipe_file
from tiny_runs import prepared, tiny_config

__all__ = ["prepared", "recipe_file", "tiny_config"]
