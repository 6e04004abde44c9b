"""Peers' checkpoints as model folders: the same logits, whole folders, nothing taken in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peer_networks import State, deeplab_logits, deeplab_state, dpt_state, unimatch_file

from s4mim_hf.data.catalog import CATALOG
from s4mim_hf.errors import InputError
from s4mim_hf.hub.conversion import PEERS, convert_checkpoint
from s4mim_hf.hub.conversion.reading import file_hash
from s4mim_hf.hub.load import load_model
from s4mim_hf.hub.publication import prepare_publication

CORRMATCH = {"stride": 8, "rates": (12, 24, 36)}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "unimatch": ("unimatch", "resnet", {}, {}),
    "unimatch at stride 8": (
        "unimatch",
        "resnet",
        {"output_stride": 8, "aspp_rates": [2, 3, 4]},
        {"stride": 8, "rates": (2, 3, 4)},
    ),
    "unimatch on xception": ("unimatch", "xception", {}, {}),
    "corrmatch": ("corrmatch", "resnet", {}, CORRMATCH),
    "corrmatch with multi-grid": (
        "corrmatch",
        "resnet",
        {"multi_grid": [2, 2, 4]},
        CORRMATCH | {"multi_grid": (2, 2, 4)},
    ),
}


def written(folder: Path, peer: str = "unimatch", state: State | None = None) -> Path:
    """Write a checkpoint as the peer's script does."""
    state = deeplab_state(correlation=peer == "corrmatch") if state is None else state
    path = folder / "best.pth"
    if peer == "unimatch":
        return unimatch_file(path, state)
    torch.save(state, path)
    return path


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_peers(case: str, tmp_path: Path) -> None:
    peer, encoder, choices, reference = CASES[case]
    state = deeplab_state(encoder, correlation=peer == "corrmatch")
    made = convert_checkpoint(peer, written(tmp_path, peer, state), tmp_path / "model", choices=choices)
    model, processor = load_model(tmp_path / "model")
    assert tuple(processor.image_mean) == (0.485, 0.456, 0.406)
    # Sides that no stride divides, and larger than the widest dilation reaches.
    images = torch.randn(2, 3, 97, 66, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = deeplab_logits(state, images, **reference), model(images).logits
        assert expected.std() > 0.1
        assert (found - expected).abs().max() < 1e-5
        doubles = {key: value.double() for key, value in state.items()}
        expected, found = deeplab_logits(doubles, images.double(), **reference), model.double()(images.double()).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert made.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("peer", "encoder"), [("unimatch", "resnet"), ("unimatch", "xception"), ("corrmatch", "resnet")]
)
def test_every_weight_is_used_once_or_named(peer: str, encoder: str, tmp_path: Path) -> None:
    state = deeplab_state(encoder, correlation=peer == "corrmatch")
    made = convert_checkpoint(peer, written(tmp_path, peer, state), tmp_path / "model")
    model, _ = load_model(tmp_path / "model")

    def prints(tensors: Any) -> list[tuple[Any, float]]:
        return sorted((tuple(tensor.shape), float(tensor.double().sum())) for tensor in tensors)

    assert {key.split(".")[0] for key in made.left_out} == ({"corr", "proj"} if peer == "corrmatch" else set())
    kept = [value for key, value in state.items() if key not in made.left_out]
    assert prints(kept) == prints(model.state_dict().values())


def test_the_moving_average_of_unimatch_v2_is_taken(tmp_path: Path) -> None:
    student, teacher = dpt_state(seed=0), dpt_state(seed=1)
    checkpoint = unimatch_file(tmp_path / "best.pth", student, model_ema=teacher)
    for weights, state in ((None, teacher), ("student", student)):
        folder = tmp_path / f"{weights}"
        made = convert_checkpoint("unimatch_v2", checkpoint, folder, weights=weights)  # type: ignore[arg-type]
        assert made.weights == (weights or "teacher")
        # The mask token, and the unit that the coarsest fusion has nothing for.
        assert set(made.left_out) == {"backbone.mask_token"} | {key for key in state if "net4.resConfUnit1" in key}
        model, _ = load_model(folder)
        assert torch.equal(model.decode_head.classifier.weight, state["head.scratch.output_conv.2.weight"])


def test_the_card_says_whose_weights_these_are(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, "corrmatch")
    convert_checkpoint("corrmatch", checkpoint, tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    for expected in ("CorrMatch", "BBBBchan/CorrMatch", "`best.pth`", file_hash(checkpoint), "corr.conv1.weight"):
        assert expected in card.text
    for expected in ("Nobody of s4mim_hf has measured", "`output_stride` 8", "`aspp_rates` 12, 24, 36", "Pascal VOC"):
        assert expected in card.text
    assert str(tmp_path) not in card.text
    # It is published as it stands: nobody else's licence, no table of results.
    published = prepare_publication(tmp_path / "model", "USER/corrmatch")
    assert published.card.data.license == "cc-by-nc-4.0"
    assert published.card.text == card.text
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "modeling_s4mim.py", "README.md"} <= {
        path.name for path in (tmp_path / "model").iterdir()
    }


