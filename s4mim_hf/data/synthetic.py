"""The embedded demonstration data: small textured scenes, drawn from a seed, for runs that need no download.

A scene has two or three regions of ground (grass, sand, water, brick) and several objects in front of each other
(balls, crates, bushes). A class is its texture and shape: colours overlap strongly between classes, and the light
differs from scene to scene (gradient, colour cast, gamma, noise). Outlines of objects are void (255), as is usual.

H = W = 128. Coordinates are pixels; fields are float64 (H, W); colours are float RGB in [0, 1].
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from s4mim_hf.randomness import derive_seed

SIZE = 128
IGNORE_INDEX = 255
CLASSES = ("grass", "sand", "water", "brick", "ball", "crate", "bush")
PALETTE = (
    (124, 182, 72),
    (224, 196, 124),
    (64, 132, 214),
    (178, 84, 64),
    (238, 96, 184),
    (128, 88, 44),
    (24, 98, 56),
)
SPLIT_SIZES = {"labeled": 16, "unlabeled": 256, "validation": 64}

GROUNDS = (0, 1, 2, 3)
OBJECTS = (4, 5, 6)
# Mean and spread of each class's hue, in turns; a ball has any. They overlap on purpose.
HUES = ((0.24, 0.08), (0.11, 0.06), (0.48, 0.12), (0.05, 0.07), (0.5, 1.0), (0.09, 0.06), (0.28, 0.10))
# How often a class borrows the hue of any other, so that no colour is proof.
BORROWED_HUE = 0.25

Rng = np.random.Generator
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


def synthetic_splits(seed: int = 0, all_labels: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Render the three splits; every scene has a generator of its own, so one seed always gives the same data.

    Args:
        seed: any integer.
        all_labels: whether the unlabelled scenes join the labelled ones, with their labels.

    Returns:
        lists of rows {"id": str, "image": PNG bytes, "label": PNG bytes of 8-bit ids} for "labeled" (16; 272 with all
        labels) and "validation" (64); rows of "unlabeled" (256; none with all labels) have no label.
    """
    labeled, unlabeled = synthetic_split("labeled", seed), synthetic_split("unlabeled", seed, with_labels=all_labels)
    if all_labels:
        labeled, unlabeled = labeled + unlabeled, []
    return {"labeled": labeled, "unlabeled": unlabeled, "validation": synthetic_split("validation", seed)}


def synthetic_ids(seed: int = 0, all_labels: bool = False) -> dict[str, list[str]]:
    """Return the ids of `synthetic_splits`; nothing is rendered."""
    ids = {split: [scene_id(split, seed, index) for index in range(size)] for split, size in SPLIT_SIZES.items()}
    return {**ids, "labeled": ids["labeled"] + ids["unlabeled"], "unlabeled": []} if all_labels else ids


def scene_id(split: str, seed: int, index: int) -> str:
    """Return the id of one scene; other seeds' scenes have others, and so another split hash."""
    return f"{split}_{seed}_{index:03d}"


def synthetic_split(split: str, seed: int = 0, with_labels: bool = False) -> list[dict[str, Any]]:
    """Render one split alone, as `synthetic_splits` has it.

    Args:
        split: a key of `SPLIT_SIZES`.
        seed: any integer.
        with_labels: whether scenes of "unlabeled" have their labels too; the others always do.
    """
    rows = []
    for index in range(SPLIT_SIZES[split]):
        image, label = render_scene(np.random.default_rng(derive_seed(seed, f"synthetic-{split}", index)))
        row = {"id": scene_id(split, seed, index), "image": _png(image)}
        rows.append(row if split == "unlabeled" and not with_labels else {**row, "label": _png(label)})
    return rows


