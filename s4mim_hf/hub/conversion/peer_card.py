"""The card of converted weights: whose they are, which file they are from, what nobody here has measured."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import ModelCard, ModelCardData

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.errors import some
from s4mim_hf.hub.conversion.peers import Peer
from s4mim_hf.hub.conversion.reading import PeerWeights
from s4mim_hf.modeling import S4MIMConfig

_LOADING = """```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

folder = "FOLDER_OR_REPO_ID"
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True).eval()
image = Image.open("image.jpg").convert("RGB")
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
) -> ModelCard:
    """Write the card of a converted checkpoint.

    Args:
        peer: whose weights these are.
        config: the network's.
        file_name: the checkpoint's, without its folder.
        read: what was read from it.
        left_out: weights of the file that the network has no place for.
        data: the data set whose classes it has; None where it is not known.
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
        "## The network\n\n" + _network(config, peer),
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


def _network(config: S4MIMConfig, peer: Peer) -> str:
    backbone = config.backbone_config
    model_type = getattr(backbone, "model_type", "unknown")
    depths = getattr(backbone, "depths", None)
    lines = [f"Encoder `{model_type}`" + (f" of depths {', '.join(map(str, depths))}" if depths else "") + "."]
    told = []
    for field in peer.choices:
        value = getattr(config, field)
        if value is not None:
            told.append(f"`{field}` {', '.join(map(str, value)) if isinstance(value, list | tuple) else value}")
    if told:
        lines.append(f"No weight tells {'; '.join(told)}: they are as published, or as was asked for.")
    return " ".join(lines)
