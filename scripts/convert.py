"""Turn a peer's released checkpoint into a model folder, which every script and transformers' Auto classes load.

    python scripts/convert.py unimatch best.pth models/unimatch
    python scripts/convert.py corrmatch resnet101.pth models/corrmatch --data voc

The weights are renamed, not trained: the network computes what the peer's does. A checkpoint is read without running
anything that it may hold.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from s4mim_hf.command_line import run
from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.errors import InputError, some
from s4mim_hf.hub.conversion import PEERS, Converted, convert_checkpoint


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", help=f"whose checkpoint it is: {', '.join(PEERS)}")
    parser.add_argument("checkpoint", type=Path, help="the peer's .pth file")
    parser.add_argument("output", type=Path, help="model folder to make")
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--data", help=f"whose classes and colours: {', '.join(CATALOG)} (default: by their number)")
    names.add_argument("--classes", metavar="A,B,...", help="the classes' names in the order of their ids")
    parser.add_argument(
        "--weights", choices=["student", "teacher"], help="which network (default: the teacher's, where there is one)"
    )
    shapes = parser.add_argument_group("what no weight tells, where it is not what is assumed")
    shapes.add_argument("--output-stride", type=int, metavar="N", help="8, 16 or 32")
    shapes.add_argument("--aspp-rates", metavar="A,B,C", help="dilations of the spatial pyramid")
    shapes.add_argument("--multi-grid", metavar="A,B,C", help="factors on the dilations of a ResNet's last stage")
    return parser.parse_args()


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the architecture's fields that are given by hand."""
    given = {
        "output_stride": arguments.output_stride,
        "aspp_rates": integers("--aspp-rates", arguments.aspp_rates),
        "multi_grid": integers("--multi-grid", arguments.multi_grid),
    }
    return {field: value for field, value in given.items() if value is not None}


def integers(flag: str, text: str | None) -> list[int] | None:
    """Read integers between commas."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{flag} is {text!r}; give integers between commas, such as 6,12,18") from None


def main() -> None:
    """Convert, and say what was made."""
    arguments = parse_arguments()
    classes = arguments.classes
    made = convert_checkpoint(
        arguments.peer,
        arguments.checkpoint,
        arguments.output,
        data=arguments.data,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
        weights=arguments.weights,
        choices=chosen(arguments),
    )
    show(made, arguments)


def show(made: Converted, arguments: argparse.Namespace) -> None:
    """Print what the folder holds, and the next command."""
    peer = PEERS[arguments.peer]
    labels = [made.config.id2label[index] for index in range(made.config.num_labels)]
    print(f"{peer.title}, the {made.weights}'s weights: {made.parameters / 1e6:.1f} million parameters")
    assumed = f" (taken to be {made.data}'s by their number)" if made.data and arguments.data is None else ""
    print(f"{len(labels)} classes{assumed}: {some(labels, 6)}")
    if peer.choices:
        told = ", ".join(f"{field} {getattr(made.config, field)}" for field in peer.choices)
        print(f"{told}: no weight tells these; --{' --'.join(peer.choices).replace('_', '-')} set them")
    for doubt in made.doubts:
        print(f"note: {doubt}")
    if made.left_out:
        print(f"left out, since they never enter the logits: {some(made.left_out, 4)}")
    print(f"model: {made.folder} (the card says whose it is: {peer.licence}, not measured by us)")
    data = f"data/{made.data}" if made.data else "PREPARED_DATA"
    windows = " --sliding-window --window 801" if made.data == "cityscapes" else ""
    print(f"next: accelerate launch scripts/evaluate.py {made.folder} --data {data}{windows}")


if __name__ == "__main__":
    run(main)
