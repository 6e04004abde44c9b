"""Models load from folders and from the Hub: in an environment of three packages, and beside this project.

Each process is another one than pytest's: its Hub is a server of this test, or none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from architectures import BACKBONES
from clean_environment import make_site, run_in
from hub_client import ChildError, hub_client
from hub_server import Account, HubServer, running_hub
from PIL import Image
from plain_pictures import picture
from safetensors.torch import load_file, save_file

from s4mim_hf.modeling import S4MIMConfig, S4MIMForSemiSupervisedSegmentation, S4MIMImageProcessor

SEGMENTER = "S4MIMForSemanticSegmentation"
# What each process says of the models that it is given by name: folders, or ids on the Hub.
LOADING = """
import json, sys
import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline
names, options, image = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Image.open(sys.argv[3])
pixels, reports = torch.linspace(-1, 1, 3 * 40 * 50).view(1, 3, 40, 50), []
for name in names:
    report = {"config": type(AutoConfig.from_pretrained(name, **options)).__name__}
    for auto in (AutoModel, AutoModelForSemanticSegmentation):
        model = auto.from_pretrained(name, **options).eval()
        with torch.no_grad():
            report[auto.__name__] = [type(model).__name__, model(pixels).logits.flatten()[::37].tolist()]
    processor = AutoImageProcessor.from_pretrained(name, **options)
    inputs = processor(image, return_tensors="pt")
    report["processor"] = [type(processor).__name__, list(inputs["pixel_values"].shape)]
    with torch.no_grad():
        outputs = model(**inputs)
    classes = processor.post_process_semantic_segmentation(outputs, [image.size[::-1]])[0].numpy()
    for subtask in (None, "semantic"):
        segmenter = pipeline("image-segmentation", model=model, image_processor=processor)
        segments = segmenter(image, subtask=subtask) if subtask else segmenter(image)
        present = {model.config.id2label[int(index)]: classes == index for index in np.unique(classes)}
        assert [one["label"] for one in segments] == list(present), segments
        for one in segments:
            assert one["mask"].size == image.size
            assert np.array_equal(np.asarray(one["mask"]) == 255, present[one["label"]])
    report["labels"] = list(present)
    segmenter = pipeline("image-segmentation", model=name, **options)
    assert [one["label"] for one in segmenter(sys.argv[3])] == list(present)
    reports.append(report)
