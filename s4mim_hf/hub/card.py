"""The model card of a trained segmenter: what it was trained on, how it was measured, how to load it.

Nothing is looked up on the network, and no path of the machine that trained the model is written into the card. Its
text is `card_template.md`, which `model_cards/template.md` shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from s4mim_hf.hub.card_text import (
    ABOUT,
    METRICS,
    budget,
    data_note,
    environment,
    intended_use,
    limits,
    results_section,
    training_data,
)
from s4mim_hf.hub.public_text import plain, without_local_paths

TASK = "image-segmentation"
# By the name that the configuration has for it.
DECODERS = {"deeplabv3plus": "DeepLabV3+", "dpt": "DPT"}
DEFAULT_LICENSE = "apache-2.0"
PLACEHOLDER = "PATH_OR_REPO_ID"


@dataclass(frozen=True, kw_only=True)
class CardExtras:
    """What a card can say beyond the model and its training.

    Attributes:
        license: the model's, as the Hub calls it.
        dataset_ids: data sets of the Hub that it was trained on.
        tags: more tags.
        costs: a run's `results.json`: time, memory, device, versions, commit, and the last step's scores.
        panel: path of a picture of validation images, named `step_N.png`, beside the card.
        curves: path of a picture of the run's curves beside the card.
        ablation: Markdown about an ablation that the model is from.
        not_evaluated: why there are no results, where there are none.
        unfinished: whether the run did not come to its end.
    """

    license: str = DEFAULT_LICENSE
    dataset_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    costs: Mapping[str, Any] = field(default_factory=dict)
    panel: str | None = None
    curves: str | None = None
    ablation: str | None = None
    not_evaluated: str = "no validation images were given"
    unfinished: bool = False


def render_card(
    *,
    run_config: Mapping[str, Any] | None,
    results: Mapping[str, Any] | None,
    id2label: Mapping[int, str],
    data_name: str | None,
    labeled_count: int | None,
    unlabeled_count: int | None,
    unlabeled_pool: str | None = None,
    method_name: str | None,
    model_id: str = PLACEHOLDER,
    summary: str | None = None,
    extras: CardExtras | None = None,
) -> ModelCard:
    """Write the card of one trained segmenter.

    Args:
        run_config: the run's configuration as nested plain values; local paths in it are cut to their last part. None
            where it is not known how the model was trained.
        results: `protocol`, `data` (what was evaluated on), `step` (None: not known), and `scores` with `mean_iou`,
            `mean_accuracy`, `overall_accuracy` (floats or None) and `per_category_iou`, `per_category_accuracy`
            (lists, None for a class that does not occur; no lists where nothing is known of the classes). Optional:
            `selection`, a sentence part that says how this step was chosen. None where nothing was evaluated.
        id2label: class names by id, 0..K-1.
        data_name: the training data's name; None where it is not known.
        labeled_count, unlabeled_count: images trained on, with and without labels; None where it is not known.
        unlabeled_pool: what the images without labels were streamed from, in words, in place of their count.
        method_name: the registered method, e.g. "s4mim"; None where it is not known.
        model_id: what the loading example loads.
        summary: the paragraph below the title, in place of the usual one.
        extras: what else is known.

    Returns:
        The card; `save_card` writes it.
    """
    extras = extras or CardExtras()
    config, costs = without_local_paths(run_config or {}), extras.costs
    title = _title(len(id2label), data_name, method_name)
    uses_unlabeled = method_name != "supervised"
    amounts = _amounts(labeled_count, unlabeled_count, unlabeled_pool, uses_unlabeled)
    backbone, split = _pretrained_backbone(config), costs.get("split_hash")
    return fill_template(
        _metadata(config, results, data_name, title, method_name, extras),
        trained=True,
        title=title,
        summary=summary or _summary(config, id2label, data_name, amounts, method_name),
        model_id=model_id,
        results=None if results is None else results_section(results, id2label, costs, extras.unfinished),
        not_evaluated=extras.not_evaluated,
        panel=None if extras.panel is None else {"path": extras.panel, "step": _step_of(extras.panel)},
        curves=extras.curves, ablation=extras.ablation,
        training_data=training_data(data_name, labeled_count, unlabeled_count, unlabeled_pool, split, uses_unlabeled),
        budget=budget(costs),
        environment=environment(costs),
        intended_use=intended_use(len(id2label), data_name),
        limits=limits(results, data_name, labeled_count, backbone, trained=True),
        configuration_note="The run's configuration (local paths shortened):",
        configuration=_yaml(config) if run_config else None,
        data_note=data_note(data_name),
    )  # fmt: skip


def _title(classes: int, data_name: str | None, method_name: str | None) -> str:
    of_what = data_name or f"{classes} classes"
    return f"Semantic segmentation of {of_what}" + (f" by {method_name}" if method_name else "")


def fill_template(data: ModelCardData, **parts: Any) -> ModelCard:
    """Fill the template with a header and its parts; a part that is None is left out with its heading."""
    template = (resources.files("s4mim_hf.hub") / "card_template.md").read_text(encoding="utf-8")
    card = ModelCard.from_template(data, template_str=template, **{**dict.fromkeys(PARTS), **parts})
    # Conditions of the template leave empty lines where nothing is.
    card.text = re.sub(r"\n{3,}", "\n\n", card.text).rstrip("\n") + "\n"
    return ModelCard(str(card))


PARTS = (
    *("trained", "title", "summary", "model_id", "commands", "protocol", "results", "not_evaluated", "panel", "curves"),
    *("ablation", "training_data", "budget", "environment", "intended_use", "limits", "configuration_note"),
    *("configuration", "data_note"),
)


def save_card(card: ModelCard, folder: Path) -> Path:
    """Write `card` as README.md into `folder` (made where absent) and return the file."""
    path = Path(folder) / "README.md"
    card.save(path)
    return path


def _metadata(
    config: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    data_name: str | None,
    title: str,
    method_name: str | None,
    extras: CardExtras,
) -> ModelCardData:
    named = [re.sub(r"[^\w.-]+", "-", data_name).lower()] if data_name else []
    evaluated = _eval_results(results, data_name, extras) if results is not None else []
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK,
        license=extras.license,
        tags=sorted(
            {"semi-supervised", "semantic-segmentation", "s4mim", *named, *extras.tags}
            | ({method_name} if method_name else set())
        ),
        datasets=list(extras.dataset_ids) or None,
        base_model=_hub_backbone(config),
        metrics=["mean_iou"],
        # The Hub needs both of a model's name and its results, or neither.
        model_name=title if evaluated else None,
        eval_results=evaluated or None,
    )


def _eval_results(results: Mapping[str, Any], data_name: str | None, extras: CardExtras) -> list[EvalResult]:
    scores = results["scores"]
    slug = re.sub(r"[^\w.-]+", "-", data_name or str(results["data"])).strip("-")
    return [
        EvalResult(
            task_type=TASK,
            task_name="Semantic segmentation",
            dataset_type=extras.dataset_ids[0] if extras.dataset_ids else slug,
            dataset_name=str(results["data"]),
            metric_type=key,
            metric_name=f"{name} ({results['protocol']})",
            metric_value=round(scores[key], 4),
        )
        for key, name in METRICS.items()
        if scores.get(key) is not None
    ]


def _amounts(labeled: int | None, unlabeled: int | None, pool: str | None, uses_unlabeled: bool) -> str:
    with_labels = "labelled" if labeled is None else f"{labeled} labelled"
    if not uses_unlabeled:
        return f"{with_labels} images alone"
    if pool is not None:
        return f"{with_labels} images, and unlabelled ones streamed from {pool},"
    return f"{with_labels} and {'unlabelled' if unlabeled is None else f'{unlabeled} unlabelled'} images"


def _summary(
    config: Mapping[str, Any],
    id2label: Mapping[int, str],
    data_name: str | None,
    amounts: str,
    method_name: str | None,
) -> str:
    decoder = DECODERS[_model_section(config).get("decode_head", "deeplabv3plus")]
    network = f" (backbone: {_backbone_name(config)}, decoder: {decoder})" if _model_section(config) else ""
    if data_name is None:
        return f"A segmenter of {len(id2label)} classes{network} in the format of s4mim_hf. {ABOUT}"
    by = f"by the method `{method_name}` of s4mim_hf" if method_name else "with s4mim_hf"
    return (
        f"A segmenter of {len(id2label)} classes{network}, trained on {data_name} with {amounts} {by}. {ABOUT}"
    )  # fmt: skip


def _hub_backbone(config: Mapping[str, Any]) -> str | None:
    """Return the pretrained backbone's Hub name, or None for a local folder or random weights."""
    name = _model_section(config).get("backbone")
    return name if isinstance(name, str) and "/" in name else None


def _pretrained_backbone(config: Mapping[str, Any]) -> str | None:
    name = _model_section(config).get("backbone")
    return str(name) if name else None


def _backbone_name(config: Mapping[str, Any]) -> str:
    if (name := _pretrained_backbone(config)) is not None:
        return f"{name}, pretrained"
    architecture = (_model_section(config).get("backbone_config") or {}).get("model_type", "unnamed")
    return f"{architecture}, from random weights"


def _model_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("model") or {}


def _step_of(panel: str) -> str:
    return Path(panel).stem.removeprefix("step_")


def _yaml(config: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    return text.rstrip("\n")
