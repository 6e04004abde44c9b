"""What is said on standard error before a run starts."""

from __future__ import annotations

import math
import os
import sys

from rich.console import Console
from rich.panel import Panel

from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.data.streaming import ShardPool
from s4mim_hf.engine.optim import scaled_learning_rate
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.methods import Method


def announce(config: RunConfig, data: PreparedData, pool: ShardPool | None, method: Method, batch_size: int) -> None:
    """Say on standard error what is about to run, and warn of what is known to go wrong."""
    console = Console(file=sys.stderr)
    count = 0 if data.unlabeled is None else len(data.unlabeled)
    unlabeled = f"{count} unlabelled" if pool is None else f"unlabelled images streamed from {pool}"
    validation = "no validation split" if data.validation is None else f"{len(data.validation)} validation"
    console.print(f"data: {data.name}, {len(data.labeled)} labelled, {unlabeled}, {validation}", highlight=False)
    lanes, workers = config.data.unlabeled.lanes, config.data.num_workers
    if pool is not None and workers and lanes % workers:
        console.print(
            f"warning: data.num_workers is {workers} and does not divide data.unlabeled.lanes, {lanes}, so that each "
            f"shard is read by {workers // math.gcd(workers, lanes)} workers; use a divisor",
            highlight=False,
        )
    rate = scaled_learning_rate(config.optim, batch_size)
    reference = config.optim.reference_batch_size
    scaled = "" if reference is None else f" ({config.optim.learning_rate:g} at the reference batch size {reference})"
    console.print(
        f"effective batch size: {batch_size} labelled images a step; learning rate {rate:g}{scaled}", highlight=False
    )
    _warn_of_launcher(console, "mixed precision", "no", "mixed_precision", config.mixed_precision)
    accumulation = config.optim.gradient_accumulation_steps
    _warn_of_launcher(console, "gradient accumulation steps", "1", "optim.gradient_accumulation_steps", accumulation)
    if config.model.backbone is None and not config.data.path.startswith("synthetic"):
        text = (
            "The backbone starts from RANDOM weights. With few labels this costs most of the accuracy. "
            "Name a pretrained one: model.backbone=microsoft/resnet-50 (a Hub name or a local folder)."
        )
        console.print(Panel(text, title="WARNING", border_style="bold red"))
    if config.model.backbone is None and config.method.normalization.statistics == "frozen_backbone":
        console.print(
            "warning: method.normalization.statistics=frozen_backbone keeps the statistics that a backbone was "
            "pretrained with, but this one starts from random weights and has none; use per_view",
            highlight=False,
        )
    for warning in method.warnings(config.model.mim_projection_channels):
        console.print(f"warning: {warning}", highlight=False)


def _warn_of_launcher(console: Console, what: str, neutral: str, key: str, value: object) -> None:
    """Say that a setting of the launcher's, found in its environment variable, is the run's own `key`."""
    launched = os.environ.get(f"ACCELERATE_{what.upper().replace(' ', '_')}", neutral)
    if launched not in (neutral, str(value)):
        console.print(
            f"warning: the launcher asks for {what} {launched}, which a run does not read; it trains with "
            f"{key}={value}: set {key}={launched} after the script's name",
            highlight=False,
        )
