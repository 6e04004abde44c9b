"""What is published of a run or a model, and what is refused before anybody is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from published_runs import CLASSES, FACTS, RESULTS, RUN_RESULTS, SCORES, SECRET, write_run

from s4mim_hf.errors import InputError
from s4mim_hf.hub.publication import CardOptions, Publication, prepare_publication
from s4mim_hf.hub.publish import check_model_id, rehearse, write_card

CODE = ("backbones", "configuration_s4mim", "decode_heads", "image_processing_s4mim", "modeling_s4mim")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "camvid")


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "camvid"))


def card_of(folder: Path, **options: Any) -> str:
    return str(prepare_publication(folder, "ann/camvid", CardOptions(**options)).card)


def contents(publication: Publication) -> dict[str, bytes]:
    return {file.path: file.read() for file in publication.files}


def test_a_run_is_published_with_its_card_last_and_no_path_of_this_machine(saved: Path) -> None:
    publication = prepare_publication(saved, "ann/camvid")
    files = contents(publication)
    assert list(files)[-1] == "README.md"
    panels = ["panels/step_20.png", "panels/step_40.png", "panels/step_60.png"]
    expected = {"run_config.yaml", "metrics.jsonl", "results.json", *panels, "curves.png", "README.md"}
    expected |= {"config.json", "model.safetensors", "preprocessor_config.json", "card.json"}
    assert expected | {f"{name}.py" for name in CODE} <= set(files)
    assert not [path for path in files if path.startswith(("checkpoints", "tensorboard", "circumstances"))]
    assert not [path for path, content in files.items() if SECRET.encode() in content]
    assert yaml.safe_load(files["run_config.yaml"])["data"] == {"path": "camvid_1_8"}
    config = json.loads(files["config.json"])
    assert config["backbone_config"]["_name_or_path"] == "resnet"
    # Nothing else of it has changed.
    config["backbone_config"]["_name_or_path"] = f"{SECRET}/resnet"
    assert config == json.loads((saved / "model" / "config.json").read_text())
    assert publication.size == sum(map(len, files.values()))
    assert publication.left_out == ("checkpoints", "circumstances.json", "tensorboard")


def test_the_card_tells_all_that_the_run_knows(saved: Path) -> None:
    text = card_of(saved, license="cc-by-nc-4.0", dataset_ids=("ann/streets",))
    for part in (
        "46 labelled and 321 unlabelled images",
        "after optimizer step 40 (the best evaluation of the run",
        "| mean IoU | 50.00 |",
        "| road | – | – |",
        "| tree | 75.00 | 90.00 |",
        "The run ended at step 60 with 45.00 mean IoU",
        "](panels/step_40.png)",
        "](curves.png)",
        "Device: A processor, 2 cores.",
        "1.50 hours (90.0 minutes) for 60 optimizer steps",
        "Peak memory: 3.00 GiB (process resident).",
        "12.5 images a second",
        "Versions: torch 2.13.0.",
        "Commit of s4mim_hf: abc1234.",
        "Seed: 3.",
        "For research use",
        "No number on this page is the paper's",
        'from_pretrained("ann/camvid", trust_remote_code=True)',
        "@article{li2024s4mim,",
    ):
        assert part in text, part
    data = ModelCard(text).data
    assert (data.license, data.datasets, data.pipeline_tag) == ("cc-by-nc-4.0", ["ann/streets"], "image-segmentation")
    assert {"camvid", "s4mim", "semi-supervised"} <= set(data.tags)
    assert [result.metric_value for result in data.eval_results] == [0.5, 0.6, 0.7]
    assert {result.dataset_type for result in data.eval_results} == {"ann/streets"}


def test_a_model_folder_alone_knows_what_stands_beside_it(run: Path, tmp_path: Path) -> None:
    model = run / "model"
    (model / "optimizer.bin").write_bytes(b"x")
    publication = prepare_publication(model, "ann/camvid")
    assert publication.left_out == ("optimizer.bin",)
    assert not {"run_config.yaml", "results.json"} & set(contents(publication))
    text = str(publication.card)
    assert "46 labelled and 321 unlabelled images" in text
    assert "| tree | 75.00 | 90.00 |" in text
    assert "What training cost" not in text
    (model / "card.json").unlink()
    text = card_of(model)
    assert "A segmenter of 3 classes in the format of s4mim_hf." in text
    assert "This model was not evaluated" in text
    evaluation = {**SCORES, "classes": list(CLASSES.values()), "protocol": "sliding window", "data": "mine, 9 images"}
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps(evaluation))
    text = card_of(model, evaluation=scores)
    assert "Evaluated on: mine, 9 images. Protocol: sliding window." in text
    assert "Weights: as they are here." in text
    assert ModelCard(text).data.eval_results[0].dataset_type == "mine-9-images"
    scores.write_text(json.dumps({**evaluation, "classes": ["a", "b", "c"]}))
    with pytest.raises(InputError, match="of a model with other classes"):
        card_of(model, evaluation=scores)


def test_a_card_of_its_own_is_kept(run: Path) -> None:
    model = run / "model"
    (model / "card.json").unlink()
    own = "---\nlibrary_name: transformers\nlicense: mit\npipeline_tag: image-segmentation\n---\n# Mine\n"
    (model / "README.md").write_text(own)
    assert card_of(model) == own
    assert "license: isc" in card_of(model, license="isc")
    with pytest.raises(InputError, match="is a card of its own, into which nothing is written"):
        card_of(model, evaluation=model / "scores.json")
    (model / "README.md").write_text(own.replace("mit", "my-own"))
    with pytest.raises(InputError, match="license is 'my-own', which the Hub does not know"):
        card_of(model)
    (model / "README.md").write_text("---\n: [\n---\n")
    with pytest.raises(InputError, match=r"README\.md cannot be read"):
        card_of(model)


def test_runs_of_before_and_runs_without_an_end(run: Path) -> None:
    (run / "model" / "card.json").unlink()
    (run / "circumstances.json").write_text(json.dumps({"labeled": 46, "unlabeled": 321, "machine": "Another"}))
    results = {key: value for key, value in RUN_RESULTS.items() if key not in ("device", "versions")}
    (run / "results.json").write_text(json.dumps(results))
    # The model is not the last one, of which alone the classes are known.
    text = card_of(run)
    assert "| mean IoU | 50.00 |" in text
    assert "| class |" not in text
    assert "Device: Another." in text
    assert "46 labelled and 321 unlabelled images" in text
    (run / "results.json").write_text(json.dumps({**results, "best_teacher": {"step": 60, "mean_iou": 0.45}}))
    assert "| tree | 75.00 | 90.00 |" in card_of(run)
    (run / "results.json").write_text(json.dumps({"step": 60, "method": "s4mim", "data": "camvid"}))
    assert "This model was not evaluated: no validation images were given." in card_of(run)
    (run / "results.json").unlink()
    publication = prepare_publication(run, "ann/camvid")
    assert "was not evaluated: its run did not come to its end" in str(publication.card)
    assert any("did not come to its end" in note for note in publication.notes)


def test_supervised_runs_claim_no_unlabelled_images(run: Path) -> None:
    (run / "model" / "card.json").write_text(json.dumps({**FACTS, "run_config": None, "method_name": "supervised"}))
    text = card_of(run)
    assert "trained on camvid with 46 labelled images alone by" in text
    assert "321" not in text


def ablation(**run: Any) -> dict[str, Any]:
    one = {"mean": 0.5, "std": 0.01, "n": 2}
    rows = [
        {"row": "supervised", "last": {**one, "mean": 0.4}, "difference": {**one, "mean": -0.08}},
        {"row": "base", "last": {**one, "mean": 0.48}, "difference": None},
        {"row": "basic_mim", "last": one, "difference": one},
        {"row": "s4mim", "last": one, "difference": {**one, "mean": 0.02, "std": 0.005}},
    ]
    record = {
        "fraction": "1/8", "row": "s4mim", "seed": 3, "config_hash": "0123456789ab", "labeled": 46, "split_hash": "a",
        "last": 0.507, **run,
    }  # fmt: skip
    other = {**record, "seed": 4, "config_hash": "ba9876543210", "split_hash": "b", "last": 0.493}
    return {
        "recipe": "camvid", "complete": True, "relative_to": "base", "seeds": [3, 4], "steps": 60,
        "evaluated_on": "camvid validation", "protocol": "whole image", "runs": [record, other],
        "tables": [{"fraction": "1/8", "rows": rows}],
    }  # fmt: skip


def test_the_row_of_the_ablation(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(ablation()))
    text = card_of(run, ablation=file)
    assert "one run, with seed 3, of the row `s4mim`" in text
    assert "| row | mIoU, last | difference to base | by seed (3, 4) |" in text
    assert "| **s4mim** | 50.0 ± 1.0 | +2.0 ± 0.5 | 50.7, 49.3 |" in text
    assert "| base | 48.0 ± 1.0 | – | –, – |" in text
    # Every row: a reader may want to compare with another one than the table's reference.
    assert "| basic_mim | 50.0 ± 1.0 | +50.0 ± 1.0 | –, – |" in text
    assert "over the seeds 3, 4, each with its labelled draw; differences" in text
    one_split = ablation()
    for one in one_split["runs"]:
        one["split_hash"] = "a"
    file.write_text(json.dumps(one_split))
    assert "over the seeds 3, 4, all of one labelled split; differences" in card_of(run, ablation=file)
    assert "In the ablation" not in card_of(run)
    file.write_text(json.dumps(ablation(config_hash="ffffffffffff")))
    with pytest.raises(InputError, match="has no run of this configuration"):
        card_of(run, ablation=file)
    with pytest.raises(InputError, match="needs a finished run of that ablation"):
        card_of(run / "model", ablation=file)
    with pytest.raises(InputError, match=r"is no results\.json of an ablation"):
        card_of(run, ablation=run / "results.json")


def rewrite(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        content = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({**content, **changes}))

    return change


def cut(run: Path) -> None:
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def shards(run: Path) -> None:
    (run / "model" / "model.safetensors").rename(run / "model" / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (run / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def pickled(run: Path) -> None:
    (run / "model" / "model.safetensors").rename(run / "model" / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "model" / "model.safetensors").unlink(), "has no weights: there is no model.safetensors;"),
        (pickled, "has its weights as pytorch_model.bin only"),
        (cut, "is no whole safetensors file"),
        (shards, "lacks model-00002-of-00002.safetensors of its weight files"),
        (lambda run: (run / "model" / "preprocessor_config.json").unlink(), "has no image processor"),
        (
            lambda run: (run / "model" / "modeling_s4mim.py").unlink(),
            "lacks its code: config.json names modeling_s4mim",
        ),
        (rewrite("model/config.json", auto_map=None), "names no code (auto_map)"),
        (rewrite("model/config.json", model_type="segformer"), "holds a model of type 'segformer'"),
        (rewrite("model/config.json", id2label={}), "names no classes"),
        (rewrite("model/config.json", note=f"hf_{'x' * 30}"), "config.json of .* holds a token of the Hub"),
        (rewrite("model/card.json", results={**RESULTS, "scores": {"per_category_iou": [0.1]}}), "are of 1; evaluate"),
        (rewrite("model/card.json", surprise=1), "is no file that a card is rendered from"),
        (lambda run: (run / "model" / "config.json").write_text("{"), "config.json is damaged: it is no JSON"),
        (lambda run: (run / "results.json").write_text("[]"), "results.json holds list where an object was expected"),
        (lambda run: (run / "run_config.yaml").write_text("a: [\n"), "run_config.yaml is damaged"),
        (lambda run: shutil.rmtree(run / "model"), "is a run without a model"),
        (lambda run: (run / "run_config.yaml").unlink(), "has no config.json; give a run's folder, or its model/"),
        (lambda run: (run / "metrics.jsonl").write_text(str(run)), r"metrics.jsonl of .* holds the path"),
    ],
)
def test_what_cannot_be_published_is_one_sentence(run: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(run)
    with pytest.raises(InputError) as caught:
        prepare_publication(run, "ann/camvid")
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in message.split(" .* "))


def test_bad_options_and_names(saved: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"license": "apache"}, "none of the Hub's identifiers; did you mean 'apache-2.0'"),
        ({"dataset_ids": ("camvid",)}, "expected the id of a data set on the Hub, USER/NAME"),
        ({"ablation": tmp_path / "none.json"}, "cannot be read: No such file"),
    ):
        with pytest.raises(InputError) as caught:
            card_of(saved, **options)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="is not there; give the folder of a run"):
        card_of(tmp_path / "absent")
    with pytest.raises(InputError, match="is a file; give the folder"):
        card_of(saved / "curves.png")
    for repo_id, message in (
        ("a b/c", "Repo id must"),
        ("../x", "Repo id"),
        ("a/b/c", "Repo id"),
        ("x", "write USER/x"),
    ):
        with pytest.raises(InputError, match=message):
            check_model_id(repo_id)


def test_without_a_token_a_rehearsal_says_what_it_could_not_look_at(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    publication = prepare_publication(saved, "ann/camvid")
    assert any("there is no token" in note for note in rehearse(publication, "ann/camvid"))
    monkeypatch.setenv("HF_TOKEN", "mine")
    assert any("HF_HUB_OFFLINE is set" in note for note in rehearse(publication, "ann/camvid"))


def test_a_card_in_a_file_of_its_own_finds_its_pictures(saved: Path, tmp_path: Path) -> None:
    publication = prepare_publication(saved, "ann/camvid")
    written = write_card(publication, tmp_path / "cards" / "camvid.md")
    assert [path.name for path in written] == ["camvid.md", "camvid_panel.png", "camvid_curves.png"]
    text = written[0].read_text()
    assert "](figures/camvid_panel.png)" in text
    assert "](figures/camvid_curves.png)" in text
    assert written[1].read_bytes() == (saved / "panels" / "step_40.png").read_bytes()
    with pytest.raises(InputError, match="--card"):
        write_card(replace(publication), tmp_path / "cards" / "camvid.md" / "below.md")
