"""Which layer a parameter of an encoder belongs to."""

from __future__ import annotations

import pytest
import torch
from architectures import BACKBONES, TRANSFORMERS, head_of
from torch import nn

from s4mim_hf.modeling import S4MIMConfig
from s4mim_hf.modeling.backbones import Backbone
from s4mim_hf.modeling.encoder_layers import layer_numbers


def build(name: str) -> Backbone:
    config = S4MIMConfig(backbone_config=dict(BACKBONES[name]), decode_head=head_of(name))
    return Backbone(config.backbone_config, None)


def test_layers_are_numbered_from_the_input(backbone_name):
    """A layer's output moves with the parameters of this layer and of those before it, and with no others.

    Which layers are the encoder's is known from its configuration: blocks of a transformer or of MobileNetV2, else the
    four stages.
    """
    backbone = build(backbone_name)
    numbers, count = layer_numbers(backbone)
    assert set(numbers) == {name for name, _ in backbone.named_parameters()}
    assert count == (5 if backbone_name in TRANSFORMERS else 16 if backbone_name == "mobilenet_v2" else 4)
    layers = _modules_of_layers(backbone, count)
    outputs: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(_tensor(call[-1]))) for layer in layers]
    backbone.eval()(torch.randn(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert len(outputs) == count
    for layer, output in enumerate(outputs, start=1):
        names, parameters = zip(*backbone.named_parameters(), strict=True)
        gradients = torch.autograd.grad(
            (output * torch.randn_like(output)).sum(), parameters, retain_graph=True, allow_unused=True
        )
        reached = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
        own_norms = {name for name in names if "hidden_states_norms" in name}
        assert reached - own_norms == {name for name in names if numbers[name] <= layer} - own_norms, layer


def _modules_of_layers(backbone: Backbone, count: int) -> list[nn.Module]:
    """Return the only list of `count` modules that is not inside another one, by length alone."""
    lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return list(lists[0])


def _tensor(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def test_norms_of_outputs_belong_to_their_stage():
    numbers, count = layer_numbers(build("swin"))
    assert count == 4
    assert numbers["encoder.hidden_states_norms.stage1.weight"] == 1
    assert numbers["encoder.hidden_states_norms.stage4.bias"] == 4
    numbers, _ = layer_numbers(build("dinov2"))
    assert (numbers["encoder.embeddings.cls_token"], numbers["encoder.layernorm.weight"]) == (0, 6)


def test_an_encoder_without_known_layers_is_one_sentence():
    backbone = build("resnet-basic")
    backbone.model_type = "hiera"
    with pytest.raises(ValueError, match="layers of the backbone 'hiera' are not known"):
        layer_numbers(backbone)
