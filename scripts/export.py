"""Export a trained model as one graph that runs without its code, by torch.export (.pt2) or as ONNX (.onnx).

    python scripts/export.py MODEL OUT.onnx --dynamic
    python scripts/export.py MODEL OUT.pt2 --size 512x512

The graph maps pixel_values, as the model's image processor makes them, to logits. It is compared with the model, class
map by class map, before the file is there; the file also names classes, colours and how images are prepared.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from s4mim_hf.command_line import run
from s4mim_hf.data.prepared import decode_image
from s4mim_hf.data.sources.reading import reason
from s4mim_hf.errors import InputError
from s4mim_hf.hub.graph_export import export_graph
from s4mim_hf.hub.load import load_model


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a saved model, or Hub id")
    parser.add_argument("output", type=Path, help="file to write; it ends in .onnx or .pt2")
    sizes = parser.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--dynamic", action="store_true", help="images of any height and width")
    sizes.add_argument("--size", metavar="HxW", help="images of this height and width only")
    parser.add_argument("--opset", type=int, help="ONNX operator set (default: torch's choice)")
    parser.add_argument(
        "--images", nargs="+", type=Path, metavar="FILE", help="pictures to compare with (default: rendered scenes)"
    )
    return parser.parse_args()


def main() -> None:
    """Export, compare, and say what came of it."""
    arguments = parse_arguments()
    size = parse_size(arguments.size) if arguments.size else None
    images = None
    if arguments.images:
        images = [read_image(path) for path in arguments.images]
    model, processor = load_model(arguments.model)
    print("tracing and comparing; for images of any size this takes up to a few minutes", file=sys.stderr, flush=True)
    found = export_graph(model, processor, arguments.output, size=size, opset=arguments.opset, images=images)
    taken = f"images of {size[0]}x{size[1]}" if size else "images of any size"
    print(f"{arguments.output} ({arguments.output.stat().st_size / 1e6:.1f} MB) takes {taken}; {found}")


def parse_size(text: str) -> tuple[int, int]:
    """Return (H, W) of "HxW"."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise InputError(f"--size is {text!r}; give height and width in pixels, such as 512x512")
    return int(found[1]), int(found[2])


def read_image(path: Path) -> np.ndarray:
    """Return a picture's pixels, uint8 (H, W, 3)."""
    try:
        return decode_image(path.read_bytes())
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as a picture ({reason(error)}); give another file") from None


if __name__ == "__main__":
    run(main)
