"""An encoder's configuration and pretrained weights, from a Hub name or a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AutoConfig, MobileNetV2Model, PreTrainedConfig
from transformers.utils import logging

from .backbones import Backbone
from .encoders import ClipTokens, MobileNetV2Pyramid, SegformerPyramid
from .resnet_variants import STEM_PREFIX


def load_backbone_weights(backbone: Backbone, name_or_path: str) -> None:
    """Fill `backbone` with the pretrained weights of a Hub name or a local folder, in place.

    Raises:
        ValueError: The checkpoint cannot be had, or lacks a weight of the encoder.
    """
    # Not by AutoBackbone.from_pretrained: that asks the Hub about a local folder's name, and fails.
    target = backbone.encoder
    if isinstance(target, SegformerPyramid | ClipTokens):
        target = target.network
    is_mobilenet = isinstance(target, MobileNetV2Pyramid)
    loader: Any = MobileNetV2Model if is_mobilenet else type(target)
    wanted = {} if is_mobilenet else {"config": target.config}
    try:
        with quiet_loading():
            pretrained, report = loader.from_pretrained(name_or_path, output_loading_info=True, **wanted)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"the weights of the backbone {name_or_path!r} cannot be loaded: {one_line(error)}") from error
    own = target.state_dict()
    if any(key.startswith(STEM_PREFIX) for key in own):
        raise ValueError(
            f"the checkpoint {name_or_path!r} has transformers' stem of one 7x7 convolution, and deep_stem asks for "
            "another one, which would be random; set deep_stem to false, or start from random weights"
        )
    missing = sorted(key for key in report["missing_keys"] if key in own and not _may_be_missing(key))
    if missing:
        raise ValueError(
            f"the checkpoint {name_or_path!r} lacks {len(missing)} weights of its own architecture, the first being "
            f"{missing[0]!r}; they would be random, so choose a complete checkpoint"
        )
    state = pretrained.state_dict()
    target.load_state_dict({key: state[key] for key in own})


def load_backbone_config(name_or_path: str) -> PreTrainedConfig:
    """Read an encoder's configuration from a Hub name or a local folder, without its classes' names.

    Raises:
        ValueError: It cannot be had.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the backbone {name_or_path!r} is neither a folder with a config.json nor a model that the Hub gives: "
            f"{one_line(error)}"
        ) from error
    if config.model_type == "clip":
        config = config.vision_config
    config.architectures = None
    if os.path.isdir(name_or_path):
        # A folder of this machine means nothing where the model goes.
        config.name_or_path = ""
    # ImageNet's thousand names would otherwise travel along in every saved configuration.
    config.num_labels = 2
    return config


def _may_be_missing(key: str) -> bool:
    """Say whether a classifier's checkpoint rightly lacks `key`.

    A backbone's norms of its outputs exist in no classifier: they start as the identity scale that they are made with.
    """
    return key.startswith("hidden_states_norms.") or key.endswith("num_batches_tracked")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' table of leftover and missing weights: what does not fit is one sentence of ours."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def one_line(error: Exception) -> str:
    """Return what an error says, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
