"""The model card: its metadata reads back, its numbers are those given, its example runs, it names no local path."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2.meta
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from PIL import Image
from published_runs import write_model

from s4mim_hf.hub.card import PARTS, CardExtras, render_card, save_card
from s4mim_hf.hub.card_checks import card_problems

CONFIG: dict[str, Any] = {
    "recipe": "/home/someone/secret/camvid.yaml",
    "seed": 3,
    "output_dir": "/home/someone/secret/out",
    "data": {"path": "secret/camvid_1_8", "views": {"crop_size": 321, "scale_range": (0.5, 2.0)}},
    "model": {"backbone": "google/mobilenet_v2_1.0_224", "output_stride": 16},
    "method": {"name": "s4mim"},
}
RESULTS: dict[str, Any] = {
    "protocol": "whole image at original size",
    "data": "camvid, validation (101 images)",
    "step": 4000,
    "scores": {
        "mean_iou": 0.61234,
        "mean_accuracy": 0.7,
        "overall_accuracy": 0.9,
        "per_category_iou": [0.5, None, 0.72468],
        "per_category_accuracy": [0.6, None, 0.8],
    },
}
CLASSES = {0: "sky", 1: "sign|symbol", 2: "road"}


def card(**changes: Any) -> ModelCard:
    arguments: dict[str, Any] = {
        "run_config": CONFIG,
        "results": RESULTS,
        "id2label": CLASSES,
        "data_name": "camvid",
        "labeled_count": 46,
        "unlabeled_count": 321,
        "method_name": "s4mim",
    }
    return render_card(**{**arguments, **changes})


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the card went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_saved_card_reads_back_with_its_metadata(tmp_path: Path) -> None:
    path = save_card(card(), tmp_path / "model")
    assert path == tmp_path / "model" / "README.md"
    data = ModelCard.load(path).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-segmentation"
    assert data.license == "apache-2.0"
    assert {"semi-supervised", "s4mim"} <= set(data.tags)
    assert data.base_model == "google/mobilenet_v2_1.0_224"
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    assert values == {"mean_iou": 0.6123, "mean_accuracy": 0.7, "overall_accuracy": 0.9}
    assert all("whole image at original size" in result.metric_name for result in data.eval_results)
    assert {result.dataset_name for result in data.eval_results} == {"camvid, validation (101 images)"}


def test_the_results_read_back_from_the_header_as_they_were_given() -> None:
    made = card(extras=CardExtras(dataset_ids=("ann/streets",)))
    header = yaml.safe_load(str(made).split("---\n")[1])
    name, results = model_index_to_eval_results(header["model-index"])
    assert name == "Semantic segmentation of camvid by s4mim"
    assert results == made.data.eval_results
    assert header["datasets"] == ["ann/streets"]
    assert card_problems(made) == []


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("license", "mine", "license is 'mine'"),
        ("license", None, "license is missing"),
        ("pipeline_tag", ["a"], "pipeline_tag is missing"),
        ("license", [], "license is missing"),
        ("license", ["mit", "mine"], "license is 'mine'"),
        ("license", ["mit", 3], "license is no list of words"),
        ("tags", ["a", 3], "tags is no list of words"),
        ("metrics", {"mean_iou": 1}, "metrics is no list of words"),
        ("datasets", [None], "datasets is no list of words"),
        ("datasets", ["camvid set/x"], "'camvid set/x' is no id of the Hub"),
        ("base_model", "a/b/c", "'a/b/c' is no id of the Hub"),
        ("base_model", ["a/b", "c d"], "'c d' is no id of the Hub"),
        ("base_model", {"a": "b"}, "base_model is no list of words"),
    ],
)
def test_headers_that_the_hub_would_not_take(key: str, value: object, problem: str) -> None:
    broken = card()
    broken.data[key] = value
    [found] = card_problems(broken)
    assert problem in found


HEADER = "library_name: transformers\nlicense: mit\npipeline_tag: image-segmentation\n"


@pytest.mark.parametrize(
    "written",
    [
        "base_model: a/b",
        "base_model: [a/b, c/d]",
        "base_model: resnet50",
        "base_model: ''",
        "datasets: [imagenet-1k]",
        "datasets: imagenet-1k",
        "datasets: [imagenet-1k, ann/streets]",
        "metrics: mean_iou",
        "tags: one",
        "license: [mit]",
        "license: [mit, cc-by-4.0]",
        "license: fair-noncommercial-research-license",
    ],
)
def test_headers_by_hand_that_the_hub_takes(written: str) -> None:
    key = written.partition(":")[0]
    header = "".join(line for line in HEADER.splitlines(keepends=True) if not line.startswith(key)) + f"{written}\n"
    made = ModelCard(f"---\n{header}---\n# Mine\n")
    assert card_problems(made) == []
    # Nothing is rewritten on the way: what is published is what was written.
    value = yaml.safe_load(written)[key]
    assert yaml.safe_load(str(made).split("---\n")[1])[key] == ([value] if key == "tags" else value)


@pytest.mark.parametrize(
    ("value", "whole"), [("0.5", True), ("20.0 ± 1.2", True), ("[0.5, 0.6]", True), (".nan", False), ("null", False)]
)
def test_values_of_results_by_hand(value: str, whole: bool) -> None:
    index = (
        "model-index:\n- name: mine\n  results:\n  - task: {type: image-segmentation}\n"
        f"    dataset: {{type: streets, name: Streets}}\n    metrics: [{{type: mean_iou, value: {value}}}]\n"
    )
    problems = card_problems(ModelCard(f"---\n{HEADER}{index}---\n# Mine\n"))
    assert bool(problems) is not whole
    assert all("incomplete" in problem for problem in problems)


def test_the_template_names_what_is_given_and_nothing_else() -> None:
    template = (resources.files("s4mim_hf.hub") / "card_template.md").read_text(encoding="utf-8")
    named = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(template))
    assert named == {"card_data", *PARTS}


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    Image.new("RGB", (37, 29), (90, 120, 30)).save(tmp_path / "image.jpg")
    example = card(model_id=str(model)).text.split("```python\n")[1].split("```")[0]
    check = "\nassert label_map.shape == (29, 37)\nassert 's4mim_hf' not in __import__('sys').modules\n"
    (tmp_path / "example.py").write_text(example + check)
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(eval(done.stdout)) <= {"sky", "road", "tree"}


def test_text_holds_counts_scores_and_every_class() -> None:
    text = card().text
    for part in (
        "46 labelled and 321 unlabelled",
        "| mean IoU | 61.23 |",
        "| sky | 50.00 | 60.00 |",
        "| sign\\|symbol | – | – |",
        "| road | 72.47 | 80.00 |",
        "step 4000.",
        "trust_remote_code=True",
        "No number on this page is the paper's",
    ):
        assert part in text
    assert (
        "step 4000 (best of 8 on this same split)."
        in card(results={**RESULTS, "selection": "best of 8 on this same split"}).text
    )


def test_example_is_python_and_configuration_is_yaml() -> None:
    text = card(model_id="someone/model").text
    example = text.split("```python\n")[1].split("```")[0]
    compile(example, "example", "exec")
    assert example.count('from_pretrained("someone/model"') == 2
    config = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert config["data"]["views"] == {"crop_size": 321, "scale_range": [0.5, 2.0]}
    assert config["seed"] == 3


def test_no_local_path_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "mobilenet"
    folder.mkdir()
    local = card(run_config={**CONFIG, "model": {"backbone": str(folder)}})
    assert local.data.base_model is None
    assert "backbone: mobilenet, pretrained" in local.text
    for text in (str(card()), str(local)):
        assert "secret" not in text
        assert str(tmp_path) not in text
    assert "path: camvid_1_8" in local.text


def test_relative_folder_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights" / "mobilenet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert card(run_config={"model": {"backbone": "weights/mobilenet"}}).data.base_model is None


def test_random_weights_have_no_base_model() -> None:
    scratch = card(run_config={"model": {"backbone": None, "backbone_config": {"model_type": "resnet"}}})
    assert scratch.data.base_model is None
    assert "resnet, from random weights" in scratch.text


def test_without_evaluation_nothing_is_claimed() -> None:
    plain = card(results=None)
    assert "was not evaluated" in plain.text
    assert "model-index" not in str(plain)
    scores = dict.fromkeys(("mean_iou", "mean_accuracy", "overall_accuracy"))
    empty = {**RESULTS, "scores": {**scores, "per_category_iou": [None] * 3, "per_category_accuracy": [None] * 3}}
    assert "model-index" not in str(card(results=empty))


def test_a_streamed_pool_is_named_without_its_secrets() -> None:
    shards = ["https://someone:hunter2@example.org/pool/a.tar?signature=abc", "hf://datasets/some/pool@v1/b-??.tar"]
    config = {**CONFIG, "data": {"unlabeled": {"shards": [*shards, "/home/secret/c.tar"]}}}
    text = card(run_config=config, unlabeled_count=0, unlabeled_pool="24 shards (1.2 GB)").text
    assert "46 labelled images, and unlabelled ones streamed from 24 shards (1.2 GB), by the method" in text
    assert "images without streamed from 24 shards (1.2 GB)." in text
    shown = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])["data"]["unlabeled"]["shards"]
    assert shown == ["https://example.org/pool/a.tar", "hf://datasets/some/pool@v1/b-??.tar", "c.tar"]
