"""From a run's configuration to a trainer that is ready: data, model, method, optimizer, hooks, in this order.

Everything that can be wrong with the input is found here, before anything is written into the run's folder.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin

from s4mim_hf.data.loaders import Batch
from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.data.streaming import ShardPool
from s4mim_hf.engine.announcement import announce
from s4mim_hf.engine.build_data import build_loader, load_data, open_unlabeled
from s4mim_hf.engine.build_model import (
    Triple,
    add_training_heads,
    build_segmenter,
    check_crop,
    check_segmenter,
    decoder_reach,
    freeze_backbone,
    image_statistics,
    set_up_normalization,
)
from s4mim_hf.engine.config_loading import to_dict
from s4mim_hf.engine.hooks import CheckpointHook, EvaluationHook, Hook, LoggingHook, MetricsFile
from s4mim_hf.engine.optim import PolynomialSchedule, build_optimizer
from s4mim_hf.engine.picture_hooks import CurveHook, PanelHook
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.engine.trainer import Trainer
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.evaluator import Evaluator
from s4mim_hf.hub.export import ModelExporter
from s4mim_hf.methods import Method, Task, build_method
from s4mim_hf.modeling import S4MIMForSemiSupervisedSegmentation, S4MIMImageProcessor

# What `accelerate launch` sets, or a default configuration of accelerate's, for trainings that cut a model into pieces.
SHARDED_LAUNCHES = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}


class Network(NamedTuple):
    """The training model, the method it is for, and the mean and standard deviation of the images that it takes."""

    model: S4MIMForSemiSupervisedSegmentation
    method: Method
    statistics: tuple[Triple, Triple]


@dataclass
class Run:
    """A trainer with what it trains on and what it leaves behind.

    Attributes:
        trainer: ready to train.
        data: what it learns from.
        evaluation: holds the last and the best result afterwards.
        output_dir: the run's folder.
        pool: the unlabelled images, where they are streamed.
    """

    trainer: Trainer
    data: PreparedData
    evaluation: EvaluationHook
    output_dir: Path
    pool: ShardPool | None = None

    def batches(self) -> Generator[Batch, None, None]:
        """Yield the micro-batches that are still to come, from the trainer's step on."""
        try:
            yield from build_loader(self.trainer, self.data, self.pool, self.output_dir)
        except InputError as error:
            # A loader's worker wraps the sentence in its own traceback, whose last line it is.
            sentence = str(error).strip().splitlines()[-1]
            raise InputError(sentence.removeprefix("s4mim_hf.errors.InputError: ")) from None


def build_accelerator(config: RunConfig, output_dir: Path) -> Accelerator:
    """Return the accelerator of a run: its precision, its accumulation, its tracker.

    Raises:
        InputError: a precision that needs a GPU where there is none, or a launch that cuts the model into pieces.
    """
    for variable, name in SHARDED_LAUNCHES.items():
        if os.environ.get(variable, "").lower() == "true":
            raise InputError(
                f"the launcher asks for {name}, which does not fit a run: the teacher averages a whole student; "
                "launch with --multi_gpu, one whole model a GPU, or as a single process"
            )
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise InputError("mixed_precision is fp16, which needs a GPU, and none is found; use bf16 or no")
    # Set either way: both are the process's, and an earlier run in it may have wanted the other.
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = False
    # Shared by all accelerators of a process, and it would hold an earlier run's precision.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=config.mixed_precision,
        # As a plugin: a plain number would give way to the launcher's, and the run would end early.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.optim.gradient_accumulation_steps),
        log_with=None if config.log.tracker == "none" else config.log.tracker,
        project_dir=output_dir,
    )


def build_method_for(
    config: RunConfig,
    data: PreparedData,
    statistics: tuple[Triple, Triple],
    stride: int,
    feature_channels: tuple[int, ...],
) -> Method:
    """Build the method and check it against the data and the model: z's stride, the encoder's channels."""
    task = Task(
        num_labels=len(data.id2label),
        ignore_index=data.ignore_index,
        image_mean=statistics[0],
        image_std=statistics[1],
        feature_stride=stride,
        feature_channels=feature_channels,
    )
    method = build_method(config.method, task)
    method.validate(stride, decoder_reach(config.model, stride), config.data.views.crop_size)
    return method


def check_batch_sizes(config: RunConfig, method: Method, processes: int) -> None:
    """Refuse batches of which BatchNorm cannot take statistics: DeepLabV3+ pools an image to a single value.

    Args:
        config: the run's; its batch sizes are of one process.
        method: says which images it needs.
        processes: how many there are; with `model.sync_batch_norm` their statistics are common.

    Raises:
        InputError: naming the batch size.
    """
    _check_partners(config, method)
    sizes = {"data.labeled_batch_size": config.data.labeled_batch_size}
    if method.needs_unlabeled:
        sizes["data.unlabeled_batch_size"] = config.data.unlabeled_batch_size
    together = config.method.normalization.statistics == "together" and len(sizes) > 1
    shared = config.model.sync_batch_norm and processes > 1
    if together or shared or config.model.decode_head == "dpt":
        return
    for key, size in sizes.items():
        if size < 2:
            advice = "2" if processes == 1 else "2 a process, or model.sync_batch_norm=true"
            raise InputError(
                f"{key} is {size}, but normalisation statistics of one image are not defined in the head; use at least "
                f"{advice}, or where there are several views method.normalization.statistics=together"
            )


