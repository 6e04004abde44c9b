"""From a run's configuration to a trainer that is ready: data, model, method, optimizer, hooks, in this order.

Everything that can be wrong with the input is found here, before the run's folder is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.panel import Panel
from torch import nn
from torch.utils.data import DataLoader

from s4mim_hf.data.loaders import Batch, build_train_loader
from s4mim_hf.data.prepared import PreparedData, load_prepared
from s4mim_hf.engine.config_loading import to_dict
from s4mim_hf.engine.hooks import CheckpointHook, EvaluationHook, Hook, LoggingHook, MetricsFile
from s4mim_hf.engine.optim import PolynomialSchedule, build_optimizer, scaled_learning_rate
from s4mim_hf.engine.picture_hooks import CurveHook, PanelHook
from s4mim_hf.engine.run_config import ModelConfig, RunConfig
from s4mim_hf.engine.teacher import Teacher
from s4mim_hf.engine.trainer import Trainer
from s4mim_hf.errors import InputError
from s4mim_hf.evaluation.evaluator import Evaluator
from s4mim_hf.hub.export import ModelExporter
from s4mim_hf.methods import Method, Task, build_method
from s4mim_hf.modeling import (
    S4MIMConfig,
    S4MIMForSemanticSegmentation,
    S4MIMForSemiSupervisedSegmentation,
    S4MIMImageProcessor,
    convert_batch_norm,
    freeze_batch_norm,
)
from s4mim_hf.randomness import derive_seed

Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What a family's published ImageNet weights were trained with, where it is not the usual one.
STATISTICS_BY_FAMILY: dict[str, tuple[Triple, Triple]] = {"mobilenet_v2": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}


@contextmanager
def _explained(key: str) -> Iterator[None]:
    """Turn a sentence of the model folder, which cannot know our errors, into one about a key."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"{key}: {error}") from None


@dataclass
class Run:
    """A trainer with what it trains on and what it leaves behind.

    Attributes:
        trainer: ready to train.
        data: what it learns from.
        evaluation: holds the last and the best result afterwards.
        output_dir: the run's folder.
    """

    trainer: Trainer
    data: PreparedData
    evaluation: EvaluationHook
    output_dir: Path

    def batches(self) -> DataLoader[Batch]:
        """Return the micro-batches that are still to come, from the trainer's step on."""
        config, accelerator = self.trainer.config, self.trainer.accelerator
        accumulation = config.optim.gradient_accumulation_steps
        needs_unlabeled = self.trainer.method.needs_unlabeled
        return build_train_loader(
            self.data.labeled,
            self.data.unlabeled if needs_unlabeled else None,
            views=config.data.views,
            labeled_batch_size=config.data.labeled_batch_size,
            unlabeled_batch_size=config.data.unlabeled_batch_size,
            seed=config.seed,
            start=self.trainer.step * accumulation,
            stop=config.optim.max_steps * accumulation,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            num_workers=config.data.num_workers,
            pin_memory=accelerator.device.type == "cuda",
        )


def build_accelerator(config: RunConfig, output_dir: Path) -> Accelerator:
    """Return the accelerator of a run: its precision, its accumulation, its tracker."""
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise InputError("mixed_precision is fp16, which needs a GPU, and none is found; use bf16 or no")
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.optim.gradient_accumulation_steps,
        log_with=None if config.log.tracker == "none" else config.log.tracker,
        project_dir=output_dir,
    )


def image_statistics(config: RunConfig, model_type: str) -> tuple[Triple, Triple]:
    """Return mean and standard deviation per channel: the config's, else the backbone family's."""
    if config.data.image_mean is not None and config.data.image_std is not None:
        return config.data.image_mean, config.data.image_std
    return STATISTICS_BY_FAMILY.get(model_type, IMAGENET)


def build_segmenter(config: ModelConfig, data: PreparedData, seed: int) -> S4MIMForSemanticSegmentation:
    """Build the segmenter, on pretrained weights where the config names some; the rest starts from the seed.

    Raises:
        InputError: the backbone is unknown, cannot be had, lacks weights, or has no such output stride.
    """
    torch.manual_seed(derive_seed(seed, "initial-weights"))
    fields = {
        "output_stride": config.output_stride,
        "decoder_channels": config.decoder_channels,
        "low_level_channels": config.low_level_channels,
        "aspp_rates": None if config.aspp_rates is None else list(config.aspp_rates),
        "decoder_dropout": config.decoder_dropout,
        "separable_convolutions": config.separable_convolutions,
        "mim_features": config.mim_features,
        "id2label": data.id2label,
        "label2id": {name: class_id for class_id, name in data.id2label.items()},
        "palette": [list(color) for color in data.palette],
        "semantic_loss_ignore_index": data.ignore_index,
        "mask_token": "none",
        "mim_decoder": False,
    }
    if config.backbone is not None:
        with _explained(f"model.backbone={config.backbone}"):
            return S4MIMForSemanticSegmentation.from_pretrained_backbone(config.backbone, **fields)
    with _explained("model.backbone_config"):
        return S4MIMForSemanticSegmentation(S4MIMConfig(backbone_config=dict(config.backbone_config or {}), **fields))


