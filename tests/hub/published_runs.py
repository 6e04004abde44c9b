"""A run's folder as training leaves it, with a tiny untrained model and numbers of our choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from s4mim_hf import S4MIMConfig, S4MIMForSemanticSegmentation, S4MIMImageProcessor
from s4mim_hf.hub.card_facts import write_facts

CLASSES = {0: "sky", 1: "road", 2: "tree"}
BACKBONE = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
SECRET = "/home/someone/secret"
RUN_CONFIG: dict[str, Any] = {
    "recipe": f"{SECRET}/camvid.yaml",
    "seed": 3,
    "data": {"path": f"{SECRET}/camvid_1_8"},
    "model": {"backbone": f"{SECRET}/mobilenet_v2"},
    "method": {"name": "s4mim"},
}
SCORES = {
    "mean_iou": 0.5,
    "mean_accuracy": 0.6,
    "overall_accuracy": 0.7,
    "per_category_iou": [0.25, None, 0.75],
    "per_category_accuracy": [0.3, None, 0.9],
}
RESULTS = {
    "protocol": "whole image at original size",
    "data": "camvid validation, 101 images",
    "step": 40,
    "selection": "the best evaluation of the run on this same split; results.json has the last step",
    "scores": SCORES,
}
FACTS = {
    "run_config": RUN_CONFIG,
    "results": RESULTS,
    "data_name": "camvid",
    "labeled_count": 46,
    "unlabeled_count": 321,
    "unlabeled_pool": None,
    "method_name": "s4mim",
}
RUN_RESULTS: dict[str, Any] = {
    "step": 60,
    "method": "s4mim",
    "seed": 3,
    "data": "camvid",
    "split_hash": "a1b2c3d4e5f60718",
    "protocol": "whole image at original size",
    "evaluated_on": "camvid validation, 101 images",
    "last_teacher": {**SCORES, "mean_iou": 0.45},
    "best_teacher": {"step": 40, "mean_iou": 0.5},
    "train_seconds": 5400.0,
    "images_per_second": 12.5,
    "peak_memory_bytes": 3 * 2**30,
    "memory_kind": "process resident",
    "device": "A processor, 2 cores",
    "processes": 1,
    "versions": {"torch": "2.13.0"},
    "commit": "abc1234",
    "config_hash": "0123456789ab",
}


def write_model(folder: Path, facts: dict[str, Any] | None = None) -> Path:
    """Save a model of three classes with its image processor; `facts` stand beside it."""
    # Read from a folder of this machine, as a pretrained one is.
    backbone = {**BACKBONE, "_name_or_path": f"{SECRET}/resnet"}
    config = S4MIMConfig(
        backbone_config=backbone, decoder_channels=8, low_level_channels=8, id2label=CLASSES, label2id=None
    )
    torch.manual_seed(0)
    S4MIMForSemanticSegmentation(config).save_pretrained(folder)
    S4MIMImageProcessor().save_pretrained(folder)
    if facts is not None:
        write_facts(facts, folder)
    return folder


def write_run(folder: Path) -> Path:
    """Write a finished run with what it leaves, pictures of a few pixels, and what is not published."""
    write_model(folder / "model", FACTS)
    (folder / "run_config.yaml").write_text(yaml.safe_dump(RUN_CONFIG | {"output_dir": None}))
    (folder / "results.json").write_text(json.dumps(RUN_RESULTS))
    (folder / "metrics.jsonl").write_text('{"step": 10, "kind": "train", "loss": 1.5}\n')
    for name in ("panels/step_20.png", "panels/step_40.png", "panels/step_60.png", "curves.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3), (len(name), 0, 0)).save(folder / name)
    for name in ("checkpoints/step_60/teacher.safetensors", "tensorboard/events.out", "circumstances.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder
