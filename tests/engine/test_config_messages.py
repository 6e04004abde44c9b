"""One sentence each: the key, the value found, where it came from, what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import message_of, write


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.max_step=3", "unknown key 'optim.max_step' on the command line; did you mean 'optim.max_steps'?"),
        ("max_steps=3", "unknown key 'max_steps' on the command line; did you mean 'optim.max_steps'?"),
        ("log.x=1", "unknown key 'log.x' on the command line; 'log' has interval, tracker"),
        ("data.path.x=1", "unknown key 'data.path.x' on the command line; did you mean 'data.path'?"),
        ("optim=3", "optim on the command line is a section; set one of its keys, as in optim.name=..."),
        ("nothing", "override 'nothing' is not of the form section.key=value, as in optim.max_steps=100"),
        ("=3", "override '=3' is not of the form section.key=value, as in optim.max_steps=100"),
        ("a..b=3", "override 'a..b=3' is not of the form section.key=value, as in optim.max_steps=100"),
        ("data.path=", "override 'data.path=' has no value; write data.path=null for none"),
    ],
)
def test_override(override: str, message: str) -> None:
    assert message_of("demo", override) == message


@pytest.mark.parametrize(
    ("override", "shown", "expected"),
    [
        ("optim.max_steps=abc", "'abc'", "a whole number"),
        ("optim.max_steps=1.5", "1.5", "a whole number"),
        ("optim.max_steps=true", "true", "a whole number"),
        ("optim.max_steps=0", "0", "a whole number greater than 0"),
        ("seed=-1", "-1", "a whole number of at least 0"),
        ("optim.learning_rate=.nan", "nan", "a number that is finite"),
        ("optim.momentum=1", "1", "a number less than 1"),
        ("optim.max_grad_norm=none", "'none'", "a number, or null"),
        ("optim.max_grad_norm=-1", "-1", "a number greater than 0, or null"),
        ("deterministic=maybe", "'maybe'", "true or false"),
        ("optim.name=lamb", "'lamb'", "'sgd' or 'adamw'"),
        ("model.output_stride=12", "12", "8, 16 or 32, or null"),
        ("model.aspp_rates=[6, 0]", "[6, 0]", "a list of whole numbers, each greater than 0, or null"),
        ("model.aspp_rates=[]", "[]", "a list of whole numbers, at least 1 of them, or null"),
        ("data.views.scale_range=[1]", "[1]", "a list of 2 numbers"),
        ("data.views.scale_range=2", "2", "a list of 2 numbers"),
        ("data.path=[a]", "['a']", "text"),
        ("data.path=''", "''", "text that is not empty"),
        ("model.backbone_config=5", "5", "keys with values, or null"),
    ],
)
def test_value(override: str, shown: str, expected: str) -> None:
    key = override.partition("=")[0]
    assert message_of("demo", override) == f"{key} is {shown} on the command line; expected {expected}"


def test_values_that_do_not_go_together() -> None:
    message = message_of("demo", "optim.warmup_steps=600")
    assert message.startswith("optim.warmup_steps is 600 and optim.max_steps is 600; the warm-up must be shorter")


def test_what_cannot_be_parsed() -> None:
    assert message_of("demo", "output_dir=[a").startswith(
        "the value of output_dir on the command line, line 1, column 3 is not valid YAML: "
    )


def test_the_recipe_is_no_setting() -> None:
    assert "--recipe" in message_of("demo", "recipe=custom")


def test_all_problems_of_a_kind_at_once() -> None:
    assert message_of("demo", "optim.max_step=3", "seeds=1").count("\n") == 1
    assert message_of("demo", "seed=-1", "optim.max_steps=0").count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {max_step: 3}", "unknown key 'optim.max_step' in {path}; did you mean 'optim.max_steps'?"),
        ("optim: 3", "optim is 3 in {path}; expected a section, with keys below it"),
        ("method: fixmatch", "method is 'fixmatch' in {path}; expected a section, with keys below it"),
        ("optim: {max_steps: soon}", "optim.max_steps is 'soon' in {path}; expected a whole number"),
        ("data: {path: 12}", "data.path is 12 in {path}; expected text"),
        ("seed: 1\nseed: 2", "{path}, line 3, column 1 is not valid YAML: key 'seed' is given twice"),
        ("optim: {seed: [1\n", "{path}, line 3, column 1 is not valid YAML: "),
    ],
)
def test_file(recipe_file: Path, text: str, message: str) -> None:
    assert message_of(write(recipe_file, text)).startswith(message.format(path=recipe_file))


@pytest.mark.parametrize("text", ["", "- a", "hello"])
def test_no_mapping(recipe_file: Path, text: str) -> None:
    assert message_of(write(recipe_file, text, backbone="")).endswith("expected keys with values")


def test_no_such_recipe(tmp_path: Path) -> None:
    assert message_of("camvd").startswith("unknown recipe 'camvd'; did you mean 'camvid'? (recipes: ")
    assert message_of(tmp_path / "none.yaml") == f"recipe file {tmp_path / 'none.yaml'} does not exist"


def test_a_folder(tmp_path: Path) -> None:
    assert message_of(tmp_path) == f"recipe {tmp_path} is a folder; give a YAML file"
    (tmp_path / "run_config.yaml").touch()
    assert message_of(str(tmp_path)).endswith(f"give {tmp_path / 'run_config.yaml'}")


def test_no_text(recipe_file: Path) -> None:
    recipe_file.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in message_of(recipe_file)