print(json.dumps({"reports": reports, "imported": sorted(sys.modules)}))
"""
# Installed in this environment, and not to be had in a clean one.
ABSENT = ("s4mim_hf", "torchvision", "datasets", "evaluate", "kornia", "accelerate", "matplotlib", "scipy")


@pytest.fixture(scope="module")
def clean_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("clean") / "site")


Saved = tuple[S4MIMForSemiSupervisedSegmentation, list[Path]]


@pytest.fixture(scope="module")
def both_models(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Return a model with folders of its segmenter and of the whole, which pads and shrinks its images."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    config = S4MIMConfig(
        backbone_config=dict(BACKBONES["mobilenet_v2"]), decoder_channels=16, low_level_channels=8, mim_channels=8,
        mim_depth=2, id2label={0: "sky", 1: "road", 2: "tree"}, palette=[[0, 0, 0]] * 3, initializer_range=1.0,
    )  # fmt: skip
    model = S4MIMForSemiSupervisedSegmentation(config).eval()
    processor = S4MIMImageProcessor(max_side=64, size_divisor=32)
    folders = [folder / "segmenter", folder / "both"]
    for saved, path in zip((model.segmenter, model), folders, strict=True):
        saved.save_pretrained(path)
        processor.save_pretrained(path)
    Image.fromarray(picture(57, 80)).save(folder / "image.png")
    return model, folders


def check_reports(found: dict, model: S4MIMForSemiSupervisedSegmentation, wholes: list[str]) -> None:
    """Compare what another process says with the model at hand."""
    with torch.no_grad():
        logits = model(torch.linspace(-1, 1, 3 * 40 * 50).view(1, 3, 40, 50)).logits.flatten()[::37]
    for report, whole in zip(found["reports"], wholes, strict=True):
        assert report["config"] == "S4MIMConfig"
        assert report["AutoModel"][0] == whole
        assert report["AutoModelForSemanticSegmentation"][0] == SEGMENTER
        for name in ("AutoModel", "AutoModelForSemanticSegmentation"):
            torch.testing.assert_close(torch.tensor(report[name][1]), logits, rtol=1e-4, atol=1e-5)
        # 57 x 80 becomes 46 x 64, and is padded.
        assert report["processor"] == ["S4MIMImageProcessor", [1, 3, 64, 64]]
        assert len(report["labels"]) > 1


def test_a_clean_environment_has_nothing_else(clean_site: Path) -> None:
    there = {entry.name for entry in clean_site.iterdir()}
    assert {"torch", "transformers", "PIL", "numpy"} <= there
    assert not there & set(ABSENT)
    assert not [name for name in there if name.startswith("__editable__")]


@pytest.fixture(scope="module")
def hub(both_models: Saved, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """Serve ann's private repositories: two revisions of a model, one in a subfolder, and what is none."""
    _, (segmenter, _) = both_models
    with running_hub(ann=Account("ann"), bob=Account("bob")) as server:
        server.create("model", "ann/model", private=True)
        other = tmp_path_factory.mktemp("other") / "inner"
        other.mkdir()
        for file in segmenter.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        weights = load_file(segmenter / "model.safetensors")
        save_file({name: 0 * value for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
        server.put("model", "ann/model", other)
        server.put("model", "ann/model", segmenter)
        server.put("model", "ann/nested", other.parent, private=True)
        pickled = tmp_path_factory.mktemp("pickled")
        (pickled / "config.json").write_bytes((segmenter / "config.json").read_bytes())
        (pickled / "pytorch_model.bin").write_bytes(b"")
        server.put("model", "ann/pickled", pickled)
        server.create("model", "ann/empty")
        yield server


def test_folders_and_repositories_load_where_only_torch_transformers_and_pillow_are(
    both_models: Saved, clean_site: Path, hub: HubServer, tmp_path: Path
) -> None:
    model, folders = both_models
    names = [*map(str, folders), "ann/model"]
    options = {"trust_remote_code": True, "token": "ann"}
    arguments = json.dumps(names), json.dumps(options), str(folders[0].parent / "image.png")
    found, said = run_in(clean_site, LOADING, *arguments, environment=hub.environment(tmp_path))
    check_reports(found, model, [SEGMENTER, "S4MIMForSemiSupervisedSegmentation", SEGMENTER])
    assert not [name for name in found["imported"] if name.split(".")[0] in ABSENT]
    # Nothing is said but progress, which code was fetched, and the pipeline's list of its own models, which no custom
    # class can enter.
    usual = ("Loading weights", "not supported for image-segmentation", "A new version of", "Make sure to")
    unusual = [line for line in said.splitlines() if line.strip() and not any(words in line for words in usual)]
    assert [line for line in unusual if not line.startswith(("- ", ". "))] == []


def loaded(name: str, **options: str) -> dict:
    """Load by every Auto class, and return what a test compares; it runs in the child."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline

    import s4mim_hf  # noqa: F401

    models = [auto.from_pretrained(name, **options) for auto in (AutoModel, AutoModelForSemanticSegmentation)]
    segmenter = None
    if "subfolder" not in options:
        # False, not absent: looking for a video processor, transformers would ask a person, and wait.
        segmenter = pipeline("image-segmentation", model=name, trust_remote_code=False, **options)
    return {
        "modules": [type(one).__module__ for one in (*models, AutoConfig.from_pretrained(name, **options))],
        "processor": AutoImageProcessor.from_pretrained(name, **options).size_divisor,
        "sums": [one.decode_head.classifier.weight.abs().sum().item() for one in models],
        "pipeline": segmenter and segmenter(Image.fromarray(picture()))[0]["mask"].size,
    }


def load_sum(name: str) -> float:
    """Load by `load_model`; it runs in the child."""
    from s4mim_hf.hub.load import load_model

    return load_model(name)[0].decode_head.classifier.weight.abs().sum().item()


def test_beside_this_project_a_repository_needs_no_trust(both_models: Saved, hub: HubServer, tmp_path: Path) -> None:
    model, _ = both_models
    expected = model.segmenter.decode_head.classifier.weight.abs().sum().item()
    first = hub.repositories["model", "ann/model"].commits[1][0]
    environment = hub.environment(tmp_path)
    environment["PYTHONPATH"] = f"{Path(__file__).parent}:{environment.get('PYTHONPATH', '')}"
    with hub_client(environment) as child:
        for name, token, sentence in (
            ("ann/none", "ann", "cannot load the model ann/none: there is none of that name"),
            ("ann/nested", "bob", "cannot load the model ann/nested: there is none of that name that your token"),
            ("ann/nested", "ann", "the repository ann/nested has no config.json, so it holds no model"),
            ("ann/empty", None, "the repository ann/empty has no config.json"),
            ("ann/pickled", None, "ann/pickled has no weights: there is no model.safetensors"),
        ):
            with pytest.raises(ChildError, match=sentence):
                child("test_loading:load_sum", name, token=token)
        newest = child("test_loading:loaded", "ann/model", token="ann")
        own = "s4mim_hf.modeling"
        assert all(name.startswith(own) for name in newest["modules"])
        assert newest["sums"] == pytest.approx([expected] * 2)
        assert (newest["processor"], newest["pipeline"]) == (32, [30, 20])
        assert child("test_loading:load_sum", "ann/model", token="ann") == pytest.approx(expected)
        old = child("test_loading:loaded", "ann/model", revision=first, token="ann")
        nested = child("test_loading:loaded", "ann/nested", subfolder="inner", token="ann")
        assert old["sums"] == nested["sums"] == [0, 0]
