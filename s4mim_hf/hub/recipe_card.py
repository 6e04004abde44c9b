"""The card of a recipe that nobody of this project has run: what it would train, and no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.hub.card import DECODERS, DEFAULT_LICENSE, TASK, fill_template
from s4mim_hf.hub.card_text import ABOUT, data_note, intended_use, limits

# Recipes that no run of ours has tried, with what their data is prepared by: the kind of data, and its options.
_VOC = "voc --source VOCdevkit --labeled-ids LABELED.txt --unlabeled-ids UNLABELED.txt"
PREPARED_BY = {
    "voc": _VOC,
    "voc_dinov2": _VOC,
    "cityscapes": "cityscapes --source CITYSCAPES --labeled 1/16",
    "coco": "coco --source COCO --labeled 1/512",
    "ade20k": "ade20k --source ADEChallengeData2016 --labeled 1/16",
}


def render_recipe_card(name: str, config: Mapping[str, Any], text: str) -> ModelCard:
    """Write the card of a recipe.

    Args:
        name: of the recipe, one of `PREPARED_BY`.
        config: the whole configuration as nested plain values.
        text: the recipe's file.
    """
    data, method = PREPARED_BY[name].partition(" ")[0], str(config["method"]["name"])
    info, backbone = CATALOG[data], str(config["model"]["backbone"])
    decoder = DECODERS[config["model"]["decode_head"]]
    commands = (
        f"python scripts/prepare_data.py {PREPARED_BY[name]} --output data/{data}",
        f"accelerate launch scripts/train.py --recipe {name} data.path=data/{data} output_dir=runs/{name}",
        f"python scripts/publish.py runs/{name} USER/NAME",
    )
    counts = ", ".join(f"{split} {count:,}" for split, count in info.published_counts.items())
    return fill_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag=TASK,
            license=DEFAULT_LICENSE,
            tags=sorted({"semi-supervised", "semantic-segmentation", "s4mim", method, data}),
            base_model=backbone,
            metrics=["mean_iou"],
        ),
        trained=False,
        title=f"Recipe: {info.title} by {method}" + ("" if name == data else f", {name}"),
        summary=(
            f"**A recipe, not yet run by us.** It trains a segmenter of {len(info.classes)} classes (backbone: "
            f"{backbone}, pretrained, decoder: {decoder}) on {info.title} with few label maps and many images by the "
            f"method `{method}`. There is no model and no number yet; both will stand here when "
            f"it has been run. {ABOUT}"
        ),
        commands="\n".join(commands),
        protocol=info.protocol,
        training_data=(
            f"{info.title} ({counts}). Which images keep their label maps is chosen when the data is prepared: by "
            "published id lists, or by a draw from a seed. Labels of unlabelled images are not read."
        ),
        intended_use=intended_use(len(info.classes), info.title),
        limits=limits(None, data, None, backbone, trained=False),
        configuration_note=f"`s4mim_hf/recipes/{name}.yaml`; what it does not name has the library's defaults:",
        configuration=text.rstrip("\n"),
        data_note=data_note(data),
    )