def _check_partners(config: RunConfig, method: Method) -> None:
    """Refuse CutMix where an image would be its own partner."""
    if method.mixes_images and config.data.unlabeled_batch_size < 2:
        raise InputError(
            "data.unlabeled_batch_size is 1, but CutMix takes boxes from another image of the same batch; use at least "
            "2, or method.strong.cutmix_probability=0"
        )


def build_network(config: RunConfig, data: PreparedData) -> Network:
    """Build the training model from its first weights, and the method that it is for.

    Raises:
        InputError: for any setting that does not fit the data or the model.
    """
    segmenter = build_segmenter(config.model, data, config.seed)
    check_segmenter(segmenter)
    statistics = image_statistics(config, segmenter.backbone.model_type)
    check_crop(config, segmenter.backbone.patch_size)
    backbone = segmenter.backbone
    method = build_method_for(config, data, statistics, segmenter.feature_stride, backbone.map_channels)
    model = add_training_heads(segmenter, config.model, method)
    set_up_normalization(model, config)
    freeze_backbone(model, config.model)
    return Network(model, method, statistics)


def build_run(config: RunConfig, accelerator: Accelerator, output_dir: Path, data: PreparedData | None = None) -> Run:
    """Build everything that a run needs; nothing is written yet.

    Args:
        config: the run's configuration.
        accelerator: as `build_accelerator` gives it.
        output_dir: the folder that the run will write to.
        data: what `config.data.path` names, where it is loaded already.

    Raises:
        InputError: for any setting, file or folder that does not fit.
    """
    data = load_data(config.data) if data is None else data
    model, method, statistics = build_network(config, data)
    check_batch_sizes(config, method, accelerator.num_processes)
    pool = open_unlabeled(config, data, method)
    batch_size = effective_batch_size(config, accelerator.num_processes)
    optimizer = build_optimizer(model, config.optim, batch_size)
    if accelerator.is_main_process:
        announce(config, data, pool, method, batch_size)
    model, optimizer = accelerator.prepare(model, optimizer)
    teacher_settings = config.teacher
    teacher = Teacher(
        accelerator.unwrap_model(model).segmenter,
        teacher_settings.decay,
        teacher_settings.ramp,
        teacher_settings.buffers,
    )
    hooks, evaluation = build_hooks(config, accelerator, data, pool, statistics, output_dir)
    trainer = Trainer(
        config,
        accelerator=accelerator,
        student=model,
        teacher=teacher,
        method=method,
        optimizer=optimizer,
        schedule=PolynomialSchedule(config.optim),
        hooks=hooks,
    )
    return Run(trainer, data, evaluation, output_dir, pool)


def effective_batch_size(config: RunConfig, processes: int) -> int:
    """Return the labelled images per optimizer step over all processes and micro-batches."""
    return config.data.labeled_batch_size * config.optim.gradient_accumulation_steps * processes


def build_evaluator(
    config: RunConfig, accelerator: Accelerator, data: PreparedData, statistics: tuple[Triple, Triple]
) -> Evaluator | None:
    """Return the evaluator of the validation split, None where there is none."""
    if data.validation is None:
        return None
    return Evaluator(
        data.validation,
        id2label=data.id2label,
        ignore_index=data.ignore_index,
        image_mean=statistics[0],
        image_std=statistics[1],
        inference=config.evaluation.inference,
        max_side=data.max_side,
        batch_size=config.evaluation.batch_size,
        data_name=f"{data.name} validation, {len(data.validation)} images",
        device=accelerator.device,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        reduce=accelerator.reduce,
        progress=accelerator.is_main_process,
    )


def build_hooks(
    config: RunConfig,
    accelerator: Accelerator,
    data: PreparedData,
    pool: ShardPool | None,
    statistics: tuple[Triple, Triple],
    output_dir: Path,
) -> tuple[list[Hook], EvaluationHook]:
    """Return the hooks in their order.

    Logging first, so that the losses of a step are read before an evaluation takes time; the checkpoint after the
    evaluation, whose best result it holds; pictures last: a run that dies in them has lost nothing.
    """
    metrics = MetricsFile(output_dir / "metrics.jsonl")
    mean, deviation = (list(values) for values in statistics)
    processor = S4MIMImageProcessor(image_mean=mean, image_std=deviation, max_side=data.max_side)
    exporter = ModelExporter(output_dir / "model", processor, to_dict(config), data, pool)
    evaluator = build_evaluator(config, accelerator, data, statistics)
    settings = config.evaluation
    evaluation = EvaluationHook(evaluator, metrics, exporter, settings.interval, settings.evaluate_student)
    hooks: list[Hook] = [
        LoggingHook(metrics, config.log.interval),
        evaluation,
        CheckpointHook(
            output_dir,
            config.checkpoint.interval,
            config.checkpoint.keep,
            evaluation,
            {
                "split_hash": data.split_hash,
                "content_hash": data.content_hash,
                "pool_hash": None if pool is None else pool.fingerprint,
            },
        ),
    ]
    if config.panels.count and data.validation is not None:
        hooks.append(
            PanelHook(
                data.validation,
                count=config.panels.count,
                interval=settings.interval,
                folder=output_dir / "panels",
                id2label=data.id2label,
                palette=list(data.palette),
                ignore_index=data.ignore_index,
                image_mean=statistics[0],
                image_std=statistics[1],
            )
        )
    hooks.append(CurveHook(metrics, output_dir / "curves.png"))
    return hooks, evaluation
