"""Write the cards of the recipes without measured results: model_cards/NAME.md.

python scripts/recipe_cards.py
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from huggingface_hub import ModelCard

from s4mim_hf.command_line import run
from s4mim_hf.engine.config_loading import load_run_config, to_dict
from s4mim_hf.errors import InputError
from s4mim_hf.hub.recipe_card import PREPARED_BY, render_recipe_card


def recipe_card(name: str) -> ModelCard:
    """Return the card of a packaged recipe."""
    text = (resources.files("s4mim_hf") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    return render_recipe_card(name, to_dict(load_run_config(name, [f"data.path=data/{name}"])), text)


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("model_cards"), help="folder (default model_cards)")
    folder = parser.parse_args().output
    if not folder.is_dir():
        raise InputError(f"--output: there is no folder {folder}; run this in the project's root, or make it first")
    for name in PREPARED_BY:
        recipe_card(name).save(folder / f"{name}.md")
        print(folder / f"{name}.md")


if __name__ == "__main__":
    run(main)
