"""Masks and class maps against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from s4mim_hf.masking import (
    class_balanced_grid,
    downsample_class_map,
    downsample_mask,
    draw_patch_grid,
    draw_patch_scores,
    expand_grid,
    known_class_map,
)

SIZES = [(64, 64, 16), (65, 97, 16), (321, 321, 32), (33, 32, 32), (7, 50, 8)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("height", "width", "patch"), SIZES)
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.6, 0.9])
def test_masked_share_is_the_asked_one_to_within_a_patch_in_each_image(
    height: int, width: int, patch: int, ratio: float
) -> None:
    grid = draw_patch_grid(20, height, width, patch, ratio, seeded())
    mask = expand_grid(grid, patch, height, width)
    assert mask.shape == (20, height, width)
    masked = mask.flatten(1).sum(1)
    assert (masked - ratio * height * width).abs().max() <= patch * patch / 2


def test_nothing_and_everything_can_be_masked() -> None:
    assert not draw_patch_grid(3, 65, 33, 16, 0.0, seeded()).any()
    assert draw_patch_grid(3, 65, 33, 16, 1.0, seeded()).all()


def test_same_seed_same_masks_and_no_other_randomness() -> None:
    torch.manual_seed(1)
    first = draw_patch_grid(4, 64, 64, 8, 0.6, seeded(5))
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, draw_patch_grid(4, 64, 64, 8, 0.6, seeded(5)))
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(first, draw_patch_grid(4, 64, 64, 8, 0.6, seeded(6)))
    assert not torch.equal(first[0], first[1])


def test_every_patch_is_masked_equally_often() -> None:
    frequency = draw_patch_grid(4000, 64, 64, 16, 0.5, seeded()).float().mean(0)
    # Five standard deviations of a share of 4000 draws.
    assert (frequency - 0.5).abs().max() < 5 * math.sqrt(0.25 / 4000)


def balanced_by_loop(classes: list[int], ratio: float, scores: list[float]) -> list[bool]:
    """The masked patches of one image, class by class."""
    masked = [False] * len(classes)
    for name in set(classes):
        patches = sorted((p for p, other in enumerate(classes) if other == name), key=scores.__getitem__)
        if len(patches) == 1:
            masked[patches[0]] = scores[patches[0]] < ratio
            continue
        for patch in patches[: min(max(round(ratio * len(patches)), 1), len(patches) - 1)]:
            masked[patch] = True
    return masked


def some_patch_classes(batch: int, rows: int, columns: int) -> torch.Tensor:
    """Classes of very different sizes, the highest ids that there are, and unknown patches."""
    classes = torch.tensor([0, 0, 0, 0, 3, 3, 149, 254, 255, 255])
    return classes[torch.randint(0, len(classes), (batch, rows, columns), generator=seeded(2))]


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.6, 0.9, 1.0])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (4, 4), (7, 9)])
def test_class_balanced_masks_equal_a_loop(rows: int, columns: int, ratio: float) -> None:
    classes = some_patch_classes(6, rows, columns)
    scores = draw_patch_scores(6, 8 * rows, 8 * columns, 8, seeded())
    found = class_balanced_grid(classes, ratio, scores)
    assert found.shape == classes.shape
    assert found.dtype == torch.bool
    for image in range(6):
        expected = balanced_by_loop(classes[image].flatten().tolist(), ratio, scores[image].flatten().tolist())
        assert found[image].flatten().tolist() == expected


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.6, 0.95])
def test_class_balanced_masks_keep_both_parts_of_each_class_and_the_ratio_within_a_patch(ratio: float) -> None:
    classes = some_patch_classes(20, 6, 7)
    grid = class_balanced_grid(classes, ratio, draw_patch_scores(20, 96, 112, 16, seeded()))
    for image in range(20):
        # 255, the unknown patches, is a group as the others are.
        for name in classes[image].unique().tolist():
            group = grid[image][classes[image] == name]
            assert abs(int(group.sum()) - ratio * len(group)) < 1
            if len(group) >= 2:
                assert group.any()
                assert not group.all()


def test_class_balanced_masks_follow_the_seed_and_mask_every_patch_equally_often() -> None:
    classes = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1], [2, 255, 255, 255]]).expand(4000, 3, 4)

    def draw(seed: int) -> torch.Tensor:
        return class_balanced_grid(classes, 0.5, draw_patch_scores(4000, 48, 64, 16, seeded(seed)))

    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))
    # Of three patches one and a half cannot be masked: rounded to an even number, two are.
    expected = torch.tensor([[0.5] * 4, [0.5] * 4, [0.5, 2 / 3, 2 / 3, 2 / 3]])
    assert (draw(5).float().mean(0) - expected).abs().max() < 5 * math.sqrt(0.25 / 4000)


def test_a_class_keeps_its_masks_whatever_the_other_classes_are() -> None:
    scores = draw_patch_scores(1, 64, 64, 16, seeded())
    classes = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]]])
    others = torch.where(classes == 2, 2, torch.tensor([[[5], [6], [0], [0]]]))
    first, second = class_balanced_grid(classes, 0.6, scores), class_balanced_grid(others, 0.6, scores)
    assert torch.equal(first[classes == 2], second[classes == 2])


def test_patch_scores_cover_a_crop_that_the_patch_does_not_divide() -> None:
    scores = draw_patch_scores(2, 65, 33, 16, seeded())
    assert scores.shape == (2, 5, 3)
    assert scores.min() >= 0
    assert scores.max() < 1


def test_expanding_repeats_each_entry_over_its_square() -> None:
    grid = torch.arange(6).view(1, 2, 3)
    expanded = expand_grid(grid, 4, 7, 10)
    assert expanded.shape == (1, 7, 10)
    assert all(expanded[0, i, j] == grid[0, i // 4, j // 4] for i in range(7) for j in range(10))


@pytest.mark.parametrize(("height", "width", "stride"), [(16, 16, 4), (17, 22, 4), (3, 2, 4), (33, 9, 8)])
def test_a_position_is_masked_when_half_of_its_pixels_are(height: int, width: int, stride: int) -> None:
    mask = torch.rand(2, 1, height, width, generator=seeded()) < 0.5
    mask[:, :, :2, : stride // 2] = True
    found = downsample_mask(mask, stride)
    assert found.shape == (2, 1, math.ceil(height / stride), math.ceil(width / stride))
    for b, _, i, j in torch.ones_like(found).nonzero().tolist():
        cell = mask[b, 0, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
        assert bool(found[b, 0, i, j]) == (2 * int(cell.sum()) >= cell.numel())


@pytest.mark.parametrize(("height", "width", "stride"), [(16, 16, 4), (17, 22, 4), (3, 2, 4), (9, 33, 8), (5, 6, 1)])
@pytest.mark.parametrize("mode", ["majority", "nearest"])
def test_class_map_downsampling_equals_a_loop(height: int, width: int, stride: int, mode: str) -> None:
    class_map = torch.randint(0, 4, (2, height, width), generator=seeded())
    class_map = torch.where(torch.rand(2, height, width, generator=seeded(1)) < 0.6, 255, class_map)
    class_map[:, :stride, :stride] = 255
    found = downsample_class_map(class_map, stride, 4, mode=mode)  # type: ignore[arg-type]
    assert found.shape == (2, math.ceil(height / stride), math.ceil(width / stride))
    for b, i, j in torch.ones_like(found).nonzero().tolist():
        if mode == "nearest":
            row, column = (min(p * stride + stride // 2, n - 1) for p, n in ((i, height), (j, width)))
            expected = int(class_map[b, row, column])
        else:
            cell = class_map[b, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            known = cell[cell != 255].tolist()
            # Among equals the smallest id: max() keeps the first of equal counts.
            expected = max(range(4), key=known.count) if known else 255
        assert int(found[b, i, j]) == expected


def test_one_known_pixel_decides_among_unknown_ones() -> None:
    class_map = torch.full((1, 4, 4), 255)
    class_map[0, 3, 3] = 2
    assert downsample_class_map(class_map, 4, 5).tolist() == [[[2]]]


def test_class_map_is_known_where_confident_and_no_padding() -> None:
    pseudo = torch.tensor([[[0, 1, 2, 3]]])
    confidence = torch.tensor([[[0.9, 0.95, 0.99, 0.94]]])
    valid = torch.tensor([[[True, True, False, True]]])
    assert known_class_map(pseudo, confidence, valid, 0.95).tolist() == [[[255, 1, 255, 255]]]
