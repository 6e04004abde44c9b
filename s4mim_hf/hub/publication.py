"""What is published of a run or a model: its files as everybody may see them, and its card."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, ModelCard

from s4mim_hf.data.prepared import HUB_PREFIX
from s4mim_hf.errors import InputError
from s4mim_hf.hub.ablation_row import ablation_row
from s4mim_hf.hub.card import DEFAULT_LICENSE, CardExtras, render_card
from s4mim_hf.hub.card_checks import card_problems, check_dataset_id, check_license
from s4mim_hf.hub.card_facts import FACTS_FILE, UNKNOWN, read_facts, read_json
from s4mim_hf.hub.model_folder import CARD, ModelFolder, public_config, read_model_folder
from s4mim_hf.hub.public_text import plain, secret_in, without_sources
from s4mim_hf.hub.run_folder import (
    CONFIG_FILE,
    CURVES_FILE,
    METRICS_FILE,
    MODEL,
    PANELS,
    RESULTS_FILE,
    RunFolder,
    is_run,
    read_run_folder,
)

_TEXTS = (".json", ".jsonl", ".md", ".py", ".yaml")


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """What a person says of a model for its card.

    Attributes:
        license: the model's, as the Hub calls it; None: apache-2.0, or what the folder's own card says.
        dataset_ids: data sets of the Hub that it was trained on.
        ablation: results.json of an ablation that the run is from.
        evaluation: what `scripts/evaluate.py --json` wrote of this model.
    """

    license: str | None = None
    dataset_ids: tuple[str, ...] = ()
    ablation: Path | None = None
    evaluation: Path | None = None


@dataclass(frozen=True)
class PublishedFile:
    """One file of a publication.

    Attributes:
        path: in the repository.
        source: the file here, or the content that is made for everybody to see.
    """

    path: str
    source: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def read(self) -> bytes:
        """Return the content."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def operation(self) -> CommitOperationAdd:
        """Return what a commit does with it."""
        return CommitOperationAdd(self.path, self.source)


@dataclass(frozen=True)
class Publication:
    """A whole publication.

    Attributes:
        files: in the commit's order; the card is the last one.
        card: what the last file holds.
        left_out: what else lies there and stays here.
        notes: what a person should know before, in sentences.
    """

    files: tuple[PublishedFile, ...]
    card: ModelCard
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def stale(self, there: Collection[str]) -> list[str]:
        """Return which files of an earlier publication are not in this one."""
        own = {CONFIG_FILE, RESULTS_FILE, METRICS_FILE, CURVES_FILE, FACTS_FILE}
        new = {file.path for file in self.files}
        earlier = (path for path in there if path in own or path.startswith(f"{PANELS}/step_") or _is_weights(path))
        return sorted(set(earlier) - new)


def prepare_publication(source: Path, model_id: str, options: CardOptions | None = None) -> Publication:
    """Collect what is published, and write its card. Nothing is written to disk, nobody is asked.

    Args:
        source: a run's folder, or a model's.
        model_id: what the card's example loads.
        options: for the card.

    Raises:
        InputError: the folder holds no whole model, an option does not fit, or something would show what nobody else
            should see.
    """
    options = options or CardOptions()
    if options.license is not None:
        check_license(options.license)
    for repo_id in options.dataset_ids:
        check_dataset_id(repo_id)
    source = Path(source).expanduser()
    if not source.is_dir():
        what = "is a file" if source.exists() else "is not there"
        raise InputError(f"{source} {what}; give the folder of a run, or of a model")
    run = read_run_folder(source) if is_run(source) else None
    if run is not None and not (source / MODEL).is_dir():
        raise InputError(f"{source} is a run without a model: there is no {source / MODEL}; train it to its end first")
    model = read_model_folder(source / MODEL if run is not None else source)
    card, notes = _card(model, run, model_id, options)
    if problems := card_problems(card):
        raise InputError(f"the card of {source} is not what the Hub needs: {'; '.join(problems)}; correct {CARD}")
    files = [*_model_files(model), *(_run_files(run) if run is not None else [])]
    files.append(PublishedFile(CARD, str(card).encode()))
    for file in files:
        _check_secrets(file, source)
    return Publication(tuple(files), card, _left_out(model, run, files), tuple(notes))


def _left_out(model: ModelFolder, run: RunFolder | None, files: Sequence[PublishedFile]) -> tuple[str, ...]:
    if run is None:
        return model.left_out
    published = {MODEL, *(file.path.partition("/")[0] for file in files)}
    beside = sorted(entry.name for entry in run.path.iterdir() if entry.name not in published)
    return (*(f"{MODEL}/{name}" for name in model.left_out), *beside)


