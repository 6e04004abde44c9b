"""Terms that teach nothing are named once, with what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from s4mim_hf.engine.idle_terms import IdleTerms, likely_cause
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.methods import FixMatchConfig, S4MIMMethodConfig, SupervisedConfig
from s4mim_hf.methods.s4mim_config import MaskingConfig, SemanticConfig

BY_THRESHOLD: dict[str, Any] = {
    "class_map_threshold": 0.8,
    "semantic": SemanticConfig(unlabeled_weighting="threshold"),
}


def test_a_term_is_named_once_after_a_hundred_steps_of_exact_zeros() -> None:
    idle = IdleTerms(FixMatchConfig(threshold=0.9))
    for _ in range(3):
        assert idle.update({"loss": 1.0, "loss_supervised": 1e-30, "loss_consistency": 0.0}, 30) == []
    (warning,) = idle.update({"loss": 1.0, "loss_supervised": 1e-30, "loss_consistency": 0.0}, 30)
    assert "'consistency' has been exactly 0 for 120 steps" in warning
    assert "lower method.threshold (now 0.9)" in warning
    assert idle.update({"loss_consistency": 0.0}, 500) == []


def test_a_step_above_zero_starts_the_count_anew() -> None:
    idle = IdleTerms(FixMatchConfig())
    assert idle.update({"loss_consistency": 0.0}, 99) == []
    assert idle.update({"loss_consistency": 0.1}, 10) == []
    assert idle.update({"loss_consistency": 0.0}, 99) == []
    assert len(idle.update({"loss_consistency": 0.0}, 1)) == 1


def test_other_values_and_weighted_terms_are_no_terms() -> None:
    idle = IdleTerms(FixMatchConfig())
    assert idle.update({"loss": 0.0, "confident_share": 0.0, "weighted_consistency": 0.0}, 1000) == []


@pytest.mark.parametrize(
    ("term", "fields", "expected"),
    [
        ("consistency", {}, "lower method.threshold (now 0.95)"),
        ("semantic", BY_THRESHOLD, "lower method.class_map_threshold (now 0.8)"),
        ("reconstruction", {"masking": MaskingConfig(images="unlabeled")}, "images=labeled_and_unlabeled"),
        ("aggregation", {}, "lower method.aggregation.min_positions (now 1)"),
        ("semantic", {}, "all padding"),
        ("supervised", {}, "no pixel of the labelled images is known"),
        ("something_new", {}, "set its weight to 0"),
    ],
)
def test_the_cause_names_the_key_to_change(term: str, fields: dict[str, Any], expected: str) -> None:
    assert expected in likely_cause(term, S4MIMMethodConfig(**fields))
    if term == "consistency":
        assert "threshold" not in likely_cause(term, SupervisedConfig())


def test_a_run_whose_labels_never_reach_the_threshold_says_so(
    tiny_config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s4mim_hf.engine.idle_terms.PATIENCE", 3)
    train(tiny_config("method.name=fixmatch", "method.threshold=1", "evaluation.interval=4", "log.interval=2"))
    shown = capsys.readouterr().out
    assert shown.count("the term 'consistency' has been exactly 0") == 1
    assert "warning: at step 4 the term 'consistency' has been exactly 0 for 4 steps" in shown
    assert "lower method.threshold (now 1.0)" in shown
