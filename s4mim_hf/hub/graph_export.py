"""Export a segmenter as one graph that runs without its code: torch.export (.pt2) and ONNX (.onnx).

Legend: B images, H x W pixels, K classes. A graph maps `pixel_values` (B, 3, H, W) float32, as the image processor
makes them, to `logits` (B, K, H, W), as the model gives them. B is free, or 1 where the encoder's code looks at the
number of images; H and W are free, or fixed once and for all.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from s4mim_hf.errors import InputError
from s4mim_hf.hub.graph_files import INPUT, METADATA, OUTPUT, open_graph
from s4mim_hf.hub.graph_verification import Verification, verification_images, verify

FORMATS = (".onnx", ".pt2")
# Encoders whose code never looks at the number of images, or at their size. Attention does: it broadcasts, cuts windows
# and interpolates positions by them, so that its graph holds for one image of one size. ConvNeXts lay their memory out
# by them: their graphs take one image, of more than 32 pixels a side.
_ANY_NUMBER = frozenset({"resnet", "mobilenet_v2", "xception"})
_ANY_SIZE = _ANY_NUMBER | {"convnext", "dinov3_convnext"}
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# What one file of an ONNX model can hold.
_LARGEST_ONNX = 2**31


def export_graph(
    model: PreTrainedModel,
    processor: Any,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    opset: int | None = None,
    images: Sequence[np.ndarray] | None = None,
) -> Verification:
    """Write a model as a graph, once that has given the model's own class maps.

    The file also holds what is needed beside the weights: classes, colours and how images are prepared
    (`s4mim_hf.hub.graph_files.read_metadata`).

    Args:
        model: a segmenter; the graph is its float32 form in evaluation mode.
        processor: its image processor.
        path: the file to write or replace; its suffix, .onnx or .pt2, says the format.
        size: (H, W) of all images to come; None: any.
        opset: ONNX's operator set; None: torch's choice.
        images: pictures to verify the graph with, uint8 (H, W, 3); None: rendered scenes.

    Returns:
        What the verification found.

    Raises:
        InputError: another suffix, packages that are missing, a size of which the network makes no graph, a graph that
            predicts otherwise than the model, a file that cannot be written.
    """
    _check_request(model, path, size, opset)
    network = _Logits(copy.deepcopy(model).to("cpu", torch.float32).eval())
    single = _encoder_of(model) not in _ANY_NUMBER
    program = capture(network, size, single=single)
    metadata = describe(model, processor, size, single=single)
    with _written_whole(path) as partial:
        if path.suffix == ".onnx":
            _save_onnx(program, partial, metadata, opset)
        else:
            torch.export.save(program, partial, extra_files={METADATA: json.dumps(metadata)})
        batches = verification_images(processor, size, images, single=single)
        return verify(network, open_graph(partial), batches)


class _Logits(nn.Module):
    """A segmenter that returns its logits alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).logits


def capture(network: nn.Module, size: tuple[int, int] | None = None, *, single: bool = False) -> ExportedProgram:
    """Trace a network of one argument, `pixel_values`, by torch.export.

    Args:
        network: in evaluation mode, on the CPU.
        size: (H, W) of all images; None: any.
        single: whether the graph takes one image at a time, and not any number.

    Raises:
        InputError: the network's code does not allow it.
    """
    free: dict[int, Any] = dict.fromkeys([*([] if single else [0]), *([] if size else [2, 3])], Dim.DYNAMIC)
    # Odd and unequal sides, so that none is taken for another.
    height, width = size or (97, 131)
    example = torch.zeros(1 if single else 2, 3, height, width)
    try:
        # Without it, graphs refuse single images and sizes that happen to need no cutting: 0 and 1 count as special.
        with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            program = torch.export.export(network, (example,), dynamic_shapes={INPUT: free}, strict=False)
    except Exception as error:
        # What a tracer of arbitrary code raises is of no common kind.
        what = f"images of {height}x{width}" if size else "images of every size"
        remedy = "give another size" if size else "give the one size that all images will have (--size HxW)"
        raise InputError(f"no graph of this network can be made for {what} ({_one_line(error)}); {remedy}") from error
    for node in program.graph.nodes:
        # Lines of code with this machine's paths, of no use elsewhere.
        node.meta.pop("stack_trace", None)
    return program


def describe(
    model: PreTrainedModel, processor: Any, size: tuple[int, int] | None, *, single: bool = False
) -> dict[str, Any]:
    """Return what a graph's file says beside the graph: input and output, classes, colours, how images are prepared."""
    preparation = {key: value for key, value in processor.to_dict().items() if key not in ("auto_map", "_auto_class")}
    batch, sides = 1 if single else "batch", size or ("height", "width")
    return {
        "input": {"name": INPUT, "shape": [batch, 3, *sides], "channels": "RGB"},
        "output": {"name": OUTPUT, "shape": [batch, model.config.num_labels, *sides]},
        "id2label": {str(index): label for index, label in model.config.id2label.items()},
        "palette": getattr(model.config, "palette", None),
        "image_processor": json.loads(json.dumps(preparation, default=str)),
    }


def _check_request(model: PreTrainedModel, path: Path, size: tuple[int, int] | None, opset: int | None) -> None:
    if path.suffix not in FORMATS:
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}; a graph's file ends in .onnx or .pt2")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if size is not None and min(size) < 1:
        raise InputError(f"the size {size[0]}x{size[1]} has no pixels; give height and width of at least 1")
    if opset is not None and path.suffix != ".onnx":
        raise InputError(f"an opset ({opset}) is ONNX's, but {path} is no .onnx file; leave it out")
    backbone = _encoder_of(model)
    if size is None and backbone not in _ANY_SIZE:
        raise InputError(
            f"a graph of the encoder {backbone!r}, whose code looks at the size of each image, holds for one size; "
            "say which (--size HxW)"
        )
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None] if path.suffix == ".onnx" else []
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}, which are not installed; pip install 's4mim-hf[export]'")
    weights = sum(value.numel() * 4 for value in model.state_dict().values())
    if path.suffix == ".onnx" and weights >= _LARGEST_ONNX:
        raise InputError(f"the model's {weights / 1e9:.1f} GB of weights do not fit into one ONNX file; export .pt2")


def _encoder_of(model: PreTrainedModel) -> str:
    return getattr(getattr(model.config, "backbone_config", None), "model_type", model.config.model_type)


def _save_onnx(program: ExportedProgram, path: Path, metadata: dict[str, Any], opset: int | None) -> None:
    # Those that the graph leaves free.
    names = {0: "batch", 2: "height", 3: "width"}
    try:
        with _without_remarks():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, external_data=False, opset_version=opset,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes={INPUT: names},
            )  # fmt: skip
        assert exported is not None
        exported.model.metadata_props.update({key: json.dumps(value) for key, value in metadata.items()})
        exported.save(path, external_data=False)
    except Exception as error:
        remedy = "leave --opset out" if opset is not None else "export .pt2 instead"
        raise InputError(f"the network cannot be written as ONNX ({_one_line(error)}); {remedy}") from error


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Hide what torch's ONNX exporter says of its own code and of packages that are not needed."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` if the block ends well, and is removed if not."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; give another file") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
