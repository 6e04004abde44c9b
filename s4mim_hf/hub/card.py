"""The model card of a trained segmenter: what it was trained on, how it was measured, how to load it.

Nothing is looked up on the network, and no path of the machine that trained the model is written into the card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

PAPER = "https://arxiv.org/abs/2411.08756"
METRICS = {"mean_iou": "mean IoU", "mean_accuracy": "mean accuracy", "overall_accuracy": "overall accuracy"}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def render_card(
    *,
    run_config: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    id2label: Mapping[int, str],
    data_name: str,
    labeled_count: int,
    unlabeled_count: int,
    unlabeled_pool: str | None = None,
    method_name: str,
    model_id: str = "PATH_OR_REPO_ID",
) -> ModelCard:
    """Write the card of one trained segmenter.

    Args:
        run_config: the run's configuration as nested plain values; local paths in it are cut to their last part.
        results: `protocol`, `data` (what was evaluated on), `step`, and `scores` with `mean_iou`, `mean_accuracy`,
            `overall_accuracy` (floats or None) and `per_category_iou`, `per_category_accuracy` (lists, None for a class
            that does not occur). Optional: `selection`, a sentence part that says how this step was chosen. None where
            nothing was evaluated.
        id2label: class names by id, 0..K-1.
        data_name: the training data's name.
        labeled_count, unlabeled_count: images trained on, with and without labels.
        unlabeled_pool: what the images without labels were streamed from, in words, in place of their count.
        method_name: the registered method, e.g. "s4mim".
        model_id: what the loading example loads.

    Returns:
        The card; `save_card` writes it.
    """
    config = _without_local_paths(run_config)
    title = f"Semantic segmentation of {data_name} by {method_name}"
    if unlabeled_pool is None:
        amounts = f"{labeled_count} labelled and {unlabeled_count} unlabelled images"
        without = f"{unlabeled_count} images without"
    else:
        amounts = f"{labeled_count} labelled images, and unlabelled ones streamed from {unlabeled_pool},"
        without = f"images without streamed from {unlabeled_pool}"
    parts = [
        f"# {title}",
        _introduction(config, id2label, data_name, amounts, method_name),
        "## How to load it\n\n" + _loading(model_id),
        "## Results\n\n" + _results(results, id2label),
        "## What it was trained on\n\n" + _training_data(data_name, labeled_count, without),
        "## How it was trained\n\n" + _recipe(config),
        "## What these numbers are\n\n" + _honesty(),
    ]
    data = _metadata(config, results, data_name, title, method_name)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def save_card(card: ModelCard, folder: Path) -> Path:
    """Write `card` as README.md into `folder` (made where absent) and return the file."""
    path = Path(folder) / "README.md"
    card.save(path)
    return path


def _metadata(
    config: Mapping[str, Any], results: Mapping[str, Any] | None, data_name: str, title: str, method_name: str
) -> ModelCardData:
    evaluated = _eval_results(results, data_name) if results is not None else []
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        license="apache-2.0",
        tags=sorted({"semi-supervised", "semantic-segmentation", "s4mim", method_name}),
        base_model=_hub_backbone(config),
        metrics=["mean_iou"],
        # The Hub needs both of a model's name and its results, or neither.
        model_name=title if evaluated else None,
        eval_results=evaluated or None,
    )


def _eval_results(results: Mapping[str, Any], data_name: str) -> list[EvalResult]:
    scores = results["scores"]
    return [
        EvalResult(
            task_type="image-segmentation",
            task_name="Semantic segmentation",
            dataset_type=re.sub(r"[^\w.-]+", "-", data_name),
            dataset_name=str(results["data"]),
            metric_type=key,
            metric_name=f"{name} ({results['protocol']})",
            metric_value=round(scores[key], 4),
        )
        for key, name in METRICS.items()
        if scores.get(key) is not None
    ]


def _introduction(
    config: Mapping[str, Any],
    id2label: Mapping[int, str],
    data_name: str,
    amounts: str,
    method_name: str,
) -> str:
    backbone = _backbone_name(config)
    return (
        f"A segmenter of {len(id2label)} classes (backbone: {backbone}, decoder: DeepLabV3+), trained on {data_name} "
        f"with {amounts} by the method `{method_name}` of "
        f"s4mim_hf. That library implements S4MIM ([Masked Image Modeling Boosting Semi-Supervised Semantic "
        f"Segmentation]({PAPER})) and its baselines."
    )


def _loading(model_id: str) -> str:
    return f"""```python
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

processor = AutoImageProcessor.from_pretrained("{model_id}", trust_remote_code=True)
model = AutoModelForSemanticSegmentation.from_pretrained("{model_id}", trust_remote_code=True).eval()
image = Image.open("image.jpg").convert("RGB")
outputs = model(**processor(image, return_tensors="pt"))
label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])[0]
```

