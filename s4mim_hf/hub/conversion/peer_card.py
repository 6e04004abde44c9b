"""The card of converted weights: whose they are, which file they are from, what nobody here has measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.errors import some
from s4mim_hf.hub.conversion.peers import Peer
from s4mim_hf.hub.conversion.reading import PeerWeights
from s4mim_hf.modeling import S4MIMConfig

CITYSCAPES_CLASSES = len(CATALOG["cityscapes"].classes)
_LOADING = """```python
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

folder = "FOLDER_OR_REPO_ID"
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True).eval()
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
with torch.no_grad():
    outputs = model(**processor(image, return_tensors="pt"))
label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])[0]
```

`trust_remote_code=True` runs the model's code from this folder: read it first. It needs torch, transformers and Pillow
only. With s4mim_hf installed, `import s4mim_hf` first and leave it out."""


def render_peer_card(
    peer: Peer,
    config: S4MIMConfig,
    file_name: str,
    read: PeerWeights,
    left_out: Sequence[str],
    data: str | None,
    given: Collection[str] = (),
) -> ModelCard:
    """Write the card of a converted checkpoint.

    Args:
        peer: whose weights these are.
        config: the network's.
        file_name: the checkpoint's, without its folder.
        read: what was read from it.
        left_out: weights of the file that the network has no place for.
        data: the data set whose classes it has; None where it is not known.
        given: fields of `config` that a person gave, since no weight tells them.
    """
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        license=peer.licence,
        tags=sorted({"semi-supervised", "semantic-segmentation", "s4mim", peer.name}),
    )
    about = f" (taken to be {CATALOG[data].title}'s)" if data else ""
    parts = [
        f"# {peer.title}'s weights, for transformers",
        f"A segmenter of {config.num_labels} classes{about}: **the work of {peer.title}'s authors** ({peer.authors}; "
        f"[paper]({peer.paper}), [code]({peer.repository})), whose checkpoint was renamed, tensor by tensor, for the "
        "networks of s4mim_hf. Nothing was trained here.",
        f"Licence: their repository's ({peer.licence}). Please cite their paper when you use these weights. The Python "
        "files in this folder are s4mim_hf's (Apache-2.0).",
        "## Where the weights are from\n\n" + _origin(file_name, read, left_out),
        "## The network\n\n" + _network(config, peer, given),
        "## Results\n\nNobody of s4mim_hf has measured these weights. Numbers that their authors publish were measured "
        "by them, with their code.",
        "## How to load it\n\n" + _LOADING,
    ]
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _origin(file_name: str, read: PeerWeights, left_out: Sequence[str]) -> str:
    network = "the student's" if read.weights == "student" else "the teacher's (the moving average)"
    entry = "the file is one network's weights" if read.entry is None else f"{network} weights, `{read.entry}` in it"
    lost = (
        f"{len(left_out)} of its tensors never enter the logits, and have no place here: {some(left_out, 12)}."
        if left_out
        else "Every tensor of it is used."
    )
    return f"File `{file_name}`, sha256 `{read.sha256}`; {entry}. {lost}"


def doubts(peer: Peer, config: S4MIMConfig, given: Collection[str]) -> tuple[str, ...]:
    """Say in sentences what may be wrong about the network although every weight fits.

    Configurations of Cityscapes differ between the versions of the peers' repositories, and no weight tells which one a
    checkpoint is from. Theirs are all on ResNets.

    Args:
        peer: whose weights these are.
        config: the network's.
        given: fields of it that a person gave.

    Returns:
        None of them where the weights are not of Cityscapes' 19 classes, or all that differs was given.
    """
    other = {field: value for field, value in peer.cityscapes_otherwise.items() if field not in given}
    of_a_resnet = getattr(config.backbone_config, "model_type", None) == "resnet"
    if config.num_labels != CITYSCAPES_CLASSES or not of_a_resnet or not other:
        return ()
    taken = _listed({field: getattr(config, field) for field in peer.choices})
    options = " ".join(f"{_option(field)} {_written(value, ',')}" for field, value in other.items())
    return (
        f"{CITYSCAPES_CLASSES} classes are what Cityscapes has, for which {peer.title}'s repository has other "
        "configurations in other versions, and no weight tells which one a checkpoint is from: "
        f"{taken} are taken here, other versions have {_listed(other)}",
        "with the wrong ones the weights load and the predictions are worse, without any error; see which network "
        f"scores higher on validation images, this one or that of scripts/convert.py with {options}",
    )


def _network(config: S4MIMConfig, peer: Peer, given: Collection[str]) -> str:
    backbone = config.backbone_config
    model_type = getattr(backbone, "model_type", "unknown")
    depths = getattr(backbone, "depths", None)
    lines = [f"Encoder `{model_type}`" + (f" of depths {', '.join(map(str, depths))}" if depths else "") + "."]
    if peer.choices:
        told = "; ".join(
            f"`{field}` {_written(getattr(config, field))} ({'as asked for' if field in given else 'assumed'})"
            for field in peer.choices
        )
        options = ", ".join(f"`{_option(field)}`" for field in peer.choices)
        lines.append(f"No weight tells {told}; {options} of `scripts/convert.py` set them otherwise.")
    lines += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in doubts(peer, config, given)]
    return " ".join(lines)


def _listed(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{field} {_written(value)}" for field, value in values.items())


def _written(value: Any, separator: str = ", ") -> str:
    if value is None:
        return "none"
    return separator.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _option(field: str) -> str:
    """Return what a field of the configuration is called on the command line."""
    return f"--{field.replace('_', '-')}"
