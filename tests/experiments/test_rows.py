"""Each row is what the method's description says it is, whatever the recipe it starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from s4mim_hf.engine.config_loading import load_run_config, recipe_names, save_run_config
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.errors import InputError
from s4mim_hf.experiments.rows import ROWS, check_overrides, row_overrides, rows_of

# method, strong views, regions of L_rec (None: no L_rec), L_agg, L_sem
DESCRIBED: dict[str, tuple[str, int | None, str | None, bool, bool]] = {
    "supervised": ("supervised", None, None, False, False),
    "fully_supervised": ("supervised", None, None, False, False),
    "mean_teacher": ("mean_teacher", None, None, False, False),
    "base": ("fixmatch", 1, None, False, False),
    "base_student": ("fixmatch", 1, None, False, False),
    "base_two_views": ("fixmatch", 2, None, False, False),
    "base_three_views": ("fixmatch", 3, None, False, False),
    "basic_mim": ("s4mim", 2, "image", False, False),
    "class_wise_mim": ("s4mim", 2, "class", False, False),
    "aggregation": ("s4mim", 2, "class", True, False),
    "s4mim": ("s4mim", 2, "class", True, True),
    "semantic_only": ("s4mim", 2, None, False, True),
    "basic_mim_all": ("s4mim", 2, "image", True, True),
    "unimatch": ("unimatch", 2, None, False, False),
    "unimatch_ema": ("unimatch", 2, None, False, False),
    "s4mim_on_unimatch": ("s4mim", 2, "class", True, True),
}


def config_of(name: str, recipe: str | Path = "demo", *overrides: str) -> RunConfig:
    return load_run_config(recipe, [*row_overrides(ROWS[name], recipe, overrides), "data.path=synthetic"])


def described(config: RunConfig) -> tuple[str, int | None, str | None, bool, bool]:
    method: Any = config.method
    if method.name != "s4mim":
        return method.name, getattr(method, "strong_views", None), None, False, False
    regions = method.reconstruction.regions if method.reconstruction.weight > 0 else None
    return method.name, method.strong_views, regions, method.aggregation.weight > 0, method.semantic.weight > 0


def test_every_row_is_described() -> None:
    assert list(ROWS) == list(DESCRIBED)
    assert [name for name, row in ROWS.items() if row.all_labels] == ["fully_supervised"]
    assert all(len(row.title) <= 36 and row.question for row in ROWS.values())


@pytest.mark.parametrize("recipe", recipe_names())
def test_rows_on_the_shipped_recipes(recipe: str) -> None:
    for name, expected in DESCRIBED.items():
        config = config_of(name, recipe)
        assert described(config) == expected, name
        assert getattr(config.method, "consistency_weight", 1) > 0


def test_rows_differ_in_nothing_but_the_method() -> None:
    whole = config_of("supervised", "camvid")
    for name in ROWS:
        config = config_of(name, "camvid")
        for section in ("data", "model", "teacher", "optim", "evaluation", "mixed_precision", "deterministic"):
            assert getattr(config, section) == getattr(whole, section), (name, section)


@pytest.mark.parametrize(
    "method",
    [
        "{name: s4mim, reconstruction: {weight: 0}, aggregation: {weight: 0}, semantic: {weight: 0}}",
        "{name: s4mim, reconstruction: {weight: 0.7, regions: image}, consistency_weight: 0}",
        "{name: fixmatch}",
        "{name: supervised}",
        "{name: unimatch}",
    ],
)
def test_any_recipe_will_do(method: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"model: {{backbone: some/backbone}}\nmethod: {method}\n")
    for name, expected in DESCRIBED.items():
        assert described(config_of(name, recipe)) == expected, name
    s4mim: Any = config_of("s4mim", recipe).method
    weights = (s4mim.consistency_weight, s4mim.reconstruction.weight, s4mim.aggregation.weight, s4mim.semantic.weight)
    # Weights of 0 give way to the method's defaults, others stay.
    assert [weight_of(name, recipe) for name in CONTROLS] == [1.0, 2.0, 3.0]
    assert weights == (2.0, 0.7 if "0.7" in method else 0.1, 0.1, 1.0)


@pytest.mark.parametrize("saved", ["base", "s4mim"])
def test_a_saved_run_is_a_recipe_too(tmp_path: Path, saved: str) -> None:
    path = tmp_path / "run_config.yaml"
    save_run_config(config_of(saved, "demo", "method.consistency_weight=3"), path)
    assert {name: described(config_of(name, path)) for name in ROWS} == DESCRIBED
    unimatch: Any = config_of("unimatch", path).method
    assert (unimatch.consistency_weight, unimatch.supervised_weight, unimatch.feature_weight) == (0.25, 0.5, 0.25)
    assert unimatch.pseudo_labels_from == "student"
    assert config_of("base", path).method.pseudo_labels_from == "teacher"  # type: ignore[union-attr]
    for name in ("base_student", "base_two_views"):
        assert config_of(name, path).method.pseudo_labels_from == "student"  # type: ignore[union-attr]
    assert config_of("unimatch_ema", path).method.pseudo_labels_from == "teacher"  # type: ignore[union-attr]


# supervised and consistency weight, strong views, weight of perturbed features, whose labels
SUMS: dict[str, tuple[float, float, int, float, str]] = {
    "base": (1.0, 1.0, 1, 0.0, "teacher"),
    "base_student": (1.0, 1.0, 1, 0.0, "student"),
    "base_two_views": (1.0, 2.0, 2, 0.0, "student"),
    "base_three_views": (1.0, 3.0, 3, 0.0, "student"),
    **dict.fromkeys(
        ["basic_mim", "class_wise_mim", "aggregation", "s4mim", "semantic_only", "basic_mim_all"],
        (1.0, 2.0, 2, 0.0, "student"),
    ),
    "unimatch": (0.5, 0.25, 2, 0.25, "student"),
    "unimatch_ema": (0.5, 0.25, 2, 0.25, "teacher"),
    "s4mim_on_unimatch": (1.0, 0.5, 2, 0.5, "student"),
}


@pytest.mark.parametrize("saved", ["supervised", "mean_teacher", "base", "s4mim", "unimatch"])
def test_rows_have_their_own_sum_whatever_method_the_recipe_is_of(tmp_path: Path, saved: str) -> None:
    path = tmp_path / "run_config.yaml"
    save_run_config(config_of(saved, "demo", "method.supervised_loss=ohem"), path)
    for name, expected in SUMS.items():
        method: Any = config_of(name, path).method
        weights = (method.supervised_weight, method.consistency_weight, method.strong_views, method.feature_weight)
        assert (*weights, method.pseudo_labels_from) == expected, name
        assert method.supervised_loss == "ohem"
        assert method.strong.cutmix_probability == 0.5
    assert config_of("supervised", path).method.supervised_weight == 1
    assert config_of("mean_teacher", path).method.strong.cutmix_probability == 0  # type: ignore[union-attr]


def test_what_a_user_overrides_counts_in_every_row_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "run_config.yaml"
    save_run_config(config_of("unimatch"), path)
    base: Any = config_of("base", path, "method.strong_views=2", "method.consistency_weight=3").method
    assert (base.strong_views, base.consistency_weight) == (2, 3.0)


CONTROLS = ("base_student", "base_two_views", "base_three_views")


def weight_of(name: str, recipe: str | Path, *overrides: str) -> float:
    method: Any = config_of(name, recipe, *overrides).method
    return float(method.consistency_weight)


def test_each_strong_view_weighs_as_much_in_the_controls_as_in_s4mim(tmp_path: Path) -> None:
    path = tmp_path / "run_config.yaml"
    save_run_config(config_of("s4mim", "demo", "method.consistency_weight=3"), path)
    assert {name: weight_of(name, path) for name in CONTROLS} == dict(zip(CONTROLS, (1.5, 3.0, 4.5), strict=True))
    assert {weight_of(name, path) for name in ("s4mim", "semantic_only")} == {3.0}
    assert weight_of("base", path) == 1.0
    save_run_config(config_of("s4mim", "demo", "method.consistency_weight=3", "method.strong_views=1"), path)
    assert {name: weight_of(name, path) for name in CONTROLS} == dict(zip(CONTROLS, (3.0, 6.0, 9.0), strict=True))
    assert {weight_of(name, path, "method.consistency_weight=4") for name in (*CONTROLS, "s4mim", "base")} == {4.0}


def test_the_row_on_unimatch_is_unimatch_but_for_the_three_terms() -> None:
    base: Any = config_of("unimatch").method
    ours: Any = config_of("s4mim_on_unimatch").method
    differing = {
        field.name
        for field in dataclasses.fields(ours)
        if not hasattr(base, field.name) or getattr(base, field.name) != getattr(ours, field.name)
    }
    terms = {"masking", "reconstruction", "aggregation", "semantic", "class_map_threshold", "class_map_downsampling"}
    weights = {"supervised_weight", "consistency_weight", "feature_weight"}
    assert differing == {"name", *terms, *weights}
    # Twice the sum, so that S4MIM's terms weigh as much against the supervised one as in every other row.
    assert {getattr(ours, weight) / getattr(base, weight) for weight in weights} == {2.0}
    assert ours.supervised_weight == config_of("s4mim").method.supervised_weight


def test_an_override_changes_the_rows_that_have_its_key() -> None:
    check_overrides(list(ROWS.values()), "demo", overrides := ["method.masking.ratio=0.3", "method.threshold=0.5"])
    assert config_of("supervised", "demo", *overrides) == config_of("supervised")
    base: Any = config_of("base", "demo", *overrides).method
    s4mim: Any = config_of("s4mim", "demo", *overrides).method
    assert base.threshold == s4mim.threshold == 0.5
    assert s4mim.masking.ratio == 0.3


def test_a_term_s_weight_changes_the_rows_with_that_term_only() -> None:
    overrides = ["method.semantic.weight=0.9"]
    check_overrides(list(ROWS.values()), "demo", overrides)
    s4mim: Any = config_of("s4mim", "demo", *overrides).method
    without: Any = config_of("aggregation", "demo", *overrides).method
    assert (s4mim.semantic.weight, without.semantic.weight) == (0.9, 0)


def test_s4mim_on_unimatch_s_base_is_a_matter_of_overrides() -> None:
    overrides = [
        "method.strong_views=2",
        "method.feature_weight=0.25",
        "method.supervised_weight=0.5",
        "method.consistency_weight=0.25",
    ]
    rows = rows_of(["supervised", "base", "base_two_views", "s4mim", "unimatch_ema"])
    check_overrides(rows, "demo", overrides)
    s4mim: Any = config_of("s4mim", "demo", *overrides).method
    assert (s4mim.strong_views, s4mim.feature_weight, s4mim.consistency_weight) == (2, 0.25, 0.25)


@pytest.mark.parametrize(
    ("names", "override", "message"),
    [
        ("s4mim", "method.name=fixmatch", "every row has its method"),
        ("s4mim", "seed=3", "--seeds"),
        ("s4mim", "output_dir=x", "--output"),
        ("base_two_views", "method.strong_views=1", "contradicts row 'base_two_views', which is method.strong_views=2"),
        ("base,basic_mim", "method.reconstruction.regions=class", "contradicts row 'basic_mim'"),
        ("unimatch", "method.pseudo_labels_from=teacher", "contradicts row 'unimatch'"),
        ("supervised", "method.masking.ratio=0.5", "a key of method s4mim, and method.name is 'supervised'"),
        ("supervised,s4mim", "method.masking.rato=0.5", "did you mean 'method.masking.ratio'"),
        ("base,semantic_only", "method.aggregation.weight=1", "changes none of the rows base, semantic_only"),
    ],
)
def test_overrides_that_cannot_be(names: str, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_overrides(rows_of(names.split(",")), "demo", [override])
    assert message in str(caught.value)
    assert override.partition("=")[0] in str(caught.value)


def test_a_row_s_own_term_cannot_be_switched_off() -> None:
    with pytest.raises(InputError, match=r"method\.semantic\.weight=0 contradicts row 's4mim'"):
        row_overrides(ROWS["s4mim"], "demo", ["method.semantic.weight=0"])
    with pytest.raises(InputError, match=r"consistency_weight=0 contradicts row 'base'"):
        row_overrides(ROWS["base"], "demo", ["method.consistency_weight=0"])


def test_unknown_rows() -> None:
    assert [row.name for row in rows_of(["s4mim", "supervised", "s4mim"])] == ["supervised", "s4mim"]
    with pytest.raises(InputError, match="'s4min'; did you mean 's4mim'"):
        rows_of(["s4min"])
    with pytest.raises(InputError, match="names no row"):
        rows_of([])
