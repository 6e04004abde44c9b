"""Runs with the fewest and with many classes, end to end: every method, both reconstruction decoders, ids up to 149."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s4mim_hf import S4MIMForSemanticSegmentation
from s4mim_hf.data.options import PrepareOptions
from s4mim_hf.data.prepare import prepare as prepare_source
from s4mim_hf.data.prepared import decode_label, load_prepared
from s4mim_hf.engine.build import build_accelerator, build_run
from s4mim_hf.engine.hooks import EvaluationHook, LoggingHook
from s4mim_hf.engine.run import train
from s4mim_hf.engine.run_config import RunConfig
from s4mim_hf.methods import METHODS

ConfigMaker = Callable[..., RunConfig]
SIZE, BLOCK = 48, 8
CLASS_COUNTS = (2, 150)
VARIANTS = {
    **{name: [f"method.name={name}"] for name in METHODS},
    "s4mim, attention": ["method.name=s4mim", "model.mim_decoder_type=attention", "model.mim_attention_stride=8"],
    "s4mim, balanced, by class": [
        "method.masking.strategy=class_balanced",
        "method.reconstruction.reduction=class",
        "method.aggregation.prototypes=batch",
        "method.masking.view=strong",
    ],
    "s4mim on UniMatch's base": ["method.strong_views=2", "method.feature_weight=0.25"],
}
SHORT = [
    "data.views.crop_size=32",
    "method.masking.patch_size=8",
    # An untrained teacher of many classes is sure of nothing.
    "method.threshold=0",
    "method.class_map_threshold=0",
    "optim.max_steps=2",
    "evaluation.interval=2",
    "evaluation.evaluate_student=false",
    "checkpoint.interval=2",
    "log.tracker=none",
]


def write_raw(folder: Path, count: int, ids: list[int]) -> Path:
    """Write 8 images of blocks whose colour says their class, which is one of `ids` of `count` classes, or unknown."""
    generator = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(8):
        blocks = generator.choice([*ids, 255], (SIZE // BLOCK, SIZE // BLOCK)).astype(np.uint8)
        # Each image shows the highest id that there is.
        blocks[0, 0] = ids[-1]
        label = np.kron(blocks, np.ones((BLOCK, BLOCK), dtype=np.uint8))
        image = np.stack([label * 7, label * 31, label * 101], axis=-1)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(label).save(folder / "masks" / f"{number}.png")
    names = {class_id: f"class {class_id}" for class_id in range(count)}
    (folder / "classes.json").write_text(json.dumps({"id2label": names, "ignore_index": 255}))
    return folder


def prepare(root: Path, count: int, ids: list[int]) -> Path:
    raw = str(write_raw(root / "raw", count, ids))
    options = PrepareOptions("folder", root / "data", raw, labeled="3", validation="2")
    prepare_source(options, say=lambda note: None)
    return root / "data"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return prepared folders by their number of classes, all of which may occur."""
    return {
        count: prepare(tmp_path_factory.mktemp(f"classes{count}"), count, list(range(count))) for count in CLASS_COUNTS
    }


def losses_of(config: RunConfig) -> dict[str, Any]:
    """Return the last training record of a run."""
    lines = (Path(str(config.output_dir)) / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "train"][-1]


def overrides_of(variant: list[str]) -> list[str]:
    """Leave out the settings that the variant's method does not have."""
    name = next((text.partition("=")[2] for text in variant if text.startswith("method.name=")), "s4mim")
    own = METHODS[name].config_class()
    return [
        text for text in SHORT if not text.startswith("method.") or hasattr(own, text[7:].split(".")[0].split("=")[0])
    ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("count", CLASS_COUNTS)
def test_every_method_trains_and_is_measured(
    tiny_config: ConfigMaker, folders: dict[int, Path], count: int, variant: str
) -> None:
    settings = VARIANTS[variant]
    config = tiny_config(*overrides_of(settings), *settings, data=folders[count])
    folder = Path(str(config.output_dir))
    folder.mkdir()
    run = build_run(config, build_accelerator(config, folder), folder)
    # Curves and checkpoints take longer than the training, and know nothing of classes.
    run.trainer.hooks = [hook for hook in run.trainer.hooks if isinstance(hook, LoggingHook | EvaluationHook)]
    run.trainer.train(run.batches())
    assert run.evaluation.last is not None
    assert len(run.evaluation.last.scores.per_category_iou) == count
    record = losses_of(config)
    terms = {name: value for name, value in record.items() if name.startswith("loss")}
    assert all(value is not None and math.isfinite(value) for value in terms.values())
    assert all(value > 0 for value in terms.values()), terms
    assert terms["loss_supervised"] == pytest.approx(math.log(count), rel=0.5)
    assert run.trainer.unwrapped_student.segmenter.config.num_labels == count


def test_150_classes_are_prepared_measured_and_shipped(tiny_config: ConfigMaker, folders: dict[int, Path]) -> None:
    data = load_prepared(str(folders[150]))
    ids = {int(value) for row in data.labeled for value in np.unique(decode_label(row["label"]["bytes"]))}
    assert max(ids - {255}) == 149
    config = tiny_config(*SHORT, data=folders[150])
    run = train(config)
    folder = Path(str(config.output_dir))
    scores = json.loads((folder / "results.json").read_text())["last_teacher"]
    assert run.evaluation.last is not None
    assert len(scores["per_category_iou"]) == 150
    # A class that occurs is measured, 149 among them; one that neither occurs nor is predicted is not.
    shown = {int(value) for row in data.validation or () for value in np.unique(decode_label(row["label"]["bytes"]))}
    assert all(scores["per_category_accuracy"][label] is not None for label in shown - {255})
    assert all(scores["per_category_accuracy"][label] is None for label in set(range(150)) - shown)
    shipped = S4MIMForSemanticSegmentation.from_pretrained(folder / "model").eval()
    assert shipped.config.id2label[149] == "class 149"
    with torch.no_grad():
        shipped.decode_head.classifier.bias[149] = 100.0
        prediction = shipped(torch.zeros(1, 3, 40, 56)).logits.argmax(1)
    assert prediction.shape == (1, 40, 56)
    assert prediction.to(torch.uint8).unique().tolist() == [149]


@pytest.mark.parametrize(("ids", "decoder"), [([149], "conv"), ([0, 149], "attention")])
def test_few_of_many_classes_are_enough(tiny_config: ConfigMaker, tmp_path: Path, ids: list[int], decoder: str) -> None:
    """The labelled images know one class or two of 150, and of the unlabelled ones nothing is known."""
    data = prepare(tmp_path / "few", 150, ids)
    settings = [
        "method.class_map_threshold=1",
        "method.masking.strategy=class_balanced",
        "method.masking.images=labeled_and_unlabeled",
    ]
    config = tiny_config(*SHORT, *settings, f"model.mim_decoder_type={decoder}", data=data)
    train(config)
    record = losses_of(config)
    assert record["loss_supervised"] > 0
    for term in ("reconstruction", "aggregation", "semantic"):
        assert math.isfinite(record[f"loss_{term}"])
        assert record[f"loss_{term}"] > 0
    assert record["known_share"] < 0.5
