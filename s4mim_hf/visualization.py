"""Pictures: class maps in colours, overlays with their legend, panels of a training run, and its curves.

Shapes: H, W are an image's height and width; pictures are uint8 (H, W, 3) RGB, labels integer (H, W) class ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

_WHITE: Color = (255, 255, 255)
_HATCH: Color = (190, 190, 190)
_INK: Color = (30, 30, 30)
_CELL_WIDTH = 320
_GAP = 6


@dataclass(frozen=True)
class PanelRow:
    """One image of a panel. Pictures are uint8 (H, W, 3), class maps integer (H, W); None leaves a cell empty.

    `class_map` is the one that the reconstruction decoder was given, at the image's size.
    """

    image: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray
    masked: np.ndarray | None = None
    reconstruction: np.ndarray | None = None
    class_map: np.ndarray | None = None


def colorize(label: np.ndarray, palette: Sequence[Color], ignore_index: int = 255) -> np.ndarray:
    """Paint a class map: uint8 (H, W, 3). Ignored pixels, and ids without a colour, are white with grey hatching."""
    ids = np.asarray(label).astype(np.int64)
    height, width = ids.shape
    rows, columns = np.ogrid[:height, :width]
    picture = np.full((height, width, 3), _WHITE, dtype=np.uint8)
    picture[(rows + columns) % 8 < 2] = _HATCH
    known = (ids != ignore_index) & (ids >= 0) & (ids < len(palette))
    picture[known] = np.asarray(palette, dtype=np.uint8)[ids[known]]
    return picture


def overlay(
    image: np.ndarray, label: np.ndarray, palette: Sequence[Color], opacity: float = 0.55, ignore_index: int = 255
) -> np.ndarray:
    """Lay a class map's colours over its image: uint8 (H, W, 3). Ignored pixels show the image as it is.

    Args:
        image: uint8 (H, W, 3).
        label: class ids (H, W).
        palette: colour of each class.
        opacity: of the colours, 0 (the image alone) to 1 (the colours alone).
        ignore_index: the id that is not painted.
    """
    if image.shape[:2] != label.shape:
        raise ValueError(
            f"the image has {image.shape[:2]} pixels and the class map {label.shape}; give one of its size"
        )
    painted = colorize(label, palette, ignore_index).astype(np.float32)
    mixed = (1 - opacity) * image.astype(np.float32) + opacity * painted
    known = (label != ignore_index)[..., None]
    return np.where(known, mixed.round().clip(0, 255).astype(np.uint8), image)


def legend(
    id2label: Mapping[int, str], palette: Sequence[Color], width: int, ids: Sequence[int], size: int = 14
) -> np.ndarray:
    """Draw names and colours of the classes `ids`: a strip uint8 (h, width, 3), as high as its lines need.

    An id without a name is shown as "ignored", hatched as `colorize` paints it. `size` is the text's, in pixels.
    """
    pad = round(size / 3)
    font = _font(size)
    room = max(1, width - size - 4 * pad)
    names = [_shorten(id2label.get(index, "ignored"), font, room) for index in ids]
    placed: list[tuple[int, int]] = []
    left, line = pad, 0
    for name in names:
        needed = size + 3 * pad + round(font.getlength(name))
        if left > pad and left + needed > width:
            left, line = pad, line + 1
        placed.append((left, line))
        left += needed + pad
    step = size + 2 * pad
    strip = Image.new("RGB", (width, (line + 1) * step + pad), _WHITE)
    draw = ImageDraw.Draw(strip)
    for index, name, (left, line) in zip(ids, names, placed, strict=True):
        top = pad + line * step
        # Unnamed ids take the hatching, whatever their number.
        swatch = np.full((size, size), index if index in id2label else -1)
        strip.paste(Image.fromarray(colorize(swatch, palette)), (left, top))
        draw.rectangle((left, top, left + size - 1, top + size - 1), outline=_INK)
        draw.text((left + size + pad, top + size / 2), name, fill=_INK, font=font, anchor="lm")
    return np.asarray(strip)


def with_legend(
    picture: np.ndarray, label: np.ndarray, id2label: Mapping[int, str], palette: Sequence[Color]
) -> np.ndarray:
    """Put below a picture (H, W, 3) the legend of its class map's (H, W) classes: uint8 (H + h, max(W, 160), 3)."""
    width = max(picture.shape[1], 160)
    strip = legend(id2label, palette, width, np.unique(label).tolist())
    canvas = np.full((picture.shape[0] + strip.shape[0], width, 3), 255, dtype=np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    canvas[picture.shape[0] :] = strip
    return canvas


def draw_panels(
    rows: Sequence[PanelRow],
    id2label: Mapping[int, str],
    palette: Sequence[Color],
    path: str | Path,
    ignore_index: int = 255,
    note: str = "",
) -> None:
    """Write one PNG: a row per image, a headed column per kind of picture, the classes' legend below.

    Columns that no row has (such as the reconstruction in a run without one) are left out; see `draw_grid`.
    """
    cells = [
        {
            "image": row.image,
            "truth": row.truth,
            "prediction": row.prediction,
            "class map of the decoder": row.class_map,
            "masked": row.masked,
            "reconstruction": row.reconstruction,
        }
        for row in rows
    ]
    draw_grid(cells, id2label, palette, path, ignore_index=ignore_index, note=note)


def draw_grid(
    rows: Sequence[Mapping[str, np.ndarray | None]],
    id2label: Mapping[int, str],
    palette: Sequence[Color],
    path: str | Path,
    *,
    ignore_index: int = 255,
    note: str = "",
    text_size: int = 16,
) -> None:
    """Write one PNG of pictures in rows and headed columns, with the legend of all class maps in it.

    Args:
        rows: by heading, the same headings in all: a picture uint8 (H, W, 3), a class map integer (H, W), or None for
            an empty cell; the first cell of a row is a picture or a map and gives the row its shape. A column without
            any picture is left out.
        id2label: class names.
        palette: class colours.
        path: where the PNG goes.
        ignore_index: the id of unknown pixels.
        note: a line below the legend; none where empty.
        text_size: height of the headings in pixels; the rest is a little smaller.
    """
    headings = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    shapes = [next(cell for cell in row.values() if cell is not None).shape for row in rows]
    heights = [max(1, round(_CELL_WIDTH * shape[0] / shape[1])) for shape in shapes]
    width, heading = len(headings) * (_CELL_WIDTH + _GAP) + _GAP, 2 * text_size
    maps = [cell for row in rows for cell in row.values() if cell is not None and cell.ndim == 2]
    ids = sorted({int(index) for cell in maps for index in np.unique(cell)})
    strips = [legend(id2label, palette, width, ids, text_size - 2)] if ids else []
    strips += [_text_line(note, width, text_size - 2)] if note else []
    body = heading + sum(heights) + _GAP * len(rows)
    canvas = Image.new("RGB", (width, body + sum(len(strip) for strip in strips)), _WHITE)
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(headings):
        left, top = _GAP + column * (_CELL_WIDTH + _GAP), heading
        draw.text((left + _CELL_WIDTH / 2, heading / 2), name, fill=_INK, font=_font(text_size), anchor="mm")
        for row, height in zip(rows, heights, strict=True):
            cell = row[name]
            if cell is not None:
                canvas.paste(_fitted(cell, height, palette, ignore_index), (left, top))
            top += height + _GAP
    for strip in strips:
        canvas.paste(Image.fromarray(strip), (0, body))
        body += len(strip)
    save_png(canvas, Path(path))


def _fitted(cell: np.ndarray, height: int, palette: Sequence[Color], ignore_index: int) -> Image.Image:
    """Bring a picture, or a class map in its colours, to a cell's size."""
    # Class colours must not mix at borders.
    filtering = Image.Resampling.NEAREST if cell.ndim == 2 else Image.Resampling.BILINEAR
    picture = colorize(cell, palette, ignore_index) if cell.ndim == 2 else cell
    return Image.fromarray(picture).resize((_CELL_WIDTH, height), filtering)


def _text_line(text: str, width: int, size: int) -> np.ndarray:
    strip = Image.new("RGB", (width, 2 * size), _WHITE)
    font = _font(size)
    shortened = _shorten(text, font, width - 2 * _GAP)
    ImageDraw.Draw(strip).text((_GAP, size), shortened, fill=_INK, font=font, anchor="lm")
    return np.asarray(strip)


def draw_curves(records: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write one PNG with every loss, and the mIoU of teacher and student, over the steps.

    Args:
        records: the lines of metrics.jsonl: `{"step", "kind": "train", "loss", "loss_...", ...}` and
            `{"step", "kind": "evaluation", "teacher_mean_iou", ...}`; a null value leaves a gap.
        path: where the PNG goes.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    losses = _series(records, "train", lambda name: name == "loss" or name.startswith("loss_"))
    for name, (steps, values) in losses.items():
        label = "total" if name == "loss" else name.removeprefix("loss_").replace("_", " ")
        left.plot(steps, values, label=label, color="black" if name == "loss" else None, linewidth=1.6)
    drawn = [value for _, values in losses.values() for value in values if np.isfinite(value)]
    if drawn and min(drawn) > 0:
        # The terms differ by orders of magnitude.
        left.set_yscale("log")
    left.set(title="losses", xlabel="step", ylabel="loss")
    for name, (steps, values) in _series(records, "evaluation", lambda name: name.endswith("_mean_iou")).items():
        percents = [100 * value for value in values]
        right.plot(steps, percents, marker="o", markersize=3.5, label=name.removesuffix("_mean_iou"), linewidth=1.6)
    right.set(title="validation", xlabel="step", ylabel="mIoU in %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            # Below the axes: inside, it would cover one of six lines wherever it stood.
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
        else:
            axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="gray")
    partial = Path(path).with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    os.replace(partial, path)


def _series(
    records: Sequence[Mapping[str, Any]], kind: str, wanted: Callable[[str], bool]
) -> dict[str, tuple[list[int], list[float]]]:
    """Return steps and values by name, in the order of appearance; a null value is NaN, which breaks the line."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for record in records:
        if record.get("kind") != kind:
            continue
        for name, value in record.items():
            if wanted(name):
                steps, values = series.setdefault(name, ([], []))
                steps.append(int(record["step"]))
                values.append(float("nan") if value is None else float(value))
    return series


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG so that `path` is never half a file."""
    partial = path.with_name(f".{path.name}.partial")
    picture.save(partial, format="PNG")
    os.replace(partial, path)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font knows Latin letters only; matplotlib ships one for class names of more languages.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _shorten(name: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    if font.getlength(name) <= room:
        return name
    while len(name) > 1 and font.getlength(name + "…") > room:
        name = name[:-1]
    return name + "…"
