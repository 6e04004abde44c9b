"""A saved model is a start for other classes and for transformers' own Trainer, in the ways that their users know."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForSemanticSegmentation, Trainer, TrainingArguments

from s4mim_hf.modeling import S4MIMForSemanticSegmentation

COLORS = [[class_id, 0, 0] for class_id in range(5)]
FIVE = {class_id: f"class {class_id}" for class_id in range(5)}
TWO = {0: "road", 1: "sky"}


@pytest.fixture
def saved(make_config, tmp_path: Path) -> Path:
    config = make_config(id2label=FIVE, palette=COLORS)
    S4MIMForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("classes", "names", "colors"),
    [
        ({"num_labels": 2}, {0: "LABEL_0", 1: "LABEL_1"}, None),
        ({"id2label": TWO, "label2id": {"road": 0, "sky": 1}}, TWO, None),
        ({"id2label": TWO}, TWO, None),
        ({"id2label": TWO, "palette": [[1, 1, 1], [2, 2, 2]]}, TWO, [[1, 1, 1], [2, 2, 2]]),
        ({"num_labels": 2, "palette": None}, {0: "LABEL_0", 1: "LABEL_1"}, None),
        ({"num_labels": 5}, FIVE, COLORS),
        ({"id2label": FIVE}, FIVE, COLORS),
        ({"id2label": None, "label2id": None}, FIVE, COLORS),
        ({"id2label": dict(enumerate("abcde"))}, dict(enumerate("abcde")), None),
    ],
)
def test_other_classes_are_named_when_it_is_loaded(saved: Path, classes, names, colors) -> None:
    before = AutoModelForSemanticSegmentation.from_pretrained(saved)
    model = AutoModelForSemanticSegmentation.from_pretrained(saved, ignore_mismatched_sizes=True, **classes)
    assert model.config.id2label == names
    assert model.config.label2id == {name: class_id for class_id, name in names.items()}
    assert model.config.palette == colors
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, len(names), 32, 32)
    assert AutoConfig.from_pretrained(saved).palette == COLORS
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name]), name


def test_classes_may_come_with_an_ignored_id_that_is_none_of_them_and_with_no_other_number(saved: Path) -> None:
    names = {class_id: str(class_id) for class_id in range(300)}
    config = AutoConfig.from_pretrained(saved, id2label=names, semantic_loss_ignore_index=65535)
    assert (config.num_labels, config.semantic_loss_ignore_index) == (300, 65535)
    with pytest.raises(ValueError, match="num_labels is 3, but id2label names 2 classes"):
        AutoConfig.from_pretrained(saved, id2label=TWO, num_labels=3)


def test_colours_of_another_number_of_classes_are_refused(saved: Path) -> None:
    config = AutoConfig.from_pretrained(saved)
    config.num_labels = 2
    with pytest.raises(ValueError, match=r"palette has 5 colours; give one for each of 2 classes, or None"):
        AutoModelForSemanticSegmentation.from_pretrained(saved, config=config, ignore_mismatched_sizes=True)


class Scenes(Dataset):
    """Four images, always the same."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        draws = torch.Generator().manual_seed(index)
        labels = torch.randint(0, 5, (32, 32), generator=draws)
        return {"pixel_values": torch.randn(3, 32, 32, generator=draws), "labels": labels}


def test_the_trainer_of_transformers_accumulates_means(saved: Path, tmp_path: Path) -> None:
    losses = []
    for size, steps in ((4, 1), (1, 4)):
        # In evaluation mode, one image at a time gives what four at once give.
        model = AutoModelForSemanticSegmentation.from_pretrained(saved)
        model.train = lambda mode=True, model=model: model
        arguments = TrainingArguments(
            str(tmp_path / f"run_{steps}"), per_device_train_batch_size=size, gradient_accumulation_steps=steps,
            max_steps=1, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
            max_grad_norm=1e9,
        )  # fmt: skip
        trainer = Trainer(model.eval(), arguments, train_dataset=Scenes())
        trainer.train()
        (record,) = (record for record in trainer.state.log_history if "grad_norm" in record)
        losses.append((record["loss"], record["grad_norm"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
