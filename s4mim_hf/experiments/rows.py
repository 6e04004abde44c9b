"""The rows of the ablation, each a set of overrides on one recipe, and what a user's overrides mean to them.

A row decides three kinds of `method` keys: settings that it is made of, weights of the terms that it has (above 0, by
default the recipe's), and weights of the terms that it is without (0). All else is the recipe's, the same for all rows;
but what two methods have other defaults for (such as UniMatch's weights) a recipe of one does not say for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from s4mim_hf.engine.config_loading import load_run_config
from s4mim_hf.engine.config_schema import schema_of
from s4mim_hf.engine.config_yaml import parse_yaml
from s4mim_hf.errors import InputError, nearest
from s4mim_hf.methods import METHODS

CONSISTENCY = "method.consistency_weight"
RECONSTRUCTION = "method.reconstruction.weight"
AGGREGATION = "method.aggregation.weight"
SEMANTIC = "method.semantic.weight"
REGIONS = "method.reconstruction.regions"
LABELS_FROM = "method.pseudo_labels_from"
STRONG_VIEWS = "method.strong_views"
MASKED_TERMS = (RECONSTRUCTION, AGGREGATION, SEMANTIC)
# Any value: rows are checked before the data is made.
_SOME_DATA = "data.path=data"


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        name: on the command line and in folders.
        title: what it is, in a few words.
        question: what it answers.
        method: the method's name.
        settings: values by dotted key, which neither the recipe nor a user changes.
        terms: keys of the weights that are above 0 in this row.
        without: keys of the weights that are 0 in this row, whatever the recipe or a user says of the term.
        weighs_like: the method whose strong views weigh as much, each of them, as the row's do where no user says its
            consistency weight; None: the row has its own weight.
        all_labels: whether it trains on the labels of all training images.
    """

    name: str
    title: str
    question: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    terms: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    weighs_like: str | None = None
    all_labels: bool = False

    def has(self, key: str) -> bool:
        """Whether a user's value of the dotted `key` changes this row."""
        return key not in self.without and schema_of(self.method).is_value(key)


def _s4mim(name: str, title: str, question: str, terms: Iterable[str], regions: str | None = None) -> Row:
    chosen = tuple(terms)
    without = tuple(key for key in MASKED_TERMS if key not in chosen)
    settings = {} if regions is None else {REGIONS: regions}
    return Row(name, title, question, "s4mim", settings, (CONSISTENCY, *chosen), without)


def _control(name: str, title: str, question: str, strong_views: int) -> Row:
    settings = {STRONG_VIEWS: strong_views, LABELS_FROM: "student"}
    return Row(name, title, question, "fixmatch", settings, (CONSISTENCY,), weighs_like="s4mim")


def _unimatch_settings(labels_from: str, supervised_weight: float = 0.5) -> dict[str, Any]:
    return {
        STRONG_VIEWS: 2,
        "method.supervised_weight": supervised_weight,
        CONSISTENCY: supervised_weight / 2,
        "method.feature_weight": supervised_weight / 2,
        LABELS_FROM: labels_from,
    }


def _unimatch(name: str, title: str, labels_from: str) -> Row:
    settings = _unimatch_settings(labels_from)
    return Row(name, title, "the peer; the better of the two is what counts", "unimatch", settings)


SUPERVISED, FULLY_SUPERVISED, BASE = "supervised", "fully_supervised", "base"
UNIMATCH_ROWS = ("unimatch", "unimatch_ema")
ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(SUPERVISED, "labelled images alone", "the floor", "supervised"),
        Row(FULLY_SUPERVISED, "all training labels", "the ceiling", "supervised", all_labels=True),
        Row(
            "mean_teacher", "mean teacher, probabilities", "the peer without pseudo-labels", "mean_teacher",
            terms=(CONSISTENCY,),
        ),
        Row(
            BASE, "weak-to-strong, teacher's labels", "consistency alone, by a mean teacher", "fixmatch",
            {LABELS_FROM: "teacher"}, (CONSISTENCY,),
        ),
        _control("base_student", "base, student's labels", "FixMatch: whose labels?", 1),
        _control(
            "base_two_views", "two strong views, no mask", "what the rows with masked images build on", 2
        ),
        _control("base_three_views", "three strong views, no mask", "is the masked view only one more?", 3),
        _s4mim("basic_mim", "basic MIM on strong views", "what image modelling gives", [RECONSTRUCTION], "image"),
        _s4mim(
            "class_wise_mim", "class-wise MIM on strong views", "the abstract's first claim", [RECONSTRUCTION], "class"
        ),
        _s4mim(
            "aggregation", "class-wise MIM + aggregation", "its second", [RECONSTRUCTION, AGGREGATION], "class"
        ),
        _s4mim("s4mim", "all three terms = S4MIM", "its third", MASKED_TERMS, "class"),
        _s4mim(
            "semantic_only", "semantic space on strong views", "is it only the masked view's consistency?", [SEMANTIC]
        ),
        _s4mim(
            "basic_mim_all", "S4MIM, but basic MIM", "class-wise or not, all else equal", MASKED_TERMS,
            "image",
        ),
        _unimatch("unimatch", "UniMatch, student's labels", "student"),
        _unimatch("unimatch_ema", "UniMatch, teacher's labels", "teacher"),
        Row(
            "s4mim_on_unimatch", "UniMatch + S4MIM's three terms", "do they add to the peer?", "s4mim",
            # UniMatch's sum without its factor of one half, which S4MIM's weights, relative to L_sup, do not have.
            {**_unimatch_settings("student", supervised_weight=1.0), REGIONS: "class"}, MASKED_TERMS,
        ),
    )
}  # fmt: skip


