"""Notices loss terms that teach nothing: exactly 0, step after step, although their weight is not."""

from __future__ import annotations

from collections.abc import Mapping

from s4mim_hf.methods import MethodConfig, S4MIMMethodConfig

PATIENCE = 100
"""Steps at exactly 0 from which a term is called idle."""


class IdleTerms:
    """Counts for how many steps each term has been exactly 0, and says so once per term.

    A term is 0 where nothing counts: no pixel is known, or no pseudo-label is confident. A cross-entropy or a distance
    that is merely small is not 0. A term whose weight is 0 in the configuration is not there to be counted.

    Args:
        config: of the method, for the values that the sentences name.
    """

    def __init__(self, config: MethodConfig) -> None:
        self._config = config
        self._idle_steps: dict[str, int] = {}
        self._named: set[str] = set()

    def update(self, values: Mapping[str, float], steps: int) -> list[str]:
        """Take in what was logged and return the warnings that are due.

        Args:
            values: means over the last `steps` steps; those named `loss_TERM` are the terms, unweighted.
            steps: since the values before.
        """
        warnings = []
        for name, value in values.items():
            if not name.startswith("loss_"):
                continue
            term = name.removeprefix("loss_")
            # Terms are not negative, so a mean is 0 only where every one of its steps is.
            self._idle_steps[term] = self._idle_steps.get(term, 0) + steps if value == 0 else 0
            if self._idle_steps[term] >= PATIENCE and term not in self._named:
                self._named.add(term)
                warnings.append(
                    f"the term {term!r} has been exactly 0 for {self._idle_steps[term]} steps: "
                    f"{likely_cause(term, self._config)}"
                )
        return warnings


def likely_cause(term: str, config: MethodConfig) -> str:
    """Say why a term may have nothing to count, and which key to change."""
    threshold = getattr(config, "threshold", None)
    if term in ("consistency", "feature_consistency") and threshold is not None:
        return f"no pseudo-label reaches the threshold; lower method.threshold (now {threshold})"
    if isinstance(config, S4MIMMethodConfig) and term in ("reconstruction", "aggregation", "semantic"):
        return _cause_in_masked_view(term, config)
    if term == "supervised":
        return "no pixel of the labelled images is known; check the masks that the data was prepared from"
    return "it has nothing to count; set its weight to 0, or check the data"


def _cause_in_masked_view(term: str, config: S4MIMMethodConfig) -> str:
    if term == "semantic" and config.semantic.unlabeled_weighting == "confidence":
        return "no pixel of the masked images counts; check that the data is not all padding"
    cause = "no pixel of the masked images has a known class"
    change = f"lower method.class_map_threshold (now {config.class_map_threshold})"
    if config.masking.images == "unlabeled":
        change += ", or set method.masking.images=labeled_and_unlabeled"
    if term == "aggregation":
        cause = "no class has enough known positions that are visible and enough that are masked"
        change += (
            f", lower method.aggregation.min_positions (now {config.aggregation.min_positions}) or "
            f"method.masking.patch_size (now {config.masking.patch_size})"
        )
    return f"{cause}; {change}"
