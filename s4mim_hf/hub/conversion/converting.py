"""From a peer's file to a model folder of ours: whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from transformers.utils import logging

from s4mim_hf.data.catalog import CATALOG, Color, default_palette
from s4mim_hf.errors import InputError, nearest
from s4mim_hf.hub.card import save_card
from s4mim_hf.hub.conversion.peer_card import doubts, render_peer_card
from s4mim_hf.hub.conversion.peers import Peer, check_peer, peer_named
from s4mim_hf.hub.conversion.reading import PeerWeights, Weights, read_checkpoint
from s4mim_hf.modeling import S4MIMConfig, S4MIMForSemanticSegmentation, S4MIMImageProcessor

# Which data a released checkpoint of so many classes was trained on.
DATA_BY_CLASSES = {21: "voc", 19: "cityscapes", 81: "coco", 150: "ade20k"}
_COLORS = 256


@dataclass(frozen=True)
class Converted:
    """What a conversion made.

    Attributes:
        folder: the model folder.
        config: its configuration.
        parameters: how many numbers the network has.
        weights: whose they are, the student's or the teacher's.
        left_out: names of the checkpoint's weights that have no place in the network.
        data: the data set whose classes it has; None where they were given, or are unknown.
        doubts: what may be wrong about the network although every weight fits, in sentences to be shown.
    """

    folder: Path
    config: S4MIMConfig
    parameters: int
    weights: Weights
    left_out: tuple[str, ...]
    data: str | None
    doubts: tuple[str, ...] = ()


def convert_checkpoint(
    peer: str,
    checkpoint: Path,
    output: Path,
    *,
    data: str | None = None,
    classes: Sequence[str] | None = None,
    weights: Weights | None = None,
    choices: Mapping[str, Any] | None = None,
) -> Converted:
    """Write a peer's checkpoint as a model folder: weights, configuration, processor, code, card.

    Args:
        peer: a name of `PEERS`.
        checkpoint: the peer's .pth file.
        output: a folder that is not there yet.
        data: a data set of the catalog, for classes and colours; None: the usual one of so many classes.
        classes: their names in the order of ids, in place of `data`'s.
        weights: "student" or "teacher" (the moving average); None: the teacher where there is one.
        choices: fields of `S4MIMConfig` that no weight tells, where they are not those that the peer's converter
            takes.

    Raises:
        InputError: the peer is unknown, the file is damaged, another network's or not whole, the classes do not fit,
            or the folder is there already or cannot be written.
    """
    known = peer_named(peer)
    if output.exists() or output.is_symlink():
        raise InputError(f"{output} is there already; give a folder that is not, or remove it first")
    for field in choices or {}:
        if field not in known.choices:
            raise InputError(f"{field} is no choice for {known.title}, whose weights tell the whole architecture")
    read = read_checkpoint(checkpoint, weights)
    try:
        config, state = _converted(known, read, choices or {})
    except ValueError as error:
        raise InputError(f"{checkpoint}: {error}") from None
    config, used = _with_classes(config, data, classes)
    segmenter = S4MIMForSemanticSegmentation(config)
    segmenter.load_state_dict(state)
    left_out = tuple(key for key in read.state if known.left_out and key.startswith(known.left_out))
    given = tuple(choices or ())
    made = Converted(
        folder=output,
        config=config,
        parameters=sum(parameter.numel() for parameter in segmenter.parameters()),
        weights=read.weights,
        left_out=left_out,
        data=used,
        doubts=doubts(known, config, given),
    )
    card = render_peer_card(known, config, checkpoint.name, read, left_out, used, given)
    _write(segmenter, output, card)
    return made


def _converted(
    peer: Peer, read: PeerWeights, choices: Mapping[str, Any]
) -> tuple[S4MIMConfig, dict[str, torch.Tensor]]:
    check_peer(peer, read.state.keys())
    config, state = peer.convert(read.state)
    if choices:
        config = S4MIMConfig.from_dict(config.to_dict() | dict(choices))
        with torch.device("meta"):
            # A choice that the network cannot have is refused where it is built.
            S4MIMForSemanticSegmentation(config)
    return config, state


def _with_classes(
    config: S4MIMConfig, data: str | None, classes: Sequence[str] | None
) -> tuple[S4MIMConfig, str | None]:
    """Return the configuration with its classes, and the data set that they are from."""
    names, palette, used = _classes(config.num_labels, data, classes)
    named = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "palette": [list(color) for color in palette] if palette else None,
    }
    return S4MIMConfig.from_dict(config.to_dict() | named), used


def _classes(
    count: int, data: str | None, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[Color, ...] | None, str | None]:
    """Return names, colours where there are enough, and the data set that they are from."""
    colors = default_palette(count) if count <= _COLORS else None
    if classes is not None:
        names = tuple(classes)
        if len(names) != count:
            raise InputError(f"{len(names)} classes are named, but the checkpoint predicts {count}; name every one")
        if len(set(names)) != count or not all(names):
            raise InputError(f"the class names {', '.join(names)} repeat or are empty; give each class its own")
        return names, colors, None
    if data is None and count not in DATA_BY_CLASSES:
        return tuple(f"LABEL_{index}" for index in range(count)), colors, None
    name = DATA_BY_CLASSES[count] if data is None else data
    if name not in CATALOG:
        raise InputError(f"no data set {name!r} is known{nearest(name, CATALOG)}; known are {', '.join(CATALOG)}")
    info = CATALOG[name]
    if len(info.classes) != count:
        raise InputError(
            f"{info.title} has {len(info.classes)} classes, but the checkpoint predicts {count}; name the data that it "
            "was trained on, or its classes"
        )
    return info.classes, info.palette, name


def _write(segmenter: S4MIMForSemanticSegmentation, output: Path, card: ModelCard) -> None:
    """Write everything beside the output, then give it its name."""
    target = output.absolute()
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        segmenter.save_pretrained(partial)
        S4MIMImageProcessor().save_pretrained(partial)
        save_card(card, partial)
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{output} cannot be written: {error}; free space, or give another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if bars:
            logging.enable_progress_bar()