def rows_of(names: Sequence[str]) -> list[Row]:
    """Return the rows of these names, in the order of `ROWS`, each once.

    Raises:
        InputError: there is no such row, or none is named.
    """
    for name in names:
        if name not in ROWS:
            raise InputError(f"--rows names {name!r}{nearest(name, ROWS)} (rows: {', '.join(ROWS)})")
    if not names:
        raise InputError(f"--rows names no row; the rows are {', '.join(ROWS)}")
    return [row for row in ROWS.values() if row.name in names]


def check_overrides(rows: Sequence[Row], recipe: str | Path, overrides: Sequence[str]) -> None:
    """Refuse overrides that an ablation decides itself, that contradict a row, or that no row has.

    Raises:
        InputError: naming the override.
    """
    refused = {
        "method.name": "every row has its method; choose rows with --rows",
        "seed": "give the seeds with --seeds",
        "output_dir": "every run has a folder below --output",
    }
    names = ", ".join(row.name for row in rows)
    for key, text in _assignments(overrides).items():
        if key in refused:
            raise InputError(f"override {key}={text} cannot be given: {refused[key]}")
        for row in rows:
            if key in row.settings and parse_yaml(text, f"the value of {key}") != row.settings[key]:
                raise InputError(
                    f"override {key}={text} contradicts row {row.name!r}, which is {key}={row.settings[key]}; leave "
                    "the override out, or the row (--rows)"
                )
        if not key.startswith("method.") or any(row.has(key) for row in rows):
            continue
        if any(key in row.without for row in rows):
            raise InputError(f"override {key}={text} changes none of the rows {names}, which are without that term")
        # The method with most keys knows best what may have been meant.
        method = max((row.method for row in rows), key=lambda name: len(schema_of(name).values))
        load_run_config(recipe, [_SOME_DATA, f"method.name={method}", f"{key}={text}"])


def row_overrides(row: Row, recipe: str | Path, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that make `recipe` into this row; where to read, to write and the seed are left open.

    Args:
        row: the row.
        recipe: a recipe's name or file.
        overrides: the user's, `key=value`, for all rows; those that this row's method does not have are left out.

    Raises:
        InputError: the recipe or an override is wrong, or a user has switched off a term that the row is made of.
    """
    given = _assignments(overrides)
    texts = [f"method.name={row.method}", *_own_defaults(row.method, recipe)]
    if row.weighs_like is not None:
        texts.append(f"{CONSISTENCY}={_weight_of_a_view(row.weighs_like, recipe) * row.settings[STRONG_VIEWS]}")
    texts += [f"{key}={text}" for key, text in given.items() if not key.startswith("method.") or row.has(key)]
    texts += [f"{key}={value}" for key, value in row.settings.items()]
    texts += [f"{key}=0" for key in row.without]
    config = load_run_config(recipe, [_SOME_DATA, *texts])
    for key in row.terms:
        if _value(config, key) > 0:
            continue
        if key in given:
            raise InputError(
                f"override {key}={given[key]} contradicts row {row.name!r}, which has that term; give a weight above "
                "0, or leave the row out (--rows)"
            )
        # A recipe may be of a method without the term.
        texts.append(f"{key}={_default(row.method, key)}")
    return texts


def _weight_of_a_view(method: str, recipe: str | Path) -> float:
    """Return the consistency weight that one strong view of the method has: L_con is their mean."""
    config = load_run_config(recipe, [_SOME_DATA, f"method.name={method}", *_own_defaults(method, recipe)])
    weight = _value(config, CONSISTENCY) or _default(method, CONSISTENCY)
    return float(weight / _value(config, STRONG_VIEWS))


def _own_defaults(method: str, recipe: str | Path) -> list[str]:
    """Return overrides by the method's defaults of the keys for which the recipe's method has another default."""
    other = load_run_config(recipe, [_SOME_DATA]).method.name
    shared = [key for key in schema_of(method).values if key.startswith("method.") and schema_of(other).is_value(key)]
    differing = [key for key in shared if key != "method.name" and _default(method, key) != _default(other, key)]
    return [f"{key}={yaml.safe_dump(_default(method, key)).splitlines()[0]}" for key in differing]


def _default(method: str, key: str) -> Any:
    return _value({"method": METHODS[method].config_class()}, key)


def _assignments(overrides: Sequence[str]) -> dict[str, str]:
    """Return the text by key; the last one of a key counts, and what is no assignment is refused when it is loaded."""
    pairs = (text.partition("=") for text in overrides)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _value(config: Any, key: str) -> Any:
    """Return what the dotted `key` is in nested attributes (the first may be a mapping's entry)."""

    def step(place: Any, name: str) -> Any:
        return place[name] if isinstance(place, Mapping) else getattr(place, name)

    return reduce(step, key.split("."), config)