def network_of(folder: Path) -> str:
    """Return what the card of a folder says of the network."""
    text: str = ModelCard.load(folder / "README.md").text
    return text.partition("## The network\n\n")[2].partition("\n\n")[0]


@pytest.mark.parametrize(
    ("peer", "taken", "other", "options"),
    [
        (
            "unimatch",
            "output_stride 16; aspp_rates 6, 12, 18; multi_grid none",
            "output_stride 8; aspp_rates 12, 24, 36; multi_grid 2, 2, 4",
            "--output-stride 8 --aspp-rates 12,24,36 --multi-grid 2,2,4",
        ),
        (
            "corrmatch",
            "output_stride 8; aspp_rates 12, 24, 36; multi_grid none",
            "multi_grid 2, 2, 4",
            "--multi-grid 2,2,4",
        ),
    ],
)
def test_of_19_classes_it_is_said_that_configurations_differ(
    peer: str, taken: str, other: str, options: str, tmp_path: Path
) -> None:
    state = deeplab_state(classes=19, correlation=peer == "corrmatch")
    checkpoint = written(tmp_path, peer, state)
    made = convert_checkpoint(peer, checkpoint, tmp_path / "model")
    said = ". ".join(made.doubts)
    for part in ("no weight tells", f": {taken} are taken here", f"other versions have {other}"):
        assert part in said, part
    assert said.endswith(f"with {options}")
    network = network_of(tmp_path / "model")
    assert all(sentence[1:] in network for sentence in made.doubts)
    assert "`multi_grid` none (assumed)" in network
    # With these options it is the other network indeed, and no doubt is left.
    choices = dict(PEERS[peer].cityscapes_otherwise)
    again = convert_checkpoint(peer, checkpoint, tmp_path / "again", choices=choices)
    assert again.doubts == ()
    assert "`multi_grid` 2, 2, 4 (as asked for)" in network_of(tmp_path / "again")
    images = torch.randn(1, 3, 97, 66, generator=torch.Generator().manual_seed(1))
    model, _ = load_model(tmp_path / "again")
    with torch.no_grad():
        expected = deeplab_logits(state, images, stride=8, rates=(12, 24, 36), multi_grid=(2, 2, 4))
        assert (model(images).logits - expected).abs().max() < 1e-5


def test_doubts_are_of_what_nobody_said(tmp_path: Path) -> None:
    state = deeplab_state(classes=19, correlation=True)
    checkpoint = written(tmp_path, "corrmatch", state)
    no_grid = convert_checkpoint("corrmatch", checkpoint, tmp_path / "none", choices={"multi_grid": [1, 1, 1]})
    assert no_grid.doubts == ()
    stride = convert_checkpoint("corrmatch", checkpoint, tmp_path / "stride", choices={"output_stride": 16})
    assert "output_stride 16; aspp_rates 12, 24, 36; multi_grid none are taken here" in stride.doubts[0]
    # Of the same 19 classes by names of one's own, and of others.
    names = [f"class {index}" for index in range(19)]
    assert convert_checkpoint("corrmatch", checkpoint, tmp_path / "names", classes=names).doubts
    for encoder, classes in (("resnet", 21), ("xception", 19)):
        other = written(tmp_path, state=deeplab_state(encoder, classes=classes))
        assert convert_checkpoint("unimatch", other, tmp_path / f"{encoder}{classes}").doubts == ()
        network = network_of(tmp_path / f"{encoder}{classes}")
        expected = "`output_stride` 16 (assumed); `aspp_rates` 6, 12, 18 (assumed); `multi_grid` none (assumed)"
        assert f"No weight tells {expected}; `--output-stride`, `--aspp-rates`, `--multi-grid` of" in network


@pytest.mark.parametrize(
    ("count", "given", "first", "color"),
    [
        (21, {}, "background", (0, 0, 0)),
        (21, {"data": "msrc21"}, CATALOG["msrc21"].classes[0], CATALOG["msrc21"].palette[0]),
        (19, {}, "road", (128, 64, 128)),
        (81, {}, "background", (0, 0, 0)),
        (150, {}, CATALOG["ade20k"].classes[0], CATALOG["ade20k"].palette[0]),
        (5, {}, "LABEL_0", (0, 0, 0)),
        (2, {"classes": ["mine", "yours"]}, "mine", (0, 0, 0)),
    ],
)
def test_classes_and_colours(count: int, given: dict[str, Any], first: str, color: Any, tmp_path: Path) -> None:
    checkpoint = written(tmp_path, state=deeplab_state(classes=count))
    config = convert_checkpoint("unimatch", checkpoint, tmp_path / "model", **given).config
    assert config.num_labels == count
    assert config.id2label[0] == first
    assert config.label2id[first] == 0
    assert tuple(config.palette[0]) == color


