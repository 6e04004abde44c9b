"""The parts of a model card in Markdown: tables of results, costs, data, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.data.prepared import SYNTHETIC

METRICS = {"mean_iou": "mean IoU", "mean_accuracy": "mean accuracy", "overall_accuracy": "overall accuracy"}
PAPER = "https://arxiv.org/abs/2411.08756"
ABOUT = (
    "s4mim_hf implements S4MIM ([Masked Image Modeling Boosting Semi-Supervised Semantic Segmentation]"
    f"({PAPER})) and its baselines."
)


def percent(share: float | None) -> str:
    """Return a share as percent with two digits, and None as a dash."""
    return "–" if share is None else f"{100 * share:.2f}"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    first, *rest = ("| " + " | ".join(cell(text) for text in line) + " |" for line in (heading, *rows))
    return "\n".join([first, "|" + "---|" * len(heading), *rest])


def cell(text: str) -> str:
    """Return text that ends no cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def results_section(
    results: Mapping[str, Any], id2label: Mapping[int, str], costs: Mapping[str, Any], unfinished: bool
) -> dict[str, str | None]:
    """Return what the template shows of an evaluation: data, protocol, weights, means, classes, last."""
    scores = results["scores"]
    selection = f" ({results['selection']})" if results.get("selection") else ""
    return {
        "data": str(results["data"]),
        "protocol": str(results["protocol"]),
        "weights": (
            "as they are here" if results.get("step") is None else f"after optimizer step {results['step']}{selection}"
        ),
        "means": table(("metric", "value"), [(name, percent(scores.get(key))) for key, name in METRICS.items()]),
        "classes": _class_table(scores, id2label),
        "last": "The run that it is from did not come to its end." if unfinished else _last(results, costs),
    }


def _class_table(scores: Mapping[str, Any], id2label: Mapping[int, str]) -> str | None:
    ious, accuracies = scores.get("per_category_iou"), scores.get("per_category_accuracy")
    if ious is None or accuracies is None:
        return None
    rows = zip(sorted(id2label), ious, accuracies, strict=True)
    return table(
        ("class", "IoU", "accuracy"),
        [(id2label[index], percent(iou), percent(accuracy)) for index, iou, accuracy in rows],
    )


def _last(results: Mapping[str, Any], costs: Mapping[str, Any]) -> str | None:
    """Say what the run ended with, where other weights than the last were chosen."""
    last = (costs.get("last_teacher") or {}).get("mean_iou")
    if last is None or results.get("step") in (None, costs.get("step")):
        return None
    return (
        f"The run ended at step {costs['step']} with {percent(last)} mean IoU, measured in the same way; that number "
        "was not chosen by these images."
    )


def training_data(
    data_name: str | None,
    labeled: int | None,
    unlabeled: int | None,
    pool: str | None,
    split_hash: str | None,
    uses_unlabeled: bool,
) -> str | None:
    """Say what was trained on, and which labels were used; None where nothing is known of it."""
    if data_name is None:
        return None
    if not uses_unlabeled:
        without = "and no other images"
    elif pool is not None:
        without = f"images without streamed from {pool}"
    else:
        without = "others without" if unlabeled is None else f"{unlabeled} images without"
    with_labels = "images with their label maps" if labeled is None else f"{labeled} images with their label maps"
    hashed = f" The split's hash is `{split_hash[:12]}`." if split_hash else ""
    return f"{data_name}: {with_labels}, {without}. Labels of unlabelled images were not read.{hashed}"


def budget(costs: Mapping[str, Any]) -> str | None:
    """Return device, time, memory and speed as a list; None where nothing of it was measured."""
    lines = []
    if costs.get("device"):
        count = costs.get("processes") or 1
        lines.append(f"Device: {costs['device']}{f', {count} processes' if count > 1 else ''}.")
    if costs.get("train_seconds"):
        seconds = float(costs["train_seconds"])
        lines.append(
            f"Time: {seconds / 3600:.2f} hours ({seconds / 60:.1f} minutes) for {costs['step']} optimizer steps; "
            "evaluations, pictures and checkpoints are not counted."
        )
    if costs.get("peak_memory_bytes"):
        lines.append(f"Peak memory: {costs['peak_memory_bytes'] / 2**30:.2f} GiB ({costs['memory_kind']}).")
    if costs.get("images_per_second"):
        lines.append(f"Speed: {costs['images_per_second']:.1f} images a second, labelled and unlabelled.")
    return _list(lines)


def environment(costs: Mapping[str, Any]) -> str | None:
    """Return versions, commit, seed and hash as a list; None where nothing of it is known."""
    versions = ", ".join(f"{name} {version}" for name, version in (costs.get("versions") or {}).items())
    facts = {
        "Versions": versions,
        "Commit of s4mim_hf": costs.get("commit"),
        "Seed": costs.get("seed"),
        "Hash of the configuration": costs.get("config_hash"),
    }
    return _list([f"{name}: {value}." for name, value in facts.items() if value not in (None, "")])


def intended_use(classes: int, data_name: str | None) -> str:
    """Say what the model is for."""
    alike = "images like those it was trained on" if data_name is None else f"images like those of {data_name}"
    return (
        f"To give each pixel of {alike} one of {classes} classes; as a start for fine-tuning; and to compare ways of "
        "learning from few masks and many images. Measure it on images of your own before you rely on it."
    )


def limits(
    results: Mapping[str, Any] | None, data_name: str | None, labeled: int | None, backbone: str | None, trained: bool
) -> str:
    """Say what was not tested, what the model cannot do, and which licences apply."""
    lines = []
    if trained:
        tested = "Measured on nothing" if results is None else f"Measured on nothing but {results['data']}"
        lines.append(
            f"{tested}: not on other places, cameras, resolutions, light or weather, and neither for robustness nor "
            "for differences between groups of people."
        )
    if data_name == SYNTHETIC:
        lines.append("Its images are rendered scenes: it knows no photograph.")
    lines.append(
        "It has no class for what it does not know: everything gets one of its classes. Where an error can hurt "
        "somebody, it must not decide alone."
    )
    if labeled is not None:
        lines.append(f"Classes that are rare or absent in {labeled} label maps are learned badly or not at all.")
    note = CATALOG[data_name].note if data_name in CATALOG else None
    terms = f" ({note.partition('. ')[0].rstrip('.')})" if note else ""
    pretrained = f" and of the pretrained backbone {backbone}" if backbone else ""
    lines.append(f"The licences of the images{terms}{pretrained} apply beside this model's own.")
    return _list(lines) or ""


def data_note(data_name: str | None) -> str | None:
    """Return who the data is from, where that is known."""
    return f"{CATALOG[data_name].title}. {CATALOG[data_name].note}" if data_name in CATALOG else None


def _list(lines: Sequence[str]) -> str | None:
    return "\n".join(f"- {line}" for line in lines) or None
