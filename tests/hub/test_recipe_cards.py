"""Cards of recipes that have not been run: as committed, without a number, with commands that exist."""

from __future__ import annotations

import re
import shlex
from importlib import resources
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from s4mim_hf.engine.config_loading import load_run_config, to_dict
from s4mim_hf.hub.card_checks import card_problems
from s4mim_hf.hub.recipe_card import PREPARED_BY, render_recipe_card


@pytest.mark.parametrize("name", sorted(PREPARED_BY))
def test_the_committed_card_is_a_fresh_one_without_results(repository: Path, name: str) -> None:
    recipe = (resources.files("s4mim_hf") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    card = render_recipe_card(name, to_dict(load_run_config(name, [f"data.path=data/{name}"])), recipe)
    committed = (repository / "model_cards" / f"{name}.md").read_text(encoding="utf-8")
    assert committed == str(card), "run python scripts/recipe_cards.py"
    assert "**A recipe, not yet run by us; no numbers.**" in committed
    assert recipe.rstrip("\n") in committed
    assert ModelCard(committed).data.eval_results is None
    assert "| mean IoU |" not in committed
    assert card_problems(card) == []
    prepare, train, _ = re.search(r"```bash\n(.*?)```", committed, flags=re.S)[1].splitlines()
    # The README's commands are run by its own test.
    assert f"\n{prepare}\n" in (repository / "README.md").read_text(encoding="utf-8")
    _, _, overrides = train.partition(f"--recipe {name} ")
    assert load_run_config(name, shlex.split(overrides)).recipe == name


def test_the_template_that_is_shown_is_the_one_that_is_used(repository: Path) -> None:
    used = (resources.files("s4mim_hf.hub") / "card_template.md").read_text(encoding="utf-8")
    assert (repository / "model_cards" / "template.md").read_text(encoding="utf-8") == used
    index = (repository / "model_cards" / "README.md").read_text(encoding="utf-8")
    for file in (repository / "model_cards").glob("*.md"):
        assert file.name == "README.md" or f"]({file.name})" in index, file.name
