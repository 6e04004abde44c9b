"""Exported graphs give the model's class maps, are whole or not there, and say what they need."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from s4mim_hf import S4MIMConfig, S4MIMForSemanticSegmentation, S4MIMImageProcessor
from s4mim_hf.errors import InputError
from s4mim_hf.hub.graph_export import capture, export_graph
from s4mim_hf.hub.graph_files import open_graph, read_metadata
from s4mim_hf.hub.graph_verification import verify

RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8] * 4,
    "depths": [1] * 4,
    "layer_type": "basic",
}
VIT = {
    "model_type": "dinov2", "patch_size": 14, "image_size": 56, "hidden_size": 16, "num_hidden_layers": 4,
    "num_attention_heads": 2,
}  # fmt: skip
PALETTE = [[0, 0, 0], [0, 255, 0], [0, 0, 255]]


def segmenter(backbone: dict[str, Any], **fields: Any) -> S4MIMForSemanticSegmentation:
    torch.manual_seed(0)
    config = S4MIMConfig(
        backbone_config=backbone, decoder_channels=8, low_level_channels=8, palette=PALETTE, initializer_range=1.0,
        id2label={0: "sky", 1: "road", 2: "tree"}, aspp_rates=[2], **fields,
    )  # fmt: skip
    return S4MIMForSemanticSegmentation(config).eval()


@pytest.fixture(scope="module")
def model() -> S4MIMForSemanticSegmentation:
    return segmenter(RESNET)


@pytest.mark.real
def test_onnx_of_any_size_has_the_models_class_maps_on_real_images(
    model: S4MIMForSemanticSegmentation, shared_dir: Path, tmp_path: Path
) -> None:
    processor = S4MIMImageProcessor(image_mean=[0.4, 0.5, 0.6], max_side=200)
    photos = []
    for file in sorted((shared_dir / "data" / "camvid" / "images").rglob("*.jpg"))[:2]:
        with Image.open(file) as image:
            photos.append(np.asarray(image.convert("RGB")))
    height, width = processor.input_size(*photos[0].shape[:2])
    batch = processor(photos, return_tensors="pt").pixel_values
    with torch.no_grad():
        # Untrained, it would see one class everywhere: here each is the best one somewhere.
        model.decode_head.classifier.bias -= model(batch).logits.mean(dim=(0, 2, 3))
    path = tmp_path / "new" / "graph.onnx"
    found = export_graph(model, processor, path, images=[*photos, photos[0][:301, :77]])
    assert (found.pixels, found.differing) == (2 * height * width + 200 * 51, 0)
    assert [file.name for file in path.parent.iterdir()] == ["graph.onnx"]
    # By onnxruntime alone: more than one picture, and sizes at which nothing, or nearly all, is cut off.
    session = onnxruntime.InferenceSession(str(path))
    for inputs in (batch, batch[..., :64, :96], batch[:1, :, :33, :50], batch[:1, :, :1, :1]):
        (logits,) = session.run(["logits"], {"pixel_values": inputs.numpy()})
        with torch.no_grad():
            expected = model(inputs).logits
        assert np.array_equal(logits.argmax(1), expected.argmax(1).numpy())
    assert len(np.unique(model(batch).logits.argmax(1))) == 3
    metadata = read_metadata(path)
    assert metadata["id2label"] == {"0": "sky", "1": "road", "2": "tree"}
    assert metadata["palette"] == PALETTE
    assert metadata["input"] == {"name": "pixel_values", "shape": ["batch", 3, "height", "width"], "channels": "RGB"}
    assert metadata["image_processor"]["image_mean"] == [0.4, 0.5, 0.6]
    onnx.checker.check_model(onnx.load(path))
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_a_graph_of_mobilenet_fixes_no_size() -> None:
    """By transformers' own default padding it would: Python numbers that tracing takes for constants."""
    network = segmenter({"model_type": "mobilenet_v2", "depth_multiplier": 0.35, "min_depth": 4})
    graph = capture(network).module()
    for height, width in ((1, 1), (8, 9), (31, 64)):
        images = torch.randn(1, 3, height, width)
        torch.testing.assert_close(graph(images).logits, network(images).logits)


def test_an_encoder_with_attention_is_exported_for_one_size(tmp_path: Path) -> None:
    model = segmenter(VIT, decode_head="dpt")
    with pytest.raises(InputError, match=r"encoder 'dinov2', .* holds for one size; say which \(--size HxW\)"):
        export_graph(model, S4MIMImageProcessor(), tmp_path / "graph.pt2")
    path = tmp_path / "graph.pt2"
    path.write_text("an older one")
    found = export_graph(model, S4MIMImageProcessor(max_side=90), path, size=(40, 56))
    assert (found.differing, found.largest_difference) == (0, 0.0)
    assert [file.name for file in tmp_path.iterdir()] == ["graph.pt2"]
    assert read_metadata(path)["image_processor"]["max_side"] == 90
    images = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        assert torch.equal(open_graph(path)(images), model(images).logits)
    assert read_metadata(path)["input"]["shape"] == [1, 3, 40, 56]


def test_a_network_that_cannot_be_traced_is_one_sentence() -> None:
    class Branching(nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values if bool(pixel_values.sum() > 0) else -pixel_values

    with pytest.raises(InputError, match=r"no graph of this network can be made for images of every size \(.*--size"):
        capture(Branching())


def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(
    model: S4MIMForSemanticSegmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = S4MIMImageProcessor()

    def refused(sentence: str, name: str, **options: Any) -> None:
        with pytest.raises(InputError, match=sentence):
            export_graph(model, processor, tmp_path / name, **options)

    refused(r"ends in \.pth; a graph's file ends in \.onnx or \.pt2", "graph.pth")
    refused("ends in nothing", "graph")
    refused("opset .*is no .onnx file", "graph.pt2", opset=20)
    refused("the size 0x4 has no pixels", "graph.pt2", size=(0, 4))
    (tmp_path / "folder.pt2").mkdir()
    refused("is a folder", "folder.pt2")
    (tmp_path / "folder.pt2").rmdir()
    (tmp_path / "file").write_text("")
    refused("cannot be written", "file/graph.pt2", size=(8, 8))
    (tmp_path / "file").unlink()
    found = importlib.util.find_spec
    monkeypatch.setattr("s4mim_hf.hub.graph_export.find_spec", lambda name: None if "onnx" in name else found(name))
    refused(r"ONNX needs onnx, onnxscript, onnxruntime, .*pip install 's4mim-hf\[export\]'", "graph.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_predicts_otherwise_is_found_and_ties_are_not() -> None:
    images = torch.randn(1, 3, 20, 20)
    network = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        network.weight[3], network.bias[3] = network.weight[2], network.bias[2]

    def tied(batch: torch.Tensor) -> torch.Tensor:
        logits = network(batch).detach()
        logits[:, 3] += 1e-6
        return logits

    ties = verify(network, tied, [images])
    assert ties.differing == int((network(images).argmax(1) == 2).sum()) > 0
    assert "at ties of two classes" in str(ties)
    assert "equal class maps on 400 pixels" in str(verify(network, network, [images]))
    with pytest.raises(InputError, match=r"other classes than the model at \d+ of 400 pixels"):
        verify(network, lambda batch: -network(batch), [images])
    with pytest.raises(InputError, match=r"refuses a batch of \(1, 3, 20, 20\) that the model takes"):
        verify(network, lambda batch: network(batch[:, :2]), [images])
    with pytest.raises(InputError, match=r"logits of \(1, 4, 20, 10\)"):
        verify(network, lambda batch: network(batch)[..., :10], [images])
