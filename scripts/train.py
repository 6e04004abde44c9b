"""Train a segmentation model on few labelled and many unlabelled images.

accelerate launch scripts/train.py                                  the demo, on embedded synthetic data
accelerate launch scripts/train.py --recipe camvid data.path=DIR    any recipe, with dotted overrides
accelerate launch scripts/train.py --resume output_dir=RUN          go on with an interrupted run
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from s4mim_hf.command_line import join_processes, run
from s4mim_hf.engine.config_loading import load_run_config, recipe_names
from s4mim_hf.engine.run import CONFIG_FILE, show, train


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help=f"one of {', '.join(recipe_names())}, or a YAML file (default: demo)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in output_dir")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as optim.max_steps=4000")
    return parser.parse_intermixed_args()


def recipe_of(arguments: argparse.Namespace) -> str:
    """Return the recipe: the one named, or with --resume the resumed run's own, or the demo."""
    if arguments.recipe is not None:
        return str(arguments.recipe)
    folders = [item.partition("=")[2] for item in arguments.overrides if item.startswith("output_dir=")]
    if arguments.resume and folders and (saved := Path(folders[-1]) / CONFIG_FILE).is_file():
        return str(saved)
    return "demo"


def main() -> None:
    """Train, and show what came out."""
    arguments = parse_arguments()
    config = load_run_config(recipe_of(arguments), arguments.overrides)
    join_processes()
    finished = train(config, resume=arguments.resume)
    if finished.trainer.accelerator.is_main_process:
        show(finished, Console())


if __name__ == "__main__":
    run(main)
