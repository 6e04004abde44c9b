"""What the small Hub of `hub_server` says of a card."""

from __future__ import annotations

import yaml


def card_problems(content: str) -> list[str]:
    """Return what the Hub would not take of a card's metadata, as far as it is written down."""
    if not content.startswith("---\n") or "\n---\n" not in content[4:]:
        return ["the card has no header"]
    data = yaml.safe_load(content[4:].partition("\n---\n")[0])
    texts = ("license", "pipeline_tag", "library_name")
    problems = [f'"{key}" must be a string' for key in texts if key in data and not isinstance(data[key], str)]
    for model in data.get("model-index", []):
        if not model.get("name"):
            problems.append('"model-index[0].name" is required')
        for result in model["results"]:
            problems += ['"dataset.type" is required'] if not result["dataset"].get("type") else []
            problems += ['"metrics" is required'] if not result.get("metrics") else []
    return problems
