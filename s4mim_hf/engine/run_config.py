"""Everything about a run that is not the architecture's own state: one frozen, validated tree of settings.

A `RunConfig` saved with a run is enough to repeat it. Every class refuses unknown keys and values out of range when
it is built, before anything is loaded. Recipes, overrides and readable messages: `s4mim_hf.engine.config_loading`.
Steps are optimizer steps throughout.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic.dataclasses import dataclass

from s4mim_hf.data.config import DataConfig
from s4mim_hf.evaluation.inference import InferenceConfig
from s4mim_hf.methods import MethodConfig, S4MIMMethodConfig

_STRICT_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)


def _unquoted_no(value: object) -> object:
    """YAML reads a bare `no` as false; for the precision it is the word."""
    return "no" if value is False else value


Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(_unquoted_no)]


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class ModelConfig:
    """Which network is built; all but the first three and the BatchNorm settings become fields of `S4MIMConfig`.

    Args:
        backbone: a Hub name or a local folder, whose pretrained weights are loaded.
        backbone_config: an architecture to start from random weights instead, e.g. `{model_type: resnet, depths: ...}`.
            Exactly one of the two is set.
        freeze_backbone: whether the backbone stays as it is: no gradients, no statistics, no dropout in it.
        output_stride: pixels per position of the backbone's last stage; None: as the backbone has it.
        deep_stem: a ResNet's stem as three 3x3 convolutions, as UniMatch and CorrMatch have it; random weights only.
        multi_grid: factors on the dilations of a ResNet's last stage, one for each of its layers.
        decode_head: "deeplabv3plus" for pyramids, "dpt" for plain vision transformers (DINOv2, DINOv3, CLIP).
        decoder_channels: width of the segmentation decoder.
        low_level_channels: width that the stride-4 feature is projected to; for deeplabv3plus.
        aspp_rates: dilations of the spatial pyramid; None: 6, 12, 18, doubled at output stride 8; for deeplabv3plus.
        decoder_dropout: before the classifier, in [0, 1).
        separable_convolutions: whether the decoder's convolutions are depthwise-separable; for deeplabv3plus.
        align_corners: whether deeplabv3plus enlarges from corner to corner, as UniMatch and CorrMatch do.
        low_level_first: whether it joins the stride-4 features before the deep ones, as theirs do.
        dpt_layers: which four layers of the backbone dpt takes, counted from 1, the last one among them; None: evenly
            spaced.
        dpt_channels: widths that these are projected to; None: an eighth, a quarter, a half and all of the backbone's.
        dpt_align_corners: whether dpt enlarges from corner to corner, as published, or by pixel areas.
        position_embedding_offset: of dinov2: 0.1 resizes position embeddings as its original code does, 0 as
            transformers does, in [0, 1).
        sync_batch_norm: whether BatchNorm statistics are shared by all processes.
        batch_norm_momentum: of the running statistics, in (0, 1]; None: as the backbone has it.
        mask_token: what masked pixels are replaced by.
        mim_features: z of the masked view: the decoder's features (stride 4; of dpt half a patch), or the encoder's
            last.
        mim_projection_channels: width of z's own projection; None: z is the raw features.
        mim_decoder_type: the reconstruction decoder: class-gated convolutions at z's stride, or attention of tokens at
            a coarser stride, each of which sees all tokens of its class.
        mim_channels: width of the reconstruction decoder.
        mim_depth: its number of blocks.
        mim_kernel_size: its depthwise kernel, odd; for conv.
        mim_expansion: widening inside a block.
        mim_attention_stride: pixels per token, a multiple of z's stride; for attention, as are the following.
        mim_num_heads: attention heads, a divisor of mim_channels.
        mim_attention: sdpa (scaled_dot_product_attention), flex (FlexAttention: it needs CUDA and 16 channels per
            head), or auto: flex where it can be had.
        masked_features: whether z at masked positions is kept, or replaced by a learned token.
    """

    backbone: str | None = Field(default=None, min_length=1)
    backbone_config: dict[str, Any] | None = None
    freeze_backbone: bool = False
    output_stride: Literal[8, 16, 32] | None = 16
    deep_stem: bool = False
    multi_grid: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    decode_head: Literal["deeplabv3plus", "dpt"] = "deeplabv3plus"
    decoder_channels: PositiveInt = 256
    low_level_channels: PositiveInt = 48
    aspp_rates: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    separable_convolutions: bool = False
    align_corners: bool = False
    low_level_first: bool = False
    dpt_layers: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] | None = None
    dpt_channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] | None = None
    dpt_align_corners: bool = True
    position_embedding_offset: float = Field(default=0.0, ge=0, lt=1)
    sync_batch_norm: bool = False
    batch_norm_momentum: float | None = Field(default=None, gt=0, le=1)
    mask_token: Literal["learned", "zero"] = "learned"
    mim_features: Literal["decoder", "encoder"] = "decoder"
    mim_projection_channels: PositiveInt | None = None
    mim_decoder_type: Literal["conv", "attention"] = "conv"
    mim_channels: PositiveInt = 64
    mim_depth: PositiveInt = 4
    mim_kernel_size: PositiveInt = 3
    mim_expansion: PositiveInt = 2
    mim_attention_stride: PositiveInt = 16
    mim_num_heads: PositiveInt = 4
    mim_attention: Literal["auto", "sdpa", "flex"] = "auto"
    masked_features: Literal["keep", "token"] = "keep"

    @model_validator(mode="after")
    def _one_backbone(self) -> Self:
        if self.backbone is None and self.backbone_config is None:
            raise ValueError(
                "neither model.backbone nor model.backbone_config is set; set model.backbone to a Hub name or a local "
                "folder of pretrained weights, or model.backbone_config to an architecture with random weights"
            )
        if self.backbone is not None and self.backbone_config is not None:
            raise ValueError(
                f"model.backbone ({self.backbone!r}) and model.backbone_config are both set; set one of them to null"
            )
        if self.backbone_config is not None and not isinstance(self.backbone_config.get("model_type"), str):
            raise ValueError("model.backbone_config lacks model_type; add the architecture's name, e.g. resnet")
        return self

    @model_validator(mode="after")
    def _fitting_decoder(self) -> Self:
        if self.mim_kernel_size % 2 == 0:
            raise ValueError(f"model.mim_kernel_size is {self.mim_kernel_size}; expected an odd number")
        if self.mim_decoder_type == "attention" and self.mim_channels % self.mim_num_heads:
            heads, channels = self.mim_num_heads, self.mim_channels
            raise ValueError(f"model.mim_num_heads is {heads}; expected a divisor of model.mim_channels {channels}")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class TeacherConfig:
    """The teacher: an exponential moving average of the student.

    Args:
        decay: share of itself that it keeps at a step, in [0, 1).
        ramp: whether the decay grows from 0 as min(decay, 1 − 1/(t + 1)).
        buffers: whether float buffers (BatchNorm statistics) are copied or averaged like the weights.
    """

    decay: float = Field(default=0.996, ge=0, lt=1)
    ramp: bool = True
    buffers: Literal["copy", "average"] = "copy"


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class OptimConfig:
    """The optimizer and its schedule: linear warm-up, then (1 − t/T)^power.

    Args:
        name: "sgd" or "adamw".
        learning_rate: of everything but the backbone.
        backbone_learning_rate_scale: multiplies the learning rate for the backbone.
        layer_decay: multiplies it once more for each layer between a parameter of the backbone and its output (blocks
            of a transformer, stages of a pyramid), in (0, 1]; None: the same for all of it.
        weight_decay: of weights with more than one dimension.
        momentum: SGD's, in [0, 1); unused by AdamW.
        nesterov: SGD's; unused by AdamW.
        max_steps: T.
        warmup_steps: less than `max_steps`.
        power: of the decay; 0 keeps the rate constant.
        gradient_accumulation_steps: micro-batches per step.
        max_grad_norm: gradients are clipped to this norm; None: never.
        reference_batch_size: labelled images per step that `learning_rate` is meant for; it is scaled linearly to the
            effective number. None: as it stands.
    """

    name: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-4
    backbone_learning_rate_scale: NonNegativeFloat = 0.1
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    weight_decay: NonNegativeFloat = 1e-4
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    max_steps: PositiveInt = 4000
    warmup_steps: NonNegativeInt = 0
    power: NonNegativeFloat = 0.9
    gradient_accumulation_steps: PositiveInt = 1
    max_grad_norm: PositiveFloat | None = None
    reference_batch_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"optim.warmup_steps is {self.warmup_steps} and optim.max_steps is {self.max_steps}; "
                "the warm-up must be shorter than the run: lower optim.warmup_steps"
            )
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("optim.nesterov needs optim.momentum above 0, which is 0")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class EvaluationConfig:
    """How often and how the validation split is measured; the last step always is.

    Args:
        interval: steps between evaluations.
        batch_size: images of one size that are predicted together.
        inference: whole image, sliding window or centre crop; scales and flip.
        evaluate_student: whether the student is measured beside the teacher.
    """

    interval: PositiveInt = 500
    batch_size: PositiveInt = 4
    inference: InferenceConfig = Field(default_factory=InferenceConfig)
    evaluate_student: bool = True


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class LogConfig:
    """What is written down while training.

    Args:
        interval: steps between lines of `metrics.jsonl`.
        tracker: "tensorboard" writes its event files as well.
    """

    interval: PositiveInt = 10
    tracker: Literal["tensorboard", "none"] = "tensorboard"


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class CheckpointConfig:
    """From where a run can be resumed.

    Args:
        interval: steps between checkpoints; None: none but the last step's.
        keep: how many of the newest stay on disk.
    """

    interval: PositiveInt | None = 1000
    keep: PositiveInt = 1


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class PanelConfig:
    """Pictures of validation images with truth, prediction and reconstruction.

    Args:
        count: images per panel; 0: no panels.
    """

    count: NonNegativeInt = 4


@dataclass(frozen=True, kw_only=True, config=_STRICT_KEYS)
class RunConfig:
    """A whole run.

    Args:
        recipe: the name of the recipe that the run started from; where `output_dir` is None it names the folder.
        seed: of every random choice in the run.
        output_dir: the run's folder; None: the next free one of runs/RECIPE, runs/RECIPE-2, ...
        mixed_precision: "no", "fp16" or "bf16".
        deterministic: whether only bitwise reproducible GPU operations are used; slower.
        data: what the run learns from.
        model: which network is built.
        method: what the losses are; the class is chosen by its `name`.
        teacher: the averaged network.
        optim: the optimizer and its schedule.
        evaluation: when and how the validation split is measured.
        log: what is written down.
        checkpoint: from where the run can be resumed.
        panels: pictures of what the network does.
    """

    recipe: str = "demo"
    seed: NonNegativeInt = 0
    output_dir: str | None = Field(default=None, min_length=1)
    mixed_precision: Precision = "no"
    deterministic: bool = False
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig
    method: Annotated[MethodConfig, Field(discriminator="name")] = Field(default_factory=S4MIMMethodConfig)
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    panels: PanelConfig = Field(default_factory=PanelConfig)