`trust_remote_code=True` runs the model's code from this folder: read it first. It needs torch, transformers and Pillow
only. With s4mim_hf installed, `import s4mim_hf` first and leave it out."""


def _results(results: Mapping[str, Any] | None, id2label: Mapping[int, str]) -> str:
    if results is None:
        return "This model was not evaluated: no validation images were given."
    scores = results["scores"]
    lines = [
        f"Evaluated on: {results['data']}. Protocol: {results['protocol']}.",
        f"Weights: after optimizer step {results['step']}{_selection(results)}.",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {_percent(scores.get(key))} |" for key, name in METRICS.items()),
        "",
        "| class | IoU | accuracy |",
        "|---|---|---|",
    ]
    per_class = zip(sorted(id2label), scores["per_category_iou"], scores["per_category_accuracy"], strict=True)
    lines += [
        f"| {_cell(id2label[index])} | {_percent(iou)} | {_percent(accuracy)} |" for index, iou, accuracy in per_class
    ]
    lines += ["", "In percent; – stands for a class that does not occur, which the means leave out."]
    return "\n".join(lines)


def _selection(results: Mapping[str, Any]) -> str:
    return f" ({results['selection']})" if results.get("selection") else ""


def _training_data(data_name: str, labeled_count: int, without: str) -> str:
    return (
        f"{data_name}: {labeled_count} images with their label maps, {without}. "
        "Labels of unlabelled images were not read. The licences of these images and of the pretrained backbone, where "
        "there is one, apply beside this model's own."
    )


def _recipe(config: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    return f"The run's configuration (local paths shortened):\n\n```yaml\n{text}```"


def _honesty() -> str:
    return (
        "s4mim_hf is the first public implementation of S4MIM, written from the paper's abstract; where that is "
        "silent, the choices are the library's own. No number on this page is the paper's: each was measured on this "
        "model, with the data and the protocol named beside it."
    )


def _hub_backbone(config: Mapping[str, Any]) -> str | None:
    """Return the pretrained backbone's Hub name, or None for a local folder or random weights."""
    name = _model_section(config).get("backbone")
    return name if isinstance(name, str) and "/" in name else None


def _backbone_name(config: Mapping[str, Any]) -> str:
    model = _model_section(config)
    if model.get("backbone"):
        return f"{model['backbone']}, pretrained"
    architecture = (model.get("backbone_config") or {}).get("model_type", "unnamed")
    return f"{architecture}, from random weights"


def _model_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("model") or {}


def _without_local_paths(value: Any, key: str = "") -> Any:
    """Copy nested plain values, local paths cut to their last part and URLs to what is public, without `output_dir`."""
    if isinstance(value, Mapping):
        return {name: _without_local_paths(item, str(name)) for name, item in value.items() if name != "output_dir"}
    if isinstance(value, list | tuple):
        return [_without_local_paths(item) for item in value]
    if isinstance(value, str) and "://" in value:
        # Without what may be a secret: a user's name and password, a signature.
        scheme, _, rest = value.partition("://")
        host, slash, path = (rest.partition("?")[0] if scheme in ("http", "https") else rest).partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    if isinstance(value, str) and _is_local_path(value, key):
        return PurePath(value.replace("\\", "/")).name
    return value


def _is_local_path(value: str, key: str) -> bool:
    if "/" not in value and "\\" not in value:
        return False
    # "org/name" is a Hub name, unless such a folder lies here, which is what loading would have taken.
    return key in ("path", "recipe") or _HUB_NAME.fullmatch(value) is None or Path(value).exists()


def _plain(value: Any) -> Any:
    """Return what YAML can write of `value`: enumerations, paths and the like become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
