"""What an S4MIM network is made of: the one configuration that is saved beside its weights."""

from __future__ import annotations

import difflib
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from .configuration_xception import backbone_config_class, backbone_names

CODE_OF_AUTO_CLASSES = {
    "AutoConfig": "configuration_s4mim.S4MIMConfig",
    "AutoModel": "modeling_s4mim.S4MIMForSemanticSegmentation",
    "AutoModelForSemanticSegmentation": "modeling_s4mim.S4MIMForSemanticSegmentation",
    "AutoImageProcessor": "image_processing_s4mim.S4MIMImageProcessor",
}

# Keys that transformers itself writes into, or passes to, a configuration beside the fields of its base class.
_STANDARD_KEYS = {
    *("num_labels", "name_or_path", "auto_map", "model_type", "torch_dtype", "output_attentions"),
    *("attn_implementation", "experts_implementation", "per_layer_config", "custom_pipelines", "quantization_config"),
}
# What is given together with other classes: it must be there when the whole is checked.
_OF_THE_CLASSES = ("id2label", "label2id", "palette", "semantic_loss_ignore_index")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "decode_head": ("deeplabv3plus", "dpt"),
    "dpt_align_corners": (True, False),
    "output_stride": (None, 8, 16, 32),
    "mask_token": ("learned", "zero", "none"),
    "mim_features": ("decoder", "encoder"),
    "masked_features": ("keep", "token"),
    "mim_decoder": (True, False),
    "mim_decoder_type": ("conv", "attention"),
    "mim_attention": ("auto", "sdpa", "flex"),
    "separable_convolutions": (True, False),
    "deep_stem": (True, False),
    "align_corners": (True, False),
    "low_level_first": (True, False),
}
_SMALLEST_INTEGER = {
    "decoder_channels": 1,
    "low_level_channels": 1,
    "mim_channels": 1,
    "mim_depth": 1,
    "mim_kernel_size": 1,
    "mim_expansion": 1,
    "mim_attention_stride": 1,
    "mim_num_heads": 1,
    "semantic_loss_ignore_index": -100,
}
# FlexAttention's kernels take no narrower heads.
FLEX_HEAD_CHANNELS = 16
# Encoders whose layers all work at the stride of their patches, the plain vision transformers; others are pyramids.
VISION_TRANSFORMERS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "clip_vision_model")
DPT_LAYERS = 4


