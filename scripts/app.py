"""Try a model on photographs in a browser: overlay, confidence, reconstruction, two models side by side.

python scripts/app.py MODEL [SECOND_MODEL]
python scripts/app.py MODEL [SECOND_MODEL] --write-space DIR    write a Hugging Face Space of it instead

MODEL is a run's folder, a model's folder, or a Hub id. A run's folder shows what its last checkpoint reconstructs, too.
Without MODEL the environment variables S4MIM_MODEL and S4MIM_SECOND_MODEL name them, or, on a Space, its space.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from s4mim_hf.command_line import run
from s4mim_hf.demo.serving import find_examples, open_models, serve
from s4mim_hf.demo.space import chosen_models, write_space
from s4mim_hf.errors import InputError

MAX_SIDE = 1024


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="one or two models")
    parser.add_argument("--port", type=int, help="of the page (default: the first free one from 7860 on)")
    parser.add_argument("--examples", type=Path, metavar="DIR", help="folder of photos to start from (at most 12)")
    parser.add_argument(
        "--max-side", type=int, metavar="PX", help=f"shrink larger photos for the model (default {MAX_SIDE})"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU where there is one)")
    parser.add_argument("--write-space", type=Path, metavar="DIR", help="write a Space's folder and end")
    return parser.parse_args()


def main() -> None:
    """Serve the page, or write a Space."""
    arguments = parse_arguments()
    if arguments.write_space is not None:
        for option, value in (("--max-side", arguments.max_side), ("--port", arguments.port)):
            if value is not None:
                raise InputError(f"{option} {value} is of a page served here; a Space has its own, so leave it out")
    if arguments.max_side is not None and arguments.max_side < 16:
        raise InputError(f"--max-side is {arguments.max_side}; it must be at least 16")
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise InputError(f"--port is {arguments.port}; it must be between 1 and 65535")
    names, examples = chosen_models(arguments.models, Path(__file__).parent)
    if len(names) > 2:
        raise InputError(f"{len(names)} models are given ({', '.join(names)}); give one or two")
    folder = arguments.examples or examples
    photos = [] if folder is None else find_examples(folder)
    models = open_models(names, arguments.device)
    if arguments.write_space is not None:
        write_space(arguments.write_space, models, Path(__file__), photos)
        print(f"written; upload it with: hf upload USER/NAME {arguments.write_space} --repo-type space")
        return
    serve(models, max_side=arguments.max_side or MAX_SIDE, examples=photos, port=arguments.port)


if __name__ == "__main__":
    run(main)
