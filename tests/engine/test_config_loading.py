from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path

import pytest
import yaml
from config_files import message_of, write

from s4mim_hf.engine.config_loading import differences, load_run_config, recipe_names, save_run_config, to_dict
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.methods import FixMatchConfig, S4MIMMethodConfig, SupervisedConfig, Task, build_method

# Recipes that leave the data to the user.
OPEN = {"custom", "camvid", "msrc21", "voc", "voc_dinov2", "cityscapes", "coco", "ade20k"}


def load(recipe: str, *overrides: str) -> RunConfig:
    return load_run_config(recipe, ["data.path=somewhere", *overrides] if recipe in OPEN else list(overrides))


class TestRecipes:
    def test_names(self) -> None:
        assert {"demo", *OPEN} <= set(recipe_names())

    @pytest.mark.parametrize("recipe", recipe_names())
    def test_every_recipe_loads_and_its_method_accepts_it(self, recipe: str) -> None:
        config = load(recipe)
        assert config.recipe == recipe
        task = Task(3, 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), feature_stride=4, feature_channels=(8, 8))
        reach = config.model.mim_depth * (config.model.mim_kernel_size // 2) * 4
        build_method(config.method, task).validate(4, reach, config.data.views.crop_size)

    @pytest.mark.parametrize("recipe", sorted(OPEN))
    def test_the_data_must_be_given(self, recipe: str) -> None:
        message = message_of(recipe)
        assert message.startswith(f"data.path has no value in recipe {recipe!r}; set data.path=...")
        assert "prepare_data" in message

    def test_the_demo_needs_nothing(self) -> None:
        config = load_run_config("demo")
        assert config.data.path == "synthetic"
        assert config.data.views.crop_size == 96
        assert isinstance(config.method, S4MIMMethodConfig)
        assert config.method.masking.patch_size == 16

    def test_a_file_is_named_after_itself_unless_it_says_otherwise(self, recipe_file: Path) -> None:
        assert load_run_config(write(recipe_file, "seed: 3")).recipe == "mine"
        assert load_run_config(write(recipe_file, "recipe: other")).recipe == "other"

    def test_a_path_may_be_text(self, recipe_file: Path) -> None:
        assert load_run_config(str(write(recipe_file, "seed: 3"))).seed == 3


class TestOverrides:
    def test_the_last_one_counts(self) -> None:
        config = load("demo", "optim.max_steps=50", "optim.max_steps=70", "seed=5")
        assert (config.optim.max_steps, config.seed) == (70, 5)

    def test_only_the_named_key_changes(self) -> None:
        found = differences(load("demo"), load("demo", "data.views.crop_size=64", "model.output_stride=null"))
        assert found == ["data.views.crop_size: 96 -> 64", "model.output_stride: 16 -> None"]

    @pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", ".001", "+1E-3"])
    def test_numbers_in_any_notation(self, text: str) -> None:
        assert load("demo", f"optim.learning_rate={text}").optim.learning_rate == 0.001

    def test_lists(self) -> None:
        config = load("demo", "data.views.scale_range=[0.75, 1e0]", "model.aspp_rates=[3, 6]")
        assert config.data.views.scale_range == (0.75, 1.0)
        assert config.model.aspp_rates == (3, 6)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("2024-11-14", "2024-11-14"),
            ("2024", "2024"),
            ("007", "007"),
            ("run #2", "run #2"),
            ("a=b", "a=b"),
            ("a: b", "a: b"),
            ("*.x", "*.x"),
            ("yes", "yes"),
            ("'run 2'", "run 2"),
            ('"null"', "null"),
            ("null", None),
        ],
    )
    def test_text_is_taken_as_it_stands(self, text: str, value: str | None) -> None:
        assert load("demo", f"output_dir={text}").output_dir == value

    def test_no_precision_is_a_word(self, recipe_file: Path) -> None:
        assert load("demo", "mixed_precision=no").mixed_precision == "no"
        assert load_run_config(write(recipe_file, "mixed_precision: no")).mixed_precision == "no"

    def test_inside_the_free_mapping(self) -> None:
        config = load("demo", "model.backbone_config.depths=[1, 1, 1, 1]", "model.backbone_config.new.epsilon=1e-6")
        assert config.model.backbone_config == {
            "model_type": "resnet",
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 96, 128],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "new": {"epsilon": 1e-6},
        }
        assert "new" not in (load("demo").model.backbone_config or {})

    def test_a_whole_free_mapping_replaces(self) -> None:
        config = load("demo", "model.backbone_config={model_type: convnext}")
        assert config.model.backbone_config == {"model_type": "convnext"}