class S4MIMConfig(PreTrainedConfig):
    """Architecture of the segmenter and of what masked image modelling adds to it while training.

    Nothing about the training itself (losses, weights, data) belongs here.

    Args:
        backbone_config: The encoder, as a configuration or its dictionary with `model_type`; a ResNet-50 by default.
            Of a pyramid the features at stride 4 and the last are used, of a vision transformer those of four layers.
        output_stride: Pixels per position of the encoder's last features: 8, 16, 32, or None for the encoder's own.
        deep_stem: A ResNet's stem as three 3x3 convolutions of embedding_size/2, embedding_size/2 and embedding_size
            channels in place of the 7x7, as the networks of UniMatch and CorrMatch have it (embedding_size 128).
        multi_grid: Factors on the dilations of a ResNet's last stage, one for each of its layers; None: no factors.
        decode_head: "deeplabv3plus" for pyramids, "dpt" for plain vision transformers (DINOv2, DINOv3, CLIP).
        decoder_channels: Channels of the decoder's features, and of the ASPP's branches or of DPT's fusion.
        low_level_channels: Channels to which the stride-4 features are reduced; for "deeplabv3plus".
        aspp_rates: Dilations of the ASPP's 3x3 branches, each at least 1. None: 6, 12, 18, doubled at output stride 8;
            for "deeplabv3plus".
        decoder_dropout: Probability of dropping a decoder feature before the classifier, 0 <= p < 1.
        separable_convolutions: Depthwise-separable 3x3 convolutions in ASPP and decoder, as in the DeepLabV3+ paper;
            for "deeplabv3plus".
        align_corners: Whether "deeplabv3plus" enlarges from corner to corner, as in UniMatch's and CorrMatch's network;
            by default position i stands for the pixels from i * r on.
        low_level_first: Whether it joins the stride-4 features before the deep ones, as theirs does.
        dpt_layers: Which four layers of the vision transformer "dpt" takes, counted from 1; the last of them is the
            last there is. None: evenly spaced, which for 12 layers is 3, 6, 9, 12.
        dpt_channels: Channels to which each of them is projected. None: an eighth, a quarter and a half of the
            encoder's, and all.
        dpt_align_corners: Whether "dpt" enlarges from corner to corner (the published code does) or by pixel areas.
        position_embedding_offset: Of DINOv2 without registers: patches that are added to an image's number when the
            position embeddings are resized to it, 0 <= offset < 1. 0 is transformers' way, 0.1 that of the original
            code; images of the pretraining's own size see no difference.
        initializer_range: Standard deviation of the classifier's and projection's initial weights, above 0.
        semantic_loss_ignore_index: Label that enters no loss.
        palette: One (R, G, B) of 0..255 per class, for pictures; None where none is known.
        mask_token: What masked pixels become: "learned" (one trained value per channel), "zero" (the mean colour), or
            "none" (the model takes no masks).
        mim_decoder: Whether the reconstruction decoder is built.
        mim_features: Which features z are: the "decoder" ones before the classifier (stride 4), or the last of the
            "encoder" (output stride).
        mim_projection_channels: Channels of a 1x1 projection of z, followed by LayerNorm over channels at each
            position; None leaves z as the features are.
        mim_decoder_type: "conv" (class-gated convolutions at z's stride) or "attention" (of tokens at a coarser stride,
            each of which sees all tokens of its class).
        mim_channels: Channels inside the reconstruction decoder.
        mim_depth: Its number of blocks.
        mim_kernel_size: Its odd kernel size; for "conv".
        mim_expansion: How many times wider the hidden layer of its blocks is.
        mim_attention_stride: Pixels per token, a multiple of z's stride; for "attention", as are the following.
        mim_num_heads: Attention heads, a divisor of `mim_channels`.
        mim_attention: "sdpa" (scaled_dot_product_attention), "flex" (FlexAttention: it needs 16 channels per head, and
            learns on CUDA only), or "auto" (flex where it can be had).
        masked_features: "keep" leaves z at masked positions, "token" puts a learned vector there before the decoder.

    Raises:
        ValueError: An unknown key, with the nearest valid name, or a value out of range, with field, value and bound.
    """

    model_type = "s4mim"
    _auto_class = "AutoConfig"

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    output_stride: int | None = None
    deep_stem: bool = False
    multi_grid: list[int] | tuple[int, ...] | None = None
    decode_head: str = "deeplabv3plus"
    decoder_channels: int = 256
    low_level_channels: int = 48
    aspp_rates: list[int] | tuple[int, ...] | None = None
    decoder_dropout: float | int = 0.1
    separable_convolutions: bool = False
    align_corners: bool = False
    low_level_first: bool = False
    dpt_layers: list[int] | tuple[int, ...] | None = None
    dpt_channels: list[int] | tuple[int, ...] | None = None
    dpt_align_corners: bool = True
    position_embedding_offset: float | int = 0.0
    initializer_range: float = 0.02
    semantic_loss_ignore_index: int = 255
    palette: list[Any] | tuple[Any, ...] | None = None
    mask_token: str = "learned"
    mim_decoder: bool = True
    mim_features: str = "decoder"
    mim_projection_channels: int | None = None
    mim_decoder_type: str = "conv"
    mim_channels: int = 64
    mim_depth: int = 4
    mim_kernel_size: int = 3
    mim_expansion: int = 2
    mim_attention_stride: int = 16
    mim_num_heads: int = 4
    mim_attention: str = "auto"
    masked_features: str = "keep"

    def __post_init__(self, **kwargs: Any) -> None:
        """Resolve the backbone's configuration, refuse unknown keys, check every value."""
        self._refuse_unknown(kwargs)
        self.backbone_config = _resolve_backbone(self.backbone_config)
        super().__post_init__(**kwargs)
        if getattr(self, "label2id", None) is None:
            self.label2id: dict[str, int] | None = {label: index for index, label in (self.id2label or {}).items()}
        self.validate_values()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build as transformers does, where `from_pretrained` is given other classes by `num_labels` or `id2label`.

        The saved colours and names are of the saved classes, and left behind with them.

        Raises:
            ValueError: Beside the usual, `num_labels` and `id2label` contradict each other.
        """
        fields: dict[str, Any] = dict(config_dict)
        given: dict[str, Any] = {name: kwargs.pop(name) for name in _OF_THE_CLASSES if name in kwargs}
        labels, count = given.get("id2label"), kwargs.get("num_labels")
        if labels is None:
            given.pop("id2label", None)
        elif count not in (None, len(labels)):
            raise ValueError(f"num_labels is {count}, but id2label names {len(labels)} classes; leave num_labels out")
        saved = list((fields.get("id2label") or {}).values())
        if (labels is not None and list(labels.values()) != saved) or count not in (None, len(saved)):
            for name in ("id2label", "label2id", "palette"):
                fields.pop(name, None)
        fields.update(given)
        return super().from_dict(fields, **kwargs)

    def _refuse_unknown(self, kwargs: dict[str, Any]) -> None:
        fields = set(type(self).__dataclass_fields__)
        for key in kwargs:
            if key in _STANDARD_KEYS or key.startswith("_") or hasattr(PreTrainedConfig, key):
                continue
            close = difflib.get_close_matches(key, sorted(fields | _STANDARD_KEYS), n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the fields are {', '.join(sorted(fields))}"
            raise ValueError(f"S4MIMConfig has no field {key!r}{hint}")

    def validate_values(self) -> None:
        """Check every field of ours against its bounds; models call it again, for values that were assigned later.

        Raises:
            ValueError: One sentence with the field, the value found and what is allowed.
        """
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if not any(value is choice or (value == choice and type(value) is type(choice)) for choice in choices):
                raise ValueError(f"S4MIMConfig.{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")
        for name, smallest in _SMALLEST_INTEGER.items():
            _check_integer(name, getattr(self, name), smallest)
        if self.mim_projection_channels is not None:
            _check_integer("mim_projection_channels", self.mim_projection_channels, 1)
        for name in ("aspp_rates", "multi_grid"):
            for factor in getattr(self, name) or ():
                _check_integer(name, factor, 1)
            if getattr(self, name) is not None and not getattr(self, name):
                raise ValueError(f"S4MIMConfig.{name} is empty; give at least one dilation, or None for the default")
        if self.mim_kernel_size % 2 == 0:
            raise ValueError(f"S4MIMConfig.mim_kernel_size is {self.mim_kernel_size}; it must be odd")
        if not 0 <= self.decoder_dropout < 1:
            raise ValueError(f"S4MIMConfig.decoder_dropout is {self.decoder_dropout}; it must be at least 0, below 1")
        if not self.initializer_range > 0:
            raise ValueError(f"S4MIMConfig.initializer_range is {self.initializer_range}; it must be above 0")
        self._check_head()
        self._check_attention()
        self._check_labels()

    def _check_head(self) -> None:
        encoder: Any = self.backbone_config
        model_type = encoder.model_type
        is_transformer = model_type in VISION_TRANSFORMERS
        if is_transformer != (self.decode_head == "dpt"):
            kind = "plain vision transformer" if is_transformer else "pyramid"
            fitting = "dpt" if is_transformer else "deeplabv3plus"
            raise ValueError(
                f"S4MIMConfig.decode_head is {self.decode_head!r}, but the backbone {model_type!r} is a {kind}; set "
                f"decode_head to {fitting!r}, or choose another backbone"
            )
        offset = self.position_embedding_offset
        if not 0 <= offset < 1 or (offset and model_type != "dinov2"):
            raise ValueError(
                f"S4MIMConfig.position_embedding_offset is {offset}; it must be at least 0 and below 1, and 0 for "
                "another backbone than 'dinov2'"
            )
        for name in ("dpt_layers", "dpt_channels"):
            values = getattr(self, name)
            for value in values or ():
                _check_integer(name, value, 1)
            if values is not None and len(values) != DPT_LAYERS:
                raise ValueError(f"S4MIMConfig.{name} is {list(values)}; give {DPT_LAYERS} numbers, or None")
        if is_transformer:
            _check_layers(self.dpt_layers, encoder.num_hidden_layers)

    def _check_attention(self) -> None:
        if self.mim_decoder_type != "attention":
            return
        if self.mim_channels % self.mim_num_heads:
            raise ValueError(
                f"S4MIMConfig.mim_num_heads is {self.mim_num_heads}; it must divide mim_channels {self.mim_channels}"
            )
        if self.mim_attention == "flex" and self.mim_channels // self.mim_num_heads < FLEX_HEAD_CHANNELS:
            raise ValueError(
                f"S4MIMConfig.mim_attention is 'flex', which needs at least {FLEX_HEAD_CHANNELS} channels per head; "
                f"{self.mim_channels} mim_channels in {self.mim_num_heads} mim_num_heads are fewer"
            )

    def _check_labels(self) -> None:
        ids = sorted(self.id2label or {})
        if ids != list(range(len(ids))) or not ids:
            raise ValueError(
                f"S4MIMConfig.id2label has the ids {ids[:5]}...; name every class from 0 on without a gap"
                if ids
                else "S4MIMConfig.id2label is empty; a segmenter needs at least one class"
            )
        if 0 <= self.semantic_loss_ignore_index < len(ids):
            raise ValueError(
                f"S4MIMConfig.semantic_loss_ignore_index is {self.semantic_loss_ignore_index}, which is also one of "
                f"the {len(ids)} classes; it must lie outside 0..{len(ids) - 1}"
            )
        if self.palette is not None and len(self.palette) != len(ids):
            raise ValueError(
                f"S4MIMConfig.palette has {len(self.palette)} colours; give one for each of {len(ids)} classes, or None"
            )


def _check_integer(name: str, value: Any, smallest: int) -> None:
    if type(value) is not int or value < smallest:
        raise ValueError(f"S4MIMConfig.{name} is {value!r}; it must be an integer of at least {smallest}")


def _check_layers(layers: list[int] | tuple[int, ...] | None, depth: int) -> None:
    if layers is None and depth < DPT_LAYERS:
        raise ValueError(
            f"S4MIMConfig.decode_head 'dpt' takes {DPT_LAYERS} layers, and the backbone has {depth}; use a deeper one"
        )
    if layers is not None and (sorted(set(layers)) != list(layers) or layers[-1] != depth):
        raise ValueError(
            f"S4MIMConfig.dpt_layers is {list(layers)}; the numbers must rise, up to the backbone's last layer {depth} "
            "(layers behind the last one taken would never learn)"
        )


def even_layers(depth: int) -> list[int]:
    """Return four layers of `depth` at even distances, counted from 1, of which the last is the last there is."""
    return [depth * part // DPT_LAYERS for part in range(1, DPT_LAYERS + 1)]


def _resolve_backbone(given: Any) -> PreTrainedConfig:
    """Return the encoder's configuration, a pyramid's set to output its stride-4 and its last features."""
    if given is None:
        given = CONFIG_MAPPING["resnet"]()
    if isinstance(given, dict):
        model_type = given.get("model_type")
        config_class = backbone_config_class(model_type)
        if config_class is None:
            close = difflib.get_close_matches(str(model_type), backbone_names(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"S4MIMConfig.backbone_config has the model_type {model_type!r}, unknown to transformers{hint}"
            )
        given = config_class.from_dict(given)
    if given.model_type == "clip":
        given = given.vision_config
    stages = getattr(given, "stage_names", None)
    if given.model_type not in VISION_TRANSFORMERS and stages and hasattr(given, "set_output_features_output_indices"):
        # stage_names[0] is the stem; the first stage of a pyramid works at stride 4, the last is the deepest.
        given.set_output_features_output_indices(out_features=[stages[1], stages[-1]], out_indices=None)
    return given


__all__ = ["S4MIMConfig"]
