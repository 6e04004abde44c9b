"""The card of a recipe that nobody of this project has run: what it would train, and no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.hub.card import DEFAULT_LICENSE, TASK, fill_template
from s4mim_hf.hub.card_text import ABOUT, data_note, intended_use, limits

# The data sets that a recipe but no run of ours is for, with what their data is prepared by.
PREPARED_BY = {
    "voc": "--source VOCdevkit --labeled-ids LABELED.txt --unlabeled-ids UNLABELED.txt",
    "cityscapes": "--source CITYSCAPES --labeled 1/16",
    "coco": "--source COCO --labeled 1/512",
    "ade20k": "--source ADEChallengeData2016 --labeled 1/16",
}


def render_recipe_card(name: str, config: Mapping[str, Any], text: str) -> ModelCard:
    """Write the card of a recipe.

    Args:
        name: of the recipe and of its data, one of `PREPARED_BY`.
        config: the whole configuration as nested plain values.
        text: the recipe's file.
    """
    info, method = CATALOG[name], str(config["method"]["name"])
    backbone = str(config["model"]["backbone"])
    commands = (
        f"python scripts/prepare_data.py {name} {PREPARED_BY[name]} --output data/{name}",
        f"accelerate launch scripts/train.py --recipe {name} data.path=data/{name} output_dir=runs/{name}",
        f"python scripts/publish.py runs/{name} USER/NAME",
    )
    counts = ", ".join(f"{split} {count:,}" for split, count in info.published_counts.items())
    return fill_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag=TASK,
            license=DEFAULT_LICENSE,
            tags=sorted({"semi-supervised", "semantic-segmentation", "s4mim", method, name}),
            base_model=backbone,
            metrics=["mean_iou"],
        ),
        trained=False,
        title=f"Recipe: {info.title} by {method}",
        summary=(
            f"**A recipe, not yet run by us.** It trains a segmenter of {len(info.classes)} classes (backbone: "
            f"{backbone}, pretrained, decoder: DeepLabV3+) on {info.title} with few label maps and many images by the "
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
        limits=limits(None, name, None, backbone, trained=False),
        configuration_note=f"`s4mim_hf/recipes/{name}.yaml`; what it does not name has the library's defaults:",
        configuration=text.rstrip("\n"),
        data_note=data_note(name),
    )
