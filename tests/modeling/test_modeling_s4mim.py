"""Both models: shapes, losses, masks, heads that are built only when asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from s4mim_hf.modeling import (
    S4MIMForSemanticSegmentation,
    S4MIMForSemiSupervisedSegmentation,
    ViewGroup,
    convert_batch_norm,
)


class TestSegmenter:
    @pytest.mark.parametrize("size", [(97, 129), (64, 64), (30, 7), (1, 1)])
    def test_logits_have_the_input_size(self, make_config, backbone_name, size):
        model = S4MIMForSemanticSegmentation(make_config(backbone_name)).eval()
        with torch.no_grad():
            output = model(torch.randn(2, 3, *size))
            features = model.segment(torch.randn(2, 3, *size)).decoder_features
        assert output.logits.shape == (2, 5, *size)
        assert output.loss is None
        stride = model.feature_stride
        assert stride == {"dpt": model.backbone.output_stride // 2}.get(model.config.decode_head, 4)
        assert features.shape == (2, 16, -(-size[0] // stride), -(-size[1] // stride))

    def test_every_parameter_learns(self, make_config, backbone_name):
        model = S4MIMForSemanticSegmentation(make_config(backbone_name, separable_convolutions=True)).train()
        labels = torch.randint(0, 5, (2, 65, 97))
        model(torch.randn(2, 3, 65, 97), labels=labels).loss.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []

    def test_loss_is_the_mean_over_known_pixels(self, make_config):
        model = S4MIMForSemanticSegmentation(make_config()).eval()
        labels = torch.randint(0, 5, (2, 33, 41))
        labels[torch.rand(2, 33, 41) < 0.5] = 255
        output = model(torch.randn(2, 3, 33, 41), labels=labels)
        expected = F.cross_entropy(output.logits, labels, ignore_index=255)
        torch.testing.assert_close(output.loss, expected)

    def test_the_loss_of_half_precision_is_finite(self, make_config):
        model = S4MIMForSemanticSegmentation(make_config()).eval()
        logits, labels = torch.randn(2, 5, 256, 256), torch.randint(0, 5, (2, 256, 256))
        expected = F.cross_entropy(logits, labels)
        for dtype in (torch.float16, torch.bfloat16):
            found = model._cross_entropy(logits.to(dtype), labels)
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)
        assert torch.equal(model._cross_entropy(logits.double(), labels), F.cross_entropy(logits.double(), labels))

    def test_arguments_that_it_does_not_have_are_refused(self, make_config):
        model = S4MIMForSemanticSegmentation(make_config()).eval()
        images, labels = torch.randn(1, 3, 33, 41), torch.zeros(1, 33, 41, dtype=torch.long)
        with pytest.raises(TypeError, match=r"no argument 'label' .*Tensor.* leave it out"):
            model(images, label=labels)
        with pytest.raises(TypeError, match="'output_hidden_states'"):
            model(images, output_hidden_states=True)
        assert model(images, output_attentions=False, output_hidden_states=None).logits is not None
        both = S4MIMForSemiSupervisedSegmentation(make_config()).eval()
        assert both(images, return_dict=True, output_attentions=False).logits is not None
        for name, value in (("return_dict", False), ("patch_masks", labels)):
            with pytest.raises(TypeError, match=name):
                both(images, **{name: value})

    def test_loss_without_known_pixels_is_zero_with_finite_gradients(self, make_config):
        model = S4MIMForSemanticSegmentation(make_config())
        loss = model(torch.randn(2, 3, 33, 41), labels=torch.full((2, 33, 41), 255)).loss
        loss.backward()
        assert loss == 0
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

    def test_tuples_where_asked(self, make_config):
        model = S4MIMForSemanticSegmentation(make_config()).eval()
        pixel_values, labels = torch.randn(1, 3, 33, 41), torch.zeros(1, 33, 41, dtype=torch.long)
        assert len(model(pixel_values, return_dict=False)) == 1
        assert len(model(pixel_values, labels=labels, return_dict=False)) == 2

    @pytest.mark.parametrize("shape", [(3, 33, 41), (1, 1, 33, 41), (0, 3, 33, 41), (1, 3, 0, 41)])
    def test_wrong_inputs_are_one_sentence(self, make_config, shape):
        with pytest.raises(ValueError, match="pixel_values has the shape"):
            S4MIMForSemanticSegmentation(make_config())(torch.randn(*shape))

    def test_labels_of_another_size_are_one_sentence(self, make_config):
        model = S4MIMForSemanticSegmentation(make_config()).eval()
        with pytest.raises(ValueError, match=r"labels has the shape \(1, 8, 8\)"):
            model(torch.randn(1, 3, 33, 41), labels=torch.zeros(1, 8, 8, dtype=torch.long))

    def test_one_image_while_training_is_one_sentence(self, make_config):
        with pytest.raises(ValueError, match="at least 2 images"):
            S4MIMForSemanticSegmentation(make_config()).train()(torch.randn(1, 3, 64, 64))

    def test_a_value_assigned_out_of_range_is_refused(self, make_config):
        config = make_config()
        config.decoder_channels = -1
        with pytest.raises(ValueError, match="decoder_channels"):
            S4MIMForSemanticSegmentation(config)

    @pytest.mark.real
    def test_imagenet_classifier_becomes_a_backbone(self, shared_dir):
        folder = shared_dir / "weights" / "mobilenet_v2_imagenet"
        if not folder.is_dir():
            pytest.skip(f"pretrained weights are not at {folder}")
        from transformers import MobileNetV2ForImageClassification

        reference = MobileNetV2ForImageClassification.from_pretrained(folder).eval()
        model = S4MIMForSemanticSegmentation.from_pretrained_backbone(folder, num_labels=11, output_stride=16).eval()
        pixel_values = torch.randn(1, 3, 97, 129)
        with torch.no_grad():
            hidden = reference.mobilenet_v2(pixel_values, output_hidden_states=True).hidden_states[15]
            found = model.backbone(pixel_values).last[..., ::2, ::2]
        torch.testing.assert_close(found, hidden, rtol=1e-4, atol=1e-4)
        assert model.config.num_labels == 11
        assert model.config.backbone_config.num_labels == 2


HEADS = [
    {},
    {"mask_token": "zero", "mim_decoder": False},
    {"mask_token": "none", "mim_decoder": False},
    {"mim_features": "encoder", "mim_projection_channels": 6, "masked_features": "token"},
    {"mim_projection_channels": 12, "mim_depth": 1, "mim_channels": 4},
    {"mim_decoder_type": "attention", "mim_attention_stride": 56},
]


class TestSemiSupervised:
    @pytest.mark.parametrize("fields", HEADS)
    def test_the_segmenter_starts_alike_whatever_stands_beside_it(self, make_config, backbone_name, fields):
        torch.manual_seed(5)
        alone = S4MIMForSemanticSegmentation(make_config(backbone_name)).state_dict()
        torch.manual_seed(5)
        model = S4MIMForSemiSupervisedSegmentation(make_config(backbone_name, **fields))
        beside = model.segmenter.state_dict()
        assert list(alone) == list(beside)
        assert all(torch.equal(alone[key], beside[key]) for key in alone)

    @pytest.mark.parametrize("decoder", ["conv", "attention"])
    @pytest.mark.parametrize("masked_features", ["keep", "token"])
    def test_initial_weights_keep_the_scale_of_the_features(self, make_config, masked_features, decoder):
        """transformers passes over modules without parameters of their own: what sets these weights must be a leaf."""
        config = make_config(
            masked_features=masked_features, mim_channels=64, decoder_channels=64, mim_decoder_type=decoder
        )
        model = S4MIMForSemiSupervisedSegmentation(config)
        layers = [model.mim_decoder.embed, model.mim_decoder.blocks[0].expand]
        if decoder == "attention":
            layers.append(model.mim_decoder.blocks[0].query_key_value)
        else:
            assert model.mim_decoder.blocks[0].depthwise.weight.std().item() == pytest.approx(1 / 3, rel=0.1)
        for layer in layers:
            assert layer.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
            assert (layer.bias == 0).all()
        assert model.mim_decoder.predict.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert model.segmenter.decode_head.classifier.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert (model.pixel_token == 0).all()

    @pytest.mark.parametrize("decoder", ["conv", "attention"])
    @pytest.mark.parametrize("features", ["decoder", "encoder"])
    @pytest.mark.parametrize("size", [(64, 96), (65, 97)])
    def test_shapes(self, make_config, features, size, decoder):
        config = make_config(
            output_stride=16, mim_features=features, mim_projection_channels=6, mim_decoder_type=decoder
        )
        model = S4MIMForSemiSupervisedSegmentation(config)
        stride = 4 if features == "decoder" else 16
        h, w = (-(-side // stride) for side in size)
        output = model(
            torch.randn(4, 3, *size),
            patch_mask=torch.rand(2, 1, *size) < 0.5,
            class_map=torch.randint(0, 5, (2, h, w)).index_fill(1, torch.tensor([0]), 255),
        )
        assert (model.feature_stride, model.feature_channels) == (stride, 6)
        assert output.logits.shape == (4, 5, *size)
        assert output.features.shape == (2, 6, h, w)
        assert output.reconstruction.shape == (2, 3, *size)
        assert (output.reconstructed.shape, output.reconstructed.dtype) == ((2, h, w), torch.bool)
        shown = output.reconstructed.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
        shown = shown[:, None, : size[0], : size[1]]
        assert (output.reconstruction.masked_fill(shown, 0) == 0).all()
        assert 0 < output.reconstructed.sum() < output.reconstructed.numel()

    def test_tokens_of_a_stride_that_the_features_do_not_fit_are_one_sentence(self, make_config):
        config = make_config(mim_decoder_type="attention", mim_attention_stride=10)
        with pytest.raises(ValueError, match="mim_attention_stride is 10; it must be a multiple of 4, the stride"):
            S4MIMForSemiSupervisedSegmentation(config)

    @pytest.mark.parametrize("decoder", ["conv", "attention"])
    def test_every_parameter_learns(self, make_config, decoder):
        config = make_config(masked_features="token", mim_projection_channels=6, mim_decoder_type=decoder)
        model = S4MIMForSemiSupervisedSegmentation(config)
        patch_mask, feature_mask = torch.ones(2, 1, 64, 64), torch.rand(2, 1, 16, 16) < 0.5
        class_map = torch.randint(0, 5, (2, 16, 16))
        output = model(torch.randn(4, 3, 64, 64), patch_mask, feature_mask, class_map)
        (output.logits.square().mean() + output.reconstruction.square().mean()).backward()
        dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert {"pixel_token", "mim_decoder.feature_token"} < {name for name, _ in model.named_parameters()}
        assert dead == []

    def test_without_a_mask_it_is_the_segmenter(self, make_config):
        model = S4MIMForSemiSupervisedSegmentation(make_config()).eval()
        images = torch.randn(2, 3, 65, 97)
        output = model(images)
        assert torch.equal(output.logits, model.segmenter(images).logits)
        assert output.features is None
        assert output.reconstruction is None
        assert output.reconstructed is None

    @pytest.mark.parametrize("token", ["learned", "zero"])
    def test_the_last_rows_are_masked_with_the_token(self, make_config, token):
        model = S4MIMForSemiSupervisedSegmentation(make_config(mask_token=token)).eval()
        if token == "learned":
            nn.init.normal_(model.pixel_token)
        images, mask = torch.randn(3, 3, 32, 32), torch.rand(2, 1, 32, 32) < 0.5
        t = torch.zeros(3) if token == "zero" else model.pixel_token
        expected = images.clone()
        for row in range(2):
            m = mask[row].float()
            expected[row + 1] = images[row + 1] * (1 - m) + t[:, None, None] * m
        torch.testing.assert_close(model.mask_pixels(images, mask), expected)
        output = model(images, patch_mask=mask)
        assert torch.equal(output.logits, model.segmenter(model.mask_pixels(images, mask)).logits)
        assert torch.equal(
            output.features, model.segmenter.segment(model.mask_pixels(images, mask)).decoder_features[1:]
        )

    def test_projection_normalises_each_position(self, make_config):
        model = S4MIMForSemiSupervisedSegmentation(make_config(mim_projection_channels=8)).eval()
        z = model(torch.randn(2, 3, 32, 32), patch_mask=torch.zeros(2, 1, 32, 32)).features
        torch.testing.assert_close(z.mean(1), torch.zeros(2, 8, 8), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("decoder", ["conv", "attention"])
    def test_one_region_is_one_class_but_covers_what_classes_cover(self, make_config, decoder):
        # The loss of basic masked image modelling is over the same pixels as that of the class-wise one.
        model = S4MIMForSemiSupervisedSegmentation(make_config(mim_decoder_type=decoder, mim_attention_stride=8)).eval()
        images, mask = torch.randn(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
        mask[..., :16] = 1
        classes = torch.randint(0, 3, (2, 8, 8))
        classes[:, :2] = 255
        basic = model(images, mask, class_map=classes, one_region=True)
        assert torch.equal(
            basic.reconstruction, model(images, mask, class_map=torch.zeros_like(classes)).reconstruction
        )
        assert torch.equal(basic.reconstructed, model(images, mask, class_map=classes).reconstructed)
        assert not basic.reconstructed[:, :2].any()

    def test_only_what_is_asked_for_is_built(self, make_config):
        bare = S4MIMForSemiSupervisedSegmentation(make_config(mask_token="none", mim_decoder=False))
        assert all(name.startswith("segmenter.") for name in bare.state_dict())
        with pytest.raises(ValueError, match='mask_token="none"'):
            bare(torch.randn(2, 3, 32, 32), patch_mask=torch.zeros(1, 1, 32, 32))
        no_decoder = S4MIMForSemiSupervisedSegmentation(make_config(mim_decoder=False)).eval()
        with pytest.raises(ValueError, match="mim_decoder=False"):
            no_decoder(torch.randn(1, 3, 32, 32), torch.zeros(1, 1, 32, 32), class_map=torch.zeros(1, 8, 8).long())

    @pytest.mark.parametrize("shape", [(3, 1, 32, 32), (1, 1, 16, 32), (1, 3, 32, 32), (0, 1, 32, 32)])
    def test_masks_that_do_not_fit_are_one_sentence(self, make_config, shape):
        model = S4MIMForSemiSupervisedSegmentation(make_config()).eval()
        with pytest.raises(ValueError, match="patch_mask has the shape"):
            model(torch.randn(2, 3, 32, 32), patch_mask=torch.zeros(*shape))

    def test_a_class_map_without_a_mask_is_one_sentence(self, make_config):
        model = S4MIMForSemiSupervisedSegmentation(make_config()).eval()
        with pytest.raises(ValueError, match="give the patch_mask"):
            model(torch.randn(2, 3, 32, 32), class_map=torch.zeros(2, 8, 8).long())

    def test_from_segmenter_keeps_its_weights_and_checks_the_architecture(self, make_config, tmp_path):
        segmenter = S4MIMForSemanticSegmentation(make_config())
        segmenter.save_pretrained(tmp_path)
        loaded = S4MIMForSemanticSegmentation.from_pretrained(tmp_path)
        before = {key: value.clone() for key, value in loaded.state_dict().items()}
        model = S4MIMForSemiSupervisedSegmentation.from_segmenter(loaded, make_config(mim_channels=4))
        assert model.segmenter is loaded
        assert all(torch.equal(before[key], value) for key, value in model.segmenter.state_dict().items())
        assert model.segmenter.config.mim_channels == 4
        with pytest.raises(ValueError, match="another segmenter"):
            S4MIMForSemiSupervisedSegmentation.from_segmenter(loaded, make_config(decoder_channels=4))

    def test_view_groups_are_separate_passes(self, make_config):
        """One forward over three groups gives what three forwards give, and masked rows shift no running statistic."""
        model = convert_batch_norm(S4MIMForSemiSupervisedSegmentation(make_config(decoder_dropout=0))).train()
        images = torch.randn(6, 3, 64, 64)
        groups = [ViewGroup(2, True), ViewGroup(2, True), ViewGroup(2, False)]
        start = {key: value.clone() for key, value in model.state_dict().items()}
        together = model(images, patch_mask=torch.zeros(2, 1, 64, 64), view_groups=groups).logits
        after = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(start)
        separate = [model(chunk).logits for chunk in images[:4].split(2)]
        for key, value in model.state_dict().items():
            torch.testing.assert_close(after[key], value)
        separate.append(model(images[4:]).logits)
        torch.testing.assert_close(together, torch.cat(separate), rtol=1e-4, atol=1e-5)
        # One chunk of a single image cannot be normalised.
        with pytest.raises(ValueError, match="at least 2 images"):
            model(images, view_groups=[ViewGroup(1, True), ViewGroup(5, True)])