def _model_files(model: ModelFolder) -> list[PublishedFile]:
    shown: Mapping[str, bytes | None] = {"config.json": public_config(model, without_sources)}
    return [PublishedFile(name, shown.get(name) or model.path / name) for name in model.files]


def _run_files(run: RunFolder) -> list[PublishedFile]:
    text = yaml.safe_dump(plain(run.config), sort_keys=False, allow_unicode=True, width=120)
    names = [METRICS_FILE, RESULTS_FILE, *run.panels, CURVES_FILE]
    found = [PublishedFile(name, run.path / name) for name in names if (run.path / name).is_file()]
    return [PublishedFile(CONFIG_FILE, text.encode()), *found]


def _check_secrets(file: PublishedFile, source: Path) -> None:
    if not file.path.endswith(_TEXTS):
        return
    found = secret_in(file.read().decode("utf-8", errors="replace"), source)
    if found is not None:
        raise InputError(f"{file.path} of {source} holds {found}, which nobody else should see; take it out first")


def _card(
    model: ModelFolder, run: RunFolder | None, model_id: str, options: CardOptions
) -> tuple[ModelCard, list[str]]:
    facts = run.facts if run is not None else read_facts(model.path)
    if facts is None and (model.path / CARD).is_file():
        return _own_card(model.path / CARD, options), [f"the card is {model.path / CARD}, as it stands"]
    facts = dict(facts or UNKNOWN)
    if options.evaluation is not None:
        facts["results"] = _evaluation(options.evaluation, model)
    _check_class_count(facts["results"], model)
    costs = run.results if run is not None else {}
    extras = CardExtras(
        license=options.license or DEFAULT_LICENSE,
        dataset_ids=options.dataset_ids or _dataset_ids(facts["run_config"]),
        costs=costs,
    )
    if options.ablation is not None:
        extras = replace(extras, ablation=ablation_row(options.ablation, costs.get("config_hash")))
    notes = []
    if run is not None:
        curves = CURVES_FILE if (run.path / CURVES_FILE).is_file() else None
        extras = replace(extras, panel=run.panel, curves=curves)
        if not costs:
            why = "its run did not come to its end, and left no results"
            extras = replace(extras, not_evaluated=why, unfinished=True)
            notes.append(f"{run.path} has no {RESULTS_FILE}: the run did not come to its end, and the card says so")
    if options.license is None:
        notes.append(
            f"the licence is {DEFAULT_LICENSE}, where --license names no other; the data's terms apply beside it"
        )
    return render_card(**facts, id2label=model.id2label, model_id=model_id, extras=extras), notes


def _own_card(path: Path, options: CardOptions) -> ModelCard:
    """Return the card that somebody wrote for a model, with the licence and the data sets that the person names."""
    for flag, value in (("--ablation", options.ablation), ("--evaluation", options.evaluation)):
        if value is not None:
            raise InputError(f"{flag}: {path} is a card of its own, into which nothing is written; delete it first")
    try:
        card: ModelCard = ModelCard.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}; correct it") from None
    if options.license is not None:
        card.data["license"] = options.license
    if options.dataset_ids:
        card.data["datasets"] = list(options.dataset_ids)
    return card


def _dataset_ids(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the data set of the Hub that a configuration names."""
    path = str(((config or {}).get("data") or {}).get("path"))
    found = re.match(rf"{HUB_PREFIX}datasets/([^/@]+/[^/@]+)", path)
    return (found[1],) if found else ()


def _evaluation(path: Path, model: ModelFolder) -> dict[str, Any]:
    """Return what `scripts/evaluate.py --json` wrote, as a card takes it."""
    found = read_json(path)
    if not {"mean_iou", "per_category_iou", "classes", "protocol", "data"} <= set(found):
        raise InputError(f"--evaluation: {path} is nothing that scripts/evaluate.py --json wrote; give such a file")
    if found["classes"] != [model.id2label[index] for index in sorted(model.id2label)]:
        raise InputError(f"--evaluation: {path} is of a model with other classes; evaluate this one")
    scores = ("mean_iou", "mean_accuracy", "overall_accuracy", "per_category_iou", "per_category_accuracy")
    return {
        "protocol": found["protocol"],
        "data": found["data"],
        "step": None,
        "scores": {name: found.get(name) for name in scores},
    }


def _check_class_count(results: Mapping[str, Any] | None, model: ModelFolder) -> None:
    ious = results["scores"].get("per_category_iou") if results else None
    if ious is not None and len(ious) != len(model.id2label):
        raise InputError(
            f"{model.path} has {len(model.id2label)} classes, but its results are of {len(ious)}; evaluate it again"
        )


def _is_weights(path: str) -> bool:
    return "/" not in path and path.startswith("model") and path.endswith((".safetensors", ".safetensors.index.json"))
