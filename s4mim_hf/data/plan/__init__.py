"""Which image goes where: labelled, unlabelled or validation.

Masks are opened only where a draw must know which classes they hold; pictures only for their size.
"""

from __future__ import annotations

from s4mim_hf.data.plan.making import Plan, make_plan
from s4mim_hf.data.plan.raw_data import RawData

__all__ = ["Plan", "RawData", "make_plan"]