def add_training_heads(
    segmenter: S4MIMForSemanticSegmentation, config: ModelConfig, method: Method
) -> S4MIMForSemiSupervisedSegmentation:
    """Put beside the segmenter the heads that an active term needs, and no others."""
    needs = method.model_requirements()
    architecture = segmenter.config.to_dict() | {
        "mask_token": config.mask_token if needs.mask_token else "none",
        "mim_decoder": needs.mim_decoder,
        "mim_projection_channels": config.mim_projection_channels if needs.mim_features else None,
        "mim_channels": config.mim_channels,
        "mim_depth": config.mim_depth,
        "mim_kernel_size": config.mim_kernel_size,
        "mim_expansion": config.mim_expansion,
        "masked_features": config.masked_features,
    }
    with _explained("model"):
        return S4MIMForSemiSupervisedSegmentation.from_segmenter(segmenter, S4MIMConfig.from_dict(architecture))


def set_up_normalization(model: S4MIMForSemiSupervisedSegmentation, config: RunConfig) -> None:
    """Make BatchNorm know view groups, freeze the backbone's or share it between processes, as the config says."""
    if config.model.sync_batch_norm and not torch.cuda.is_available():
        raise InputError("model.sync_batch_norm is true, which needs GPUs, and none is found; set it to false")
    convert_batch_norm(model.segmenter, sync=config.model.sync_batch_norm)
    momentum = config.model.batch_norm_momentum
    for module in model.modules():
        if momentum is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum
    if config.method.normalization.statistics == "frozen_backbone":
        freeze_batch_norm(model.segmenter.backbone)


def build_method_for(config: RunConfig, data: PreparedData, statistics: tuple[Triple, Triple], stride: int) -> Method:
    """Build the method and check it against the data and the model."""
    task = Task(
        num_labels=len(data.id2label),
        ignore_index=data.ignore_index,
        image_mean=statistics[0],
        image_std=statistics[1],
        feature_stride=stride,
    )
    method = build_method(config.method, task)
    method.validate(stride, config.model.mim_depth, config.model.mim_kernel_size, config.data.views.crop_size)
    if method.needs_unlabeled and data.unlabeled is None:
        raise InputError(
            f"{data.path} has no unlabelled images, which method {method.name!r} needs; prepare it with a smaller "
            "--labeled, add images without masks, or train with method.name=supervised"
        )
    return method


def build_run(config: RunConfig, accelerator: Accelerator, output_dir: Path) -> Run:
    """Build everything that a run needs; nothing is written yet.

    Raises:
        InputError: for any setting, file or folder that does not fit.
    """
    data = load_prepared(config.data.path)
    segmenter = build_segmenter(config.model, data, config.seed)
    model_type = str(segmenter.config.backbone_config.model_type)
    statistics = image_statistics(config, model_type)
    stride = 4 if config.model.mim_features == "decoder" else segmenter.backbone.output_stride
    method = build_method_for(config, data, statistics, stride)
    model = add_training_heads(segmenter, config.model, method)
    set_up_normalization(model, config)
    batch_size = effective_batch_size(config, accelerator.num_processes)
    optimizer = build_optimizer(model, config.optim, batch_size)
    if accelerator.is_main_process:
        announce(config, data, method, batch_size)
    model, optimizer = accelerator.prepare(model, optimizer)
    teacher_settings = config.teacher
    teacher = Teacher(
        accelerator.unwrap_model(model).segmenter,
        teacher_settings.decay,
        teacher_settings.ramp,
        teacher_settings.buffers,
    )
    hooks, evaluation = build_hooks(config, accelerator, data, statistics, output_dir)
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
    return Run(trainer, data, evaluation, output_dir)


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
    statistics: tuple[Triple, Triple],
    output_dir: Path,
) -> tuple[list[Hook], EvaluationHook]:
    """Return the hooks in their order.

    Logging first, so that the losses of a step are read before an evaluation takes time; the checkpoint after the
    evaluation, whose best result it holds; pictures last: a run that dies in them has lost nothing.
    """
    metrics = MetricsFile(output_dir / "metrics.jsonl")
    processor = S4MIMImageProcessor(image_mean=list(statistics[0]), image_std=list(statistics[1]))
    exporter = ModelExporter(output_dir / "model", processor, to_dict(config), data)
    evaluator = build_evaluator(config, accelerator, data, statistics)
    settings = config.evaluation
    evaluation = EvaluationHook(evaluator, metrics, exporter, settings.interval, settings.evaluate_student)
    hooks: list[Hook] = [
        LoggingHook(metrics, config.log.interval),
        evaluation,
        CheckpointHook(output_dir, config.checkpoint.interval, config.checkpoint.keep, evaluation, data.split_hash),
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


def announce(config: RunConfig, data: PreparedData, method: Method, batch_size: int) -> None:
    """Say on standard error what is about to run, and warn of what is known to go wrong."""
    console = Console(file=sys.stderr)
    unlabeled = 0 if data.unlabeled is None else len(data.unlabeled)
    validation = "no validation split" if data.validation is None else f"{len(data.validation)} validation"
    console.print(f"data: {data.name}, {len(data.labeled)} labelled, {unlabeled} unlabelled, {validation}", highlight=False)
    rate = scaled_learning_rate(config.optim, batch_size)
    reference = config.optim.reference_batch_size
    scaled = "" if reference is None else f" ({config.optim.learning_rate:g} at the reference batch size {reference})"
    console.print(
        f"effective batch size: {batch_size} labelled images a step; learning rate {rate:g}{scaled}", highlight=False
    )
    if config.model.backbone is None and not config.data.path.startswith("synthetic"):
        text = (
            "The backbone starts from RANDOM weights. With few labels this costs most of the accuracy. "
            "Name a pretrained one: model.backbone=microsoft/resnet-50 model.backbone_config=null "
            "(a Hub name or a local folder)."
        )
        console.print(Panel(text, title="WARNING", border_style="bold red"))
    for warning in method.warnings(config.model.mim_projection_channels):
        console.print(f"warning: {warning}", highlight=False)

