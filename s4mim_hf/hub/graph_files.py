"""Run an exported graph, and read what its file says beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

INPUT, OUTPUT = "pixel_values", "logits"
METADATA = "s4mim_hf.json"


def open_graph(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a graph's function from `pixel_values` (B, 3, H, W) float32 to logits, on the CPU."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
    module = torch.export.load(path).module()

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return module(images)

    return run


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a graph's file says of it.

    Returns:
        `input` and `output` (names, shapes), `id2label`, `palette`, and `image_processor`: its configuration. In an
        ONNX file these are the metadata properties, each as JSON.
    """
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(str(path), load_external_data=False)
        return {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    extra = {METADATA: ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra[METADATA])
