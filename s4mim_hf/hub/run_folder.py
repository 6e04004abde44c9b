"""A run's folder on its way to the Hub: what the run left beside its model, and what that says for the card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from s4mim_hf.errors import InputError
from s4mim_hf.hub.card_facts import UNKNOWN, read_facts, read_json
from s4mim_hf.hub.public_text import without_local_paths

CONFIG_FILE, RESULTS_FILE, METRICS_FILE = "run_config.yaml", "results.json", "metrics.jsonl"
CURVES_FILE, PANELS, MODEL = "curves.png", "panels", "model"
# What an ablation notes of each of its runs.
_CIRCUMSTANCES_FILE = "circumstances.json"


@dataclass(frozen=True)
class RunFolder:
    """What a run left.

    Attributes:
        path: the folder.
        config: its run_config.yaml, local paths shortened.
        results: its results.json; empty where the run did not come to its end.
        facts: arguments of `render_card`, as far as they are known.
        panels: paths of its pictures, in the order of their steps, relative to the folder.
    """

    path: Path
    config: dict[str, Any]
    results: dict[str, Any]
    facts: dict[str, Any]
    panels: tuple[str, ...]

    @property
    def panel(self) -> str | None:
        """The picture of the step that the model is from, or the last one."""
        step = (self.facts["results"] or {}).get("step")
        wanted = f"{PANELS}/step_{step}.png"
        return wanted if wanted in self.panels else next(reversed(self.panels), None)


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / CONFIG_FILE).is_file()


def read_run_folder(path: Path) -> RunFolder:
    """Read what a run left.

    Raises:
        InputError: a file of it is damaged.
    """
    config = _read_config(path / CONFIG_FILE)
    results = read_json(path / RESULTS_FILE) if (path / RESULTS_FILE).is_file() else {}
    around = read_json(path / _CIRCUMSTANCES_FILE) if (path / _CIRCUMSTANCES_FILE).is_file() else {}
    # Runs of before were not asked for these.
    if results and around.get("machine"):
        results.setdefault("device", around["machine"])
    if results and around.get("torch"):
        results.setdefault("versions", {"torch": around["torch"]})
    facts = read_facts(path / MODEL) or _facts_of(config, results, around)
    numbered = {found: int(found[1]) for file in path.glob(f"{PANELS}/*.png") if (found := _step(file.name))}
    panels = tuple(f"{PANELS}/{found[0]}" for found in sorted(numbered, key=numbered.__getitem__))
    return RunFolder(path, config, results, facts, panels)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give another run") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())[:200]}; give another run") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no configuration; give another run")
    return dict(without_local_paths(content))


def _facts_of(config: dict[str, Any], results: Mapping[str, Any], around: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a model that was written without a file of facts."""
    return {
        **UNKNOWN,
        "run_config": config,
        "data_name": results.get("data"),
        "labeled_count": around.get("labeled"),
        "unlabeled_count": around.get("unlabeled"),
        "unlabeled_pool": results.get("pool"),
        "method_name": results.get("method") or (config.get("method") or {}).get("name"),
        "results": _model_results(results),
    }


def _model_results(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the run's results say of the weights in model/, the best of its evaluations."""
    best = results.get("best_teacher") or {}
    if best.get("step") is None:
        return None
    is_last = best["step"] == results["step"]
    return {
        "protocol": results["protocol"],
        "data": results["evaluated_on"],
        "step": best["step"],
        "selection": "the best evaluation of the run on this same split",
        "scores": results["last_teacher"] if is_last else {"mean_iou": best["mean_iou"]},
    }


def _step(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"step_(\d+)\.png", name)
