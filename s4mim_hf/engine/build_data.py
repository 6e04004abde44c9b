"""What a run learns from: its prepared data, the pool of unlabelled images beside it, and the loader of both."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import DataLoader

from s4mim_hf.data.config import DataConfig
from s4mim_hf.data.loaders import Batch, build_train_loader
from s4mim_hf.data.prepared import PreparedData, load_prepared
from s4mim_hf.data.streaming import ImageStream, ShardPool, open_pool
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.engine.trainer import Trainer
from s4mim_hf.errors import InputError
from s4mim_hf.methods import Method


def load_data(config: DataConfig) -> PreparedData:
    """Load what `config.path` names, its unlabelled images only where they are not streamed.

    Raises:
        InputError: it is no prepared data.
    """
    return load_prepared(config.path, unlabeled=not config.unlabeled.streaming)


def open_unlabeled(config: RunConfig, data: PreparedData, method: Method) -> ShardPool | None:
    """Return the pool that the run streams; None where its unlabelled images, if any, are those of `data`.

    Raises:
        InputError: the pool cannot be used, or the method needs unlabelled images and there are none.
    """
    check_unlabeled(config, data, method)
    return open_pool(config.data) if method.needs_unlabeled and config.data.unlabeled.streaming else None


def check_unlabeled(config: RunConfig, data: PreparedData, method: Method) -> None:
    """Refuse a method that needs unlabelled images where there are none; a pool to stream is not opened.

    Raises:
        InputError: there are none.
    """
    if method.needs_unlabeled and data.unlabeled is None and not config.data.unlabeled.streaming:
        raise InputError(
            f"{data.path} has no unlabelled images, which method {method.name!r} needs; prepare it with a smaller "
            "--labeled, add images without masks, name a pool of them with data.unlabeled.streaming=true and "
            "data.unlabeled.shards, or train with method.name=supervised"
        )


def build_loader(trainer: Trainer, data: PreparedData, pool: ShardPool | None, folder: Path) -> DataLoader[Batch]:
    """Return the loader of the micro-batches that are still to come, from the trainer's step on.

    Args:
        trainer: says how far the run is, and which process this is.
        data: the labelled images, and the unlabelled ones without a pool.
        pool: the unlabelled images, where they are streamed.
        folder: the run's, for what is learned about the pool.
    """
    config, accelerator = trainer.config, trainer.accelerator
    accumulation = config.optim.gradient_accumulation_steps
    rank, world_size = accelerator.process_index, accelerator.num_processes
    unlabeled = data.unlabeled if trainer.method.needs_unlabeled else None
    return build_train_loader(
        data.labeled,
        unlabeled
        if pool is None
        else ImageStream(pool, seed=config.seed, rank=rank, world_size=world_size, counts_folder=folder),
        views=config.data.views,
        labeled_batch_size=config.data.labeled_batch_size,
        unlabeled_batch_size=config.data.unlabeled_batch_size,
        seed=config.seed,
        start=trainer.step * accumulation,
        stop=config.optim.max_steps * accumulation,
        rank=rank,
        world_size=world_size,
        num_workers=config.data.num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
