"""Attention within classes against a loop over images and classes: outputs, gradients, independence, odd sizes."""

from __future__ import annotations

import pytest
import torch
from attention_by_class import cell_classes, reference, ungated
from held_memory import held_bytes
from loop_comparison import assert_equals_the_loop, assert_float32_equals_the_loop

from s4mim_hf.modeling import mim_attention
from s4mim_hf.modeling.mim_attention import (
    AttentionDecoder,
    _attention_by_chunks,
    _attention_by_matrix,
    majority_class,
    sort_by_class,
)

STRIDE, TOKEN = 4, 12
SIDE = TOKEN // STRIDE


def decoder(masked_features: str = "keep", attention: str = "auto", token_patch: int = TOKEN) -> AttentionDecoder:
    model = AttentionDecoder(
        5,
        channels=6,
        depth=2,
        heads=2,
        expansion=2,
        patch=STRIDE,
        token_patch=token_patch,
        masked_features=masked_features,
        attention=attention,
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def class_maps(classes: int = 3) -> torch.Tensor:
    """Return (4, 10, 14), sizes that tokens do not divide: blobs with unknown positions, noise, one class, unknown."""
    blobs = torch.randint(0, classes, (5, 7)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    blobs[torch.rand(10, 14) < 0.2] = 255
    blobs[:3, 3:6] = 255
    noise = torch.randint(0, classes, (10, 14))
    return torch.stack([blobs, noise, torch.full((10, 14), 1), torch.full((10, 14), 255)])


def images(maps: torch.Tensor) -> torch.Tensor:
    return torch.randn(len(maps), 5, *maps.shape[1:], dtype=torch.float64)


@pytest.fixture(params=[3, 128])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the queries of an image in several chunks, or in one."""
    monkeypatch.setattr(mim_attention, "QUERY_CHUNK", request.param)


@pytest.mark.usefixtures("_chunks")
def test_one_pass_equals_the_loop_over_classes_in_outputs_and_gradients():
    maps = class_maps()
    assert_equals_the_loop(decoder(), reference, images(maps), maps)


def test_float32_agrees_to_1e_5_under_mean_reduction():
    maps = class_maps()
    # Features that float32 holds exactly, so that only the arithmetic differs.
    assert_float32_equals_the_loop(decoder(), decoder(), reference, images(maps).float(), maps)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_no_class_sees_another_by_exactly_nothing(value):
    model, maps = decoder(), class_maps()
    features = images(maps)
    before = model(features, maps)
    after = model(torch.where((maps == 1)[:, None], value, features), maps)
    for one in (0, 2, 255):
        inside = (up(maps) == one)[:, None].expand_as(before)
        assert torch.equal(before[inside], after[inside])
    assert not torch.equal(before, after)


def test_no_image_sees_another_by_exactly_nothing():
    model, maps = decoder(), class_maps()
    features = images(maps)
    before = model(features, maps)
    features[0] = torch.randn_like(features[0])
    assert torch.equal(before[1:], model(features, maps)[1:])


def test_gradients_of_one_class_are_independent_of_another_with_infinities():
    model, maps = decoder(), class_maps()
    features = images(maps)
    wild = torch.where((maps == 1)[:, None], float("inf"), features)
    inside = (up(maps) == 0)[:, None]
    grads = []
    for z in (features, wild):
        z = z.clone().requires_grad_()
        model(z, maps).masked_fill(~inside, 0).sum().backward()
        grads.append(z.grad)
    where = (maps == 0)[:, None].expand_as(features)
    assert torch.equal(grads[0][where], grads[1][where])


def test_what_is_broken_breaks_its_own_pixels_only():
    model, maps = decoder(), torch.zeros(1, 6, 6, dtype=torch.long)
    features = images(maps)
    features[0, 0, 0, 0] = float("nan")
    output = model(features, maps)
    assert output[..., :TOKEN, :TOKEN].isnan().all()
    output[..., :TOKEN, :TOKEN] = 0
    assert output.isfinite().all()


def up(class_map: torch.Tensor) -> torch.Tensor:
    return class_map.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)


def test_covered_positions_are_those_of_their_tokens_class_and_all_others_are_zero():
    model, maps = decoder(), class_maps()
    covered = model.covered(maps)
    for found, ids in zip(covered.tolist(), maps.tolist(), strict=True):
        cells = cell_classes(ids, SIDE)
        for row, line in enumerate(ids):
            for column, one in enumerate(line):
                assert found[row][column] == (one != 255 and cells[row // SIDE, column // SIDE] == one)
    assert covered[2].all()
    assert not covered[3].any()
    features = images(maps).requires_grad_()
    output = model(features, maps)
    shown = up(covered.int()).bool()[:, None]
    assert (output.masked_fill(shown, 0) == 0).all()
    assert (output.abs().sum(1, keepdim=True) > 0).masked_fill(~shown, True).all()
    output.square().sum().backward()
    assert (features.grad.masked_fill(covered[:, None], 0) == 0).all()


def test_an_image_without_known_positions_gives_finite_zero_gradients():
    model, maps = decoder(), torch.full((2, 10, 14), 255)
    features = images(maps).requires_grad_()
    output = model(features, maps)
    assert (output == 0).all()
    output.square().sum().backward()
    assert (features.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


@pytest.mark.parametrize(("size", "token_patch"), [((1, 1), 12), ((2, 5), 12), ((12, 9), 4), ((3, 3), 20)])
def test_sizes_that_tokens_do_not_divide(size, token_patch):
    model = decoder(token_patch=token_patch)
    maps = torch.randint(0, 2, (2, *size))
    maps[0, 0, 0] = 255
    features = images(maps)
    output = model(features, maps)
    assert output.shape == (2, 3, size[0] * STRIDE, size[1] * STRIDE)
    torch.testing.assert_close(output, reference(model, features, maps), rtol=0, atol=1e-10)


def test_with_one_region_it_is_the_ordinary_decoder():
    model, maps = decoder(), torch.zeros(2, 9, 12, dtype=torch.long)
    features = images(maps)
    torch.testing.assert_close(model(features, maps), ungated(model, features), rtol=0, atol=1e-10)


@pytest.mark.parametrize("classes", [1, 2, 30])
def test_memory_held_for_the_backward_is_near_the_ungated_decoders(classes):
    model = AttentionDecoder(32, channels=32, depth=4, heads=2, expansion=2, patch=4, token_patch=8)
    features, maps = torch.randn(1, 32, 48, 48), torch.randint(0, classes, (1, 48, 48))
    assert held_bytes(lambda: model(features, maps), model) < 1.5 * held_bytes(lambda: ungated(model, features), model)


def test_the_majority_of_a_cell_counts_known_positions_and_takes_the_smallest_of_equals():
    cells = torch.tensor([[3, 3, 1, 255], [2, 1, 255, 255], [255, 255, 255, 7], [255] * 4, [0, 254, 254, 0]])
    assert majority_class(cells).tolist() == [3, 1, 7, 255, 0]


def test_sorted_tokens_see_the_run_of_their_class_and_unknown_ones_themselves():
    sight = sort_by_class(torch.tensor([[7, 255, 2, 7, 255, 2, 7]]))
    assert sight.order.tolist() == [[2, 5, 0, 3, 6, 1, 4]]
    assert sight.first.tolist() == [[0, 0, 2, 2, 2, 5, 6]]
    assert sight.last.tolist() == [[2, 2, 5, 5, 5, 6, 7]]


def test_token_hides_masked_features():
    model, maps = decoder("token"), class_maps()
    features = images(maps)
    mask = torch.rand(4, 1, 10, 14) < 0.5
    changed = torch.where(mask, torch.randn_like(features), features)
    assert torch.equal(model(features, maps, mask), model(changed, maps, mask))
    explicit = torch.where(mask, model.feature_token[None, :, None, None], features)
    torch.testing.assert_close(model(features, maps, mask), reference(model, explicit, maps), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="feature_mask"):
        model(features, maps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_forward_and_backward_under_autocast(dtype):
    model, maps = decoder().float(), class_maps()
    features = images(maps).float().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        output = model(features, maps)
    output.float().square().mean().backward()
    assert features.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.usefixtures("_chunks")
def test_one_matrix_of_pairs_as_for_other_devices_gives_the_same():
    sight = sort_by_class(torch.tensor([[7, 255, 2, 7, 255, 2, 7], [1] * 7, [255] * 7, [0, 1, 2, 3, 4, 5, 6]]))
    given = torch.randn(3, 4, 2, 7, 5, dtype=torch.float64)
    ways = (_attention_by_chunks(sight, torch.float64), _attention_by_matrix(sight, torch.float64))
    results = []
    for attention in ways:
        inputs = given.clone().requires_grad_()
        output = attention(*inputs.unbind())
        output.square().sum().backward()
        results.append((output, inputs.grad))
        # Places 2 to 4 of the first image are class 7, and see nothing of the others.
        changed = given.clone()
        changed[:, 0, :, [0, 1, 5, 6]] = 1e6
        assert torch.equal(attention(*changed.unbind())[0, :, 2:5], output[0, :, 2:5])
    for chunks, matrix in zip(*results, strict=True):
        torch.testing.assert_close(chunks, matrix, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_same():
    """Uncompiled and without a backward, which a CPU has not; `auto` takes the other one here."""
    maps = class_maps()
    features, models = images(maps).float(), [decoder(attention=name).float() for name in ("flex", "sdpa", "auto")]
    for model in models:
        model.load_state_dict(models[0].state_dict())
    with torch.no_grad():
        flex, sdpa, auto = (model(features, maps) for model in models)
    torch.testing.assert_close(flex, sdpa, rtol=1e-5, atol=1e-5)
    assert torch.equal(auto, sdpa)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention learns on CUDA only")
def test_compiled_flex_attention_gives_the_same_gradients():
    maps = class_maps().cuda()
    results = []
    for name in ("flex", "sdpa"):
        torch.manual_seed(1)
        model = AttentionDecoder(
            5, channels=32, depth=2, heads=2, expansion=2, patch=STRIDE, token_patch=TOKEN, attention=name
        ).cuda()
        z = torch.linspace(-1, 1, maps.numel() * 5, device="cuda").view(len(maps), 5, *maps.shape[1:]).requires_grad_()
        output = model(z, maps)
        output.square().mean().backward()
        results.append((output, z.grad, *(parameter.grad for parameter in model.parameters())))
    for flex, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(flex, sdpa, rtol=1e-3, atol=1e-4)
