"""What a card is rendered from, as a file beside the model, so that whoever publishes it can render the card again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s4mim_hf.errors import InputError
from s4mim_hf.hub.public_text import plain, without_local_paths

FACTS_FILE = "card.json"
# Arguments of `render_card`: all that is known of a model when it is written, but what its configuration says.
FACTS = (*("run_config", "results", "data_name", "labeled_count", "unlabeled_count", "unlabeled_pool", "method_name"),)
UNKNOWN: Mapping[str, Any] = dict.fromkeys(FACTS)


def write_facts(facts: Mapping[str, Any], folder: Path) -> Path:
    """Write the arguments of `render_card` named `FACTS` as JSON, local paths shortened, and return the file."""
    content = {name: plain(without_local_paths(facts.get(name))) for name in FACTS}
    path = Path(folder) / FACTS_FILE
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return what `write_facts` wrote into a folder; None where it wrote nothing.

    Raises:
        InputError: the file is damaged, or is none of `write_facts`.
    """
    path = Path(folder) / FACTS_FILE
    if not path.exists():
        return None
    content = read_json(path)
    results = content.get("results")
    whole = results is None or (isinstance(results, dict) and {"scores", "data", "protocol"} <= set(results))
    if set(content) - set(FACTS) or not whole or not isinstance(content.get("run_config") or {}, dict):
        raise InputError(f"{path} is no file that a card is rendered from; delete it, and the card says less")
    return {**UNKNOWN, **content}


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object.

    Raises:
        InputError: it cannot be read, is no JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name another file") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is no JSON ({error}); write it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__} where an object was expected; write it again")
    return content