class TestBackboneChoice:
    def test_a_named_backbone_sets_the_recipes_architecture_aside(self) -> None:
        model = load("demo", "model.backbone=microsoft/resnet-50").model
        assert (model.backbone, model.backbone_config) == ("microsoft/resnet-50", None)

    @pytest.mark.parametrize(
        "override", ["model.backbone_config={model_type: resnet}", "model.backbone_config.model_type=resnet"]
    )
    def test_an_architecture_sets_the_recipes_backbone_aside(self, override: str) -> None:
        model = load("camvid", override).model
        assert (model.backbone, model.backbone_config) == (None, {"model_type": "resnet"})

    def test_both_asked_for(self) -> None:
        message = message_of("demo", "model.backbone=a", "model.backbone_config.model_type=resnet")
        assert "model.backbone ('a') and model.backbone_config are both set" in message

    def test_both_in_a_file(self, recipe_file: Path) -> None:
        write(recipe_file, "", backbone="model: {backbone: a, backbone_config: {model_type: resnet}}")
        assert "both set" in message_of(recipe_file)

    def test_neither(self, recipe_file: Path) -> None:
        assert "neither model.backbone nor" in message_of("demo", "model.backbone_config=null")
        assert "neither model.backbone nor" in message_of(write(recipe_file, "seed: 1", backbone=""))


class TestMethodChoice:
    def test_a_recipes_keys_of_another_method_are_dropped(self) -> None:
        fixmatch = load("demo", "method.name=fixmatch").method
        assert type(fixmatch) is FixMatchConfig
        assert fixmatch.threshold == 0.8
        assert type(load("demo", "method.name=supervised").method) is SupervisedConfig

    def test_in_the_file_as_well(self, recipe_file: Path) -> None:
        write(recipe_file, "method: {name: fixmatch, masking: {ratio: 0.5}}")
        assert type(load_run_config(recipe_file).method) is FixMatchConfig

    def test_a_mistyped_key_is_not_dropped(self, recipe_file: Path) -> None:
        write(recipe_file, "method: {name: fixmatch, masking: {rato: 0.5}}")
        assert "did you mean 'method.masking.ratio'?" in message_of(recipe_file)

    def test_an_override_that_the_method_lacks_is_refused(self) -> None:
        message = message_of("demo", "method.masking.ratio=0.5", "method.name=fixmatch")
        assert message == (
            "method.masking.ratio on the command line is a key of method s4mim, and method.name is 'fixmatch'; "
            "leave it out"
        )

    @pytest.mark.parametrize("name", ["fixmach", "Fixmatch"])
    def test_unknown_method(self, name: str) -> None:
        assert f"method.name is {name!r} on the command line; did you mean 'fixmatch'?" in message_of(
            "demo", f"method.name={name}"
        )


class TestFiles:
    def test_forms_that_are_allowed(self, recipe_file: Path) -> None:
        write(recipe_file, "optim.max_steps: 7\nlog:\noutput_dir: 2024-11-14\noptim: {learning_rate: 1e-2}")
        config = load_run_config(recipe_file)
        assert (config.optim.max_steps, config.optim.learning_rate) == (7, 0.01)
        assert (config.output_dir, config.log.interval) == ("2024-11-14", 10)

    @pytest.mark.parametrize("recipe", recipe_names())
    @pytest.mark.parametrize("method", ["supervised", "fixmatch", "s4mim"])
    def test_a_saved_configuration_reloads_equal(self, recipe: str, method: str, tmp_path: Path) -> None:
        config = load(recipe, f"method.name={method}", "output_dir=Läufe: 1 #2", "model.aspp_rates=[3, 6]")
        path = tmp_path / "new" / "run_config.yaml"
        save_run_config(config, path)
        assert load_run_config(path) == config
        assert [file.name for file in path.parent.iterdir()] == ["run_config.yaml"]
        assert stat.S_IMODE(path.stat().st_mode) & stat.S_IROTH

    def test_saving_again_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "run_config.yaml"
        save_run_config(load("demo"), path)
        save_run_config(load("demo", "seed=9"), path)
        assert load_run_config(path).seed == 9

    def test_a_failed_save_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "run_config.yaml"
        save_run_config(load("demo"), path)
        before = path.read_bytes()
        config = load("demo")
        broken = dataclasses.replace(
            config, model=dataclasses.replace(config.model, backbone_config={"model_type": "resnet", "x": object()})
        )
        with pytest.raises(yaml.YAMLError):
            save_run_config(broken, path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_a_saved_run_takes_overrides(self, tmp_path: Path) -> None:
        path = tmp_path / "run_config.yaml"
        save_run_config(load("demo"), path)
        again = load_run_config(path, ["method.name=fixmatch", "model.backbone=some/backbone"])
        assert type(again.method) is FixMatchConfig
        assert again.model.backbone_config is None
        assert again.recipe == "demo"


class TestDictionaries:
    def test_plain_values_only(self) -> None:
        tree = to_dict(load("demo"))
        assert json.loads(json.dumps(tree)) == tree
        assert tree["data"]["views"]["scale_range"] == [0.5, 2.0]

    def test_differences(self) -> None:
        a, b = load("demo"), load("demo", "seed=3", "model.backbone_config.stem=7")
        assert differences(a, a) == []
        assert differences(a, b) == ["seed: 0 -> 3", "model.backbone_config.stem: (not set) -> 7"]
        assert differences(to_dict(a), b) == differences(a, to_dict(b)) == differences(a, b)