def render_scene(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene.

    Args:
        rng: the only source of randomness.

    Returns:
        the image uint8 (H, W, 3), RGB, and its label map uint8 (H, W), ids of `CLASSES` or 255 on objects' outlines.
    """
    image, label = _ground(rng)
    for _ in range(rng.integers(3, 6)):
        class_id = int(rng.choice(OBJECTS))
        image, label = _put_object(rng, class_id, image, label)
    return _light(rng, image), label


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _ground(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Divide the scene into regions nearest to random points, with wavy borders, each with a texture of its own."""
    classes = rng.permutation(GROUNDS)[: rng.integers(2, 4)]
    points = rng.uniform(0.1, 0.9, (len(classes), 2)) * SIZE
    wave = 14 * _smooth(rng, 6), 14 * _smooth(rng, 6)
    distances = [np.hypot(ROWS + wave[0] - row, COLUMNS + wave[1] - column) for row, column in points]
    region = np.argmin(distances, axis=0)
    image = np.zeros((SIZE, SIZE, 3))
    for index, class_id in enumerate(classes):
        inside = region == index
        image[inside] = _paint(rng, int(class_id), TEXTURES[class_id](rng))[inside]
    return image, classes[region].astype(np.uint8)


def _put_object(rng: Rng, class_id: int, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw one object over the scene, with its shadow and a void outline two pixels wide."""
    row, column = rng.uniform(0.08, 0.92, 2) * SIZE
    radius = rng.uniform(11, 26)
    inside, texture = SHAPES[class_id](rng, ROWS - row, COLUMNS - column, radius)
    down, right = rng.integers(1, 5, 2)
    shadow = np.zeros_like(inside)
    shadow[down:, right:] = inside[:-down, :-right]
    image = np.where(shadow[..., None], 0.72 * image, image)
    image = np.where(inside[..., None], _paint(rng, class_id, texture), image)
    label = np.where(inside, np.uint8(class_id), label)
    return image, np.where(_outline(inside), np.uint8(IGNORE_INDEX), label)


def _outline(inside: np.ndarray) -> np.ndarray:
    """Return where a pixel and one of its four neighbours lie on different sides of an outline, bool (H, W)."""
    outline = np.zeros_like(inside)
    across, along = inside[1:] != inside[:-1], inside[:, 1:] != inside[:, :-1]
    outline[1:] |= across
    outline[:-1] |= across
    outline[:, 1:] |= along
    outline[:, :-1] |= along
    return outline


def _paint(rng: Rng, class_id: int, texture: np.ndarray) -> np.ndarray:
    """Blend two related colours of a class by its texture (float (H, W), 0 the darker, 1 the lighter)."""
    source = rng.integers(len(CLASSES)) if rng.random() < BORROWED_HUE else class_id
    mean, spread = HUES[source]
    hue, saturation, value = rng.normal(mean, spread), rng.uniform(0.12, 0.6), rng.uniform(0.5, 0.9)
    dark = _color(hue + rng.normal(0, 0.02), saturation + 0.1, value * rng.uniform(0.45, 0.7))
    light = _color(hue, saturation, value)
    return dark + np.clip(texture, 0, 1.2)[..., None] * (light - dark)


def _color(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), value))


def _smooth(rng: Rng, rows: int, columns: int | None = None) -> np.ndarray:
    """Return noise in about [-1, 1]: `rows` by `columns` (`rows` where None) independent values, interpolated."""
    values = rng.uniform(-1, 1, (rows, columns or rows)).astype(np.float32)
    return np.asarray(Image.fromarray(values).resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float64)


def _rotated(rows: np.ndarray, columns: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * rows - sine * columns, sine * rows + cosine * columns


def _grass(rng: Rng) -> np.ndarray:
    """Upright blades: noise that is fine across and coarse along."""
    blades = _smooth(rng, int(rng.integers(12, 20)), int(rng.integers(52, 72)))
    return 0.5 + 0.55 * blades + 0.2 * _smooth(rng, 8)


def _sand(rng: Rng) -> np.ndarray:
    """Single grains on faint, wide dunes."""
    return 0.6 + 0.22 * rng.uniform(-1, 1, (SIZE, SIZE)) + 0.25 * _smooth(rng, 7)


def _water(rng: Rng) -> np.ndarray:
    """Level waves, bent and of uneven height."""
    length = rng.uniform(6, 11)
    phase = 2 * np.pi * (ROWS + 4 * _smooth(rng, 9, 6)) / length
    return 0.5 + (0.35 + 0.2 * _smooth(rng, 8)) * np.sin(phase)


def _brick(rng: Rng) -> np.ndarray:
    """Courses of bricks, each shifted by half a brick, with mortar lines; each brick has a tone of its own."""
    height = rng.uniform(7, 11)
    width = height * rng.uniform(1.8, 2.4)
    rows, columns = _rotated(ROWS + 3 * height, COLUMNS + 3 * width, rng.normal(0, 0.06))
    course = np.floor(rows / height).astype(int)
    across = columns / width + 0.5 * (course % 2)
    mortar = (rows % height < 1.6) | ((across % 1) * width < 1.6)
    tones = rng.uniform(-0.2, 0.2, (64, 64))[course % 64, np.floor(across).astype(int) % 64]
    return np.where(mortar, 1.15, 0.45 + tones) + 0.06 * rng.uniform(-1, 1, (SIZE, SIZE))


def _ball(rng: Rng, rows: np.ndarray, columns: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a round, glossy ball lit from one side, with bands or plain."""
    radius = 0.85 * radius
    inside = np.hypot(rows, columns) < radius
    depth = np.sqrt(np.maximum(0, 1 - (rows**2 + columns**2) / radius**2))
    angle = rng.uniform(0, 2 * np.pi)
    facing = 0.55 * (np.cos(angle) * rows + np.sin(angle) * columns) / radius + 0.75 * depth
    bands = 0.3 * (np.sin(rng.uniform(3, 6) * _rotated(rows, columns, rng.uniform(0, np.pi))[0] / radius) > 0)
    return inside, facing - (bands if rng.random() < 0.5 else 0)


def _crate(rng: Rng, rows: np.ndarray, columns: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a tilted box of planks with dark gaps, in a light frame."""
    rows, columns = _rotated(rows, columns, rng.normal(0, 0.35))
    half_height, half_width = radius * rng.uniform(0.65, 1.0, 2)
    inside = (np.abs(rows) < half_height) & (np.abs(columns) < half_width)
    plank = rng.uniform(5, 8)
    gap = (columns % plank) < 1.5
    frame = (np.abs(rows) > half_height - 3.5) | (np.abs(columns) > half_width - 3.5)
    grain = 0.12 * _smooth(rng, 10, 64)
    return inside, np.where(frame, 0.95, np.where(gap, 0.0, 0.6)) + grain


def _bush(rng: Rng, rows: np.ndarray, columns: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a lobed outline filled with blotchy leaves."""
    angle = np.arctan2(rows, columns)
    lobes = sum(rng.uniform(0.03, 0.12) * np.sin(count * angle + rng.uniform(0, 2 * np.pi)) for count in (3, 5, 8))
    inside = np.hypot(rows, columns) < radius * (1 + lobes)
    leaves = _smooth(rng, int(rng.integers(30, 42)))
    return inside, 0.5 + 0.5 * np.tanh(4 * leaves) - 0.2 * rows / radius


TEXTURES: tuple[Callable[[Rng], np.ndarray], ...] = (_grass, _sand, _water, _brick)
SHAPES: dict[int, Callable[[Rng, np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]] = {
    4: _ball,
    5: _crate,
    6: _bush,
}


def _light(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Light the scene: a gradient of brightness, a colour cast, a gamma curve and noise; then round to 8 bits."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.45)
    across = (np.cos(angle) * (ROWS / SIZE - 0.5) + np.sin(angle) * (COLUMNS / SIZE - 0.5))[..., None]
    lit = image * (1 + strength * 2 * across) * rng.uniform(0.85, 1.15, 3) * rng.uniform(0.75, 1.1)
    curved = np.clip(lit, 0, 1) ** rng.uniform(0.75, 1.35)
    noisy = curved + rng.normal(0, rng.uniform(0.005, 0.04), image.shape)
    return np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)
