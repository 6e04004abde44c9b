"""Whether the Hub will take a card: what can be said here, and what it says itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import HFValidationError, validate_repo_id

from s4mim_hf.errors import InputError, nearest

# The licence identifiers of the Hub, https://huggingface.co/docs/hub/repositories-licenses.
LICENSES = frozenset(
    (
        *("afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m"),
        *("bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause"),
        *("bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0"),
        *("cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m", "ecl-2.0"),
        *("epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc"),
        *("lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl"),
        *("odc-by", "ofl-1.1", "openmdw-1.0", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql"),
        *("unknown", "unlicense", "wtfpl", "zlib"),
        # Those of one model family or one company, which a card by hand may have.
        *("deepfloyd-if-license", "fair-noncommercial-research-license", "gemma", "grok2-community", "h-research"),
        *("intel-research", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4"),
    )
)


def check_license(name: str) -> None:
    """Refuse a licence that the Hub does not know.

    Raises:
        InputError: it does not.
    """
    if name not in LICENSES:
        raise InputError(
            f"--license is {name!r}, which is none of the Hub's identifiers{nearest(name, LICENSES)}; give one such as "
            "apache-2.0, cc-by-nc-4.0 or other"
        )


def check_dataset_id(repo_id: str) -> None:
    """Refuse what cannot be the id of a data set.

    Raises:
        InputError: it cannot.
    """
    # The Hub has ids without an owner, but here a bare word is rather a data set's name in the catalog.
    if not _is_repo_id(repo_id) or "/" not in repo_id:
        raise InputError(f"--dataset-id is {repo_id!r}; expected the id of a data set on the Hub, USER/NAME")


def card_problems(card: ModelCard) -> list[str]:
    """Return what is wrong with a card's header, in words; nobody is asked.

    A card by hand may have all that the Hub takes: one word in place of a list, several licences, ids without an owner.
    What the Hub alone knows is left to its own validation.
    """
    try:
        # As it will be read, not as it was made.
        data = ModelCard(str(card)).data.to_dict()
    except ValueError:
        # huggingface_hub writes no empty values, and then misses them.
        return ["a result of model-index is incomplete"]
    return list(_problems(data))


def _problems(data: dict[str, Any]) -> Iterator[str]:
    for key in ("library_name", "pipeline_tag"):
        if not isinstance(data.get(key), str):
            yield f"{key} is missing"
    if not data.get("license"):
        yield "license is missing"
    words = {key: _words(data.get(key)) for key in ("license", "tags", "datasets", "metrics", "base_model")}
    yield from (f"{key} is no list of words" for key, found in words.items() if found is None)
    for name in words["license"] or ():
        if name not in LICENSES:
            yield f"license is {name!r}, which the Hub does not know"
    for repo_id in [*(words["datasets"] or ()), *(words["base_model"] or ())]:
        if not _is_repo_id(repo_id):
            yield f"{repo_id!r} is no id of the Hub"
    if "model-index" in data:
        yield from _index_problems(data["model-index"])


def _words(value: object) -> list[str] | None:
    """Return one word or a list of them as a list, empty where there is nothing; None where it is neither."""
    values = [value] if isinstance(value, str) and value else value or []
    if not isinstance(values, list) or not all(isinstance(word, str) and word for word in values):
        return None
    return values


def _index_problems(index: list[dict[str, Any]]) -> Iterator[str]:
    name, results = model_index_to_eval_results(index)
    if eval_results_to_model_index(name, results) != index:
        yield "model-index does not read back as it was written"
    for result in results:
        if not _is_whole(result):
            yield f"the result {result.metric_name or result.metric_type!r} is incomplete"


def _is_whole(result: EvalResult) -> bool:
    words = (result.task_type, result.dataset_type, result.dataset_name, result.metric_type)
    value = result.metric_value
    # A result by hand may be text, such as "61.2 ± 0.4", or one number for each class.
    return all(words) and not (isinstance(value, float) and not math.isfinite(value))


def _is_repo_id(text: str) -> bool:
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True