def changed(**tensors: torch.Tensor | None) -> State:
    """Return UniMatch's weights with some replaced, or (None) taken out; `__` stands for a dot."""
    state = deeplab_state()
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    return state


REFUSED: dict[str, tuple[Any, str, dict[str, Any], list[str]]] = {
    "an unknown peer": (None, "unimatchv3", {}, ["'unimatchv3'", "did you mean 'unimatch", "corrmatch"]),
    "corrmatch's as unimatch's": (
        lambda: deeplab_state(correlation=True),
        "unimatch",
        {},
        ["best.pth", "CorrMatch", "not of UniMatch", "as corrmatch"],
    ),
    "unimatch's as corrmatch's": (deeplab_state, "corrmatch", {}, ["UniMatch, not of CorrMatch", "as unimatch"]),
    "unimatch v2's as unimatch's": (
        lambda: {"backbone.cls_token": torch.zeros(1), PEERS["unimatch_v2"].mark: torch.zeros(1)},
        "unimatch",
        {},
        ["UniMatch V2", "as unimatch_v2"],
    ),
    "nobody's": (
        lambda: {"encoder.weight": torch.zeros(3)},
        "unimatch",
        {},
        ["none of the peers", "unimatch, unimatch_v2, corrmatch", "encoder.weight"],
    ),
    "a missing weight": (
        lambda: changed(head__b2__1__bias=None),
        "unimatch",
        {},
        ["1 weights are missing", "head.b2.1.bias"],
    ),
    "a missing block": (
        lambda: {key: value for key, value in deeplab_state().items() if "layer3.0" not in key},
        "unimatch",
        {},
        ["'backbone.layer3.0.*' is missing"],
    ),
    "no classifier": (lambda: changed(classifier__weight=None), "unimatch", {}, ["classifier.weight"]),
    "one more weight": (
        lambda: changed(auxiliary__weight=torch.zeros(3)),
        "unimatch",
        {},
        ["1 weights have no place", "auxiliary.weight"],
    ),
    "a flat classifier": (
        lambda: changed(classifier__weight=torch.zeros(21)),
        "unimatch",
        {},
        ["'classifier.weight' has the shape (21,)", "4 dimensions"],
    ),
    "another width in one place": (
        lambda: changed(fuse__4__bias=torch.zeros(9)),
        "unimatch",
        {},
        ["'fuse.4.bias' has the shape (9,)", "(8,)"],
    ),
    "a wide resnet": (
        lambda: changed(backbone__layer1__0__conv1__weight=torch.zeros(8, 12, 1, 1)),
        "unimatch",
        {},
        ["backbone.layer1.0.conv1.weight", "wide and grouped"],
    ),
    "integers for a weight": (
        lambda: changed(fuse__4__bias=torch.zeros(8, dtype=torch.int64)),
        "unimatch",
        {},
        ["'fuse.4.bias' is of torch.int64"],
    ),
    "too many classes": (lambda: deeplab_state(classes=256), "unimatch", {}, ["ignore_index", "256 classes"]),
    "a choice that it has not": (
        deeplab_state,
        "unimatch",
        {"choices": {"multi_grid": [2, 2]}},
        ["multi_grid has 2 factors", "3 layers"],
    ),
    "a stride of xception that is none": (
        lambda: deeplab_state("xception"),
        "unimatch",
        {"choices": {"output_stride": 32}},
        ["output_stride is 32", "8 and 16"],
    ),
    "other data's classes": (deeplab_state, "unimatch", {"data": "cityscapes"}, ["19 classes", "predicts 21"]),
    "unknown data": (deeplab_state, "unimatch", {"data": "vok"}, ["'vok'", "did you mean 'voc'"]),
    "too few names": (deeplab_state, "unimatch", {"classes": ["a", "b"]}, ["2 classes are named", "predicts 21"]),
    "a name twice": (lambda: deeplab_state(classes=2), "unimatch", {"classes": ["a", "a"]}, ["a, a", "repeat"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_one_sentence_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    state, peer, given, words = REFUSED[case]
    checkpoint = written(tmp_path, state=deeplab_state() if state is None else state())
    with pytest.raises(InputError) as caught:
        convert_checkpoint(peer, checkpoint, tmp_path / "deeper" / "model", **given)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_choice_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"output_stride is no choice for UniMatch V2"):
        convert_checkpoint("unimatch_v2", tmp_path / "any.pth", tmp_path / "model", choices={"output_stride": 8})


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_there_already_stays(kind: str, tmp_path: Path) -> None:
    output = tmp_path / "model"
    if kind == "folder":
        output.mkdir()
    elif kind == "file":
        output.write_text("mine")
    else:
        output.symlink_to(tmp_path / "nowhere")
    before = state_of(output)
    with pytest.raises(InputError, match="is there already"):
        convert_checkpoint("unimatch", written(tmp_path), output)
    assert state_of(output) == before


def state_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a path is written to; not its access time, which a look may change."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file/model cannot be written"):
        convert_checkpoint("unimatch", written(tmp_path), tmp_path / "file" / "model")
