"""The Gradio page: components, and which of them changes when.

A photo is segmented once, when it is uploaded. Everything else is drawn from what the server keeps of it for the
visitor (`Shelf`); only the reconstruction runs a network again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from s4mim_hf.data.shrinking import shrink_pixels
from s4mim_hf.demo import markup
from s4mim_hf.demo.components import Legend, Updates, path_and_name, picture_place
from s4mim_hf.demo.heads import fill_in
from s4mim_hf.demo.looking import Look, Shelf, look_at
from s4mim_hf.demo.models import DemoModel, classes_agree
from s4mim_hf.demo.views import (
    confidence_in_words,
    confidence_picture,
    disagreement_picture,
    overlay_of,
    percent,
)
from s4mim_hf.errors import InputError
from s4mim_hf.visualization import colorize

# The decoder works at a quarter of this, and learned on crops that were hardly larger.
RECONSTRUCTION_SIDE = 512
# Uploads and drawn pictures are deleted from the disk this many seconds after they were made.
_KEPT_SECONDS = 3600
_FORGOTTEN = "The page no longer has this photo, because other visitors came in between; upload it again"


class Page:
    """What a visitor sees, for one or two models.

    Args:
        models: one or two.
        shelf: keeps the visitors' photos.
        max_side: a larger photo is shrunk to this before a model sees it.
        examples: photos to start from.
    """

    def __init__(
        self, models: tuple[DemoModel, ...], shelf: Shelf, *, max_side: int, examples: Sequence[Path] = ()
    ) -> None:
        self.models, self.shelf, self.max_side = models, shelf, max_side
        self.agree = classes_agree(models)
        self._with_head = [number for number, model in enumerate(models) if model.head is not None]
        with gr.Blocks(
            title=f"Segment a photo: {', '.join(model.label for model in models)}",
            analytics_enabled=False,
            delete_cache=(600, _KEPT_SECONDS),
        ) as self.blocks:
            gr.HTML(markup.title(models), elem_id="title")
            self.token = gr.State(None, delete_callback=shelf.drop)
            with gr.Row(elem_id="layout"):
                self._build_upload(examples)
                self._build_views()
                self._build_classes()
            self._connect()

    def _build_upload(self, examples: Sequence[Path]) -> None:
        with gr.Column(elem_id="upload-side"):
            self.photo = gr.Image(
                label="Photo", sources=["upload", "clipboard"], height=210, elem_id="photo", buttons=[]
            )
            # On this one alone: a class derived from Gradio's makes it write a file beside this one.
            self.photo.preprocess = path_and_name
            self.status = gr.HTML(self._hint(), elem_id="status")
            if examples:
                gr.Examples([str(path) for path in examples], self.photo, label="Examples", examples_per_page=12)

    def _hint(self) -> str:
        return markup.note(f"Photos above {self.max_side} pixels a side are shrunk to that for the model.")

    def _build_classes(self) -> None:
        with gr.Column(elem_id="classes-side"):
            self.opacity = gr.Slider(0, 100, 55, step=5, label="Opacity in %", elem_id="opacity")
            shared = tuple(range(len(self.models))) if self.agree else (0,)
            label = "Classes" if self.agree else f"Classes of {self.models[0].label}"
            info = f"Area by {' / '.join(model.label for model in self.models)}" if len(shared) > 1 else None
            self.legends = [self._build_legend(0, shared, label, info)]
            if not self.agree:
                self.legends.append(self._build_legend(1, (1,), f"Classes of {self.models[1].label}", None))

    def _build_legend(self, number: int, of: tuple[int, ...], label: str, info: str | None) -> Legend:
        boxes = gr.CheckboxGroup(
            [], label=label, info=info, show_select_all=True, visible=False, elem_id=f"classes-{number}",
            elem_classes="legend",
        )  # fmt: skip
        return Legend(boxes, gr.HTML("", elem_classes="unseen"), self.models[number], of)

    def _build_views(self) -> None:
        with gr.Column(elem_id="views"), gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Overlay", id="overlay"):
                self.overlay = picture_place(f"Overlay of {self.models[0].label}", "overlay")
                self.download = [self._build_download(0)]
            with gr.Tab("Confidence", id="confidence"):
                self._build_confidence()
            if self._with_head:
                with gr.Tab("Reconstruction", id="reconstruction"):
                    self._build_reconstruction()
            if len(self.models) > 1:
                with gr.Tab("Compare", id="compare"):
                    self._build_comparison()

    def _build_download(self, number: int) -> gr.DownloadButton:
        label = "Class map as PNG" if len(self.models) == 1 else f"Class map of {self.models[number].label} as PNG"
        return gr.DownloadButton(label, size="sm", interactive=False, elem_id=f"download-{number}")

    def _build_confidence(self) -> None:
        gr.HTML(markup.confidence_scale())
        self.confidence = []
        with gr.Row():
            for number, model in enumerate(self.models):
                with gr.Column():
                    picture = picture_place(f"Confidence of {model.label}", f"confidence-{number}")
                    self.confidence.append((picture, gr.HTML("", elem_id=f"confidence-words-{number}")))

    def _build_reconstruction(self) -> None:
        labels = [self.models[number].label for number in self._with_head]
        self.which = gr.Radio(
            list(zip(labels, map(str, self._with_head), strict=True)), value=str(self._with_head[0]),
            label="Model that fills in", visible=len(labels) > 1,
        )  # fmt: skip
        first = self.models[self._with_head[0]]
        assert first.head is not None
        have = f"{' and '.join(labels)} {'have' if len(labels) > 1 else 'has'} the decoder that fills in masked images."
        lack = [f"{model.label} has none." for model in self.models if model.head is None]
        small = f"Photos are shrunk to {RECONSTRUCTION_SIDE} pixels a side for it."
        gr.HTML(markup.note(have, *lack, small))
        masking = first.head.method.masking
        with gr.Row():
            self.ratio = gr.Slider(5, 95, round(100 * masking.ratio), step=5, label="Masked in %", elem_id="ratio")
            self.patch = gr.Slider(4, 128, min(masking.patch_size, 128), step=4, label="Patch in pixels")
            self.seed = gr.Slider(0, 99, 0, step=1, label="Seed", elem_id="seed")
        with gr.Row():
            self.original, self.regions = picture_place("Photo", "original"), picture_place("Classes", "regions", "png")
        with gr.Row():
            self.masked, self.filled = picture_place("Masked", "masked"), picture_place("Reconstruction", "filled")
        self.filled_note = gr.HTML("", elem_id="filled-note")

    def _build_comparison(self) -> None:
        with gr.Row():
            self.pair = [picture_place(model.label, f"pair-{number}") for number, model in enumerate(self.models)]
        self.download.append(self._build_download(1))
        self.verdict = gr.HTML("", elem_id="verdict")
        if self.agree:
            self.disagreement = picture_place("Where they differ", "disagreement")

    def _connect(self) -> None:
        drawn = [self.overlay, *(self.pair if len(self.models) > 1 else [])]
        legends = [part for legend in self.legends for part in (legend.boxes, legend.style)]
        outputs = [self.token, self.status, *legends, *self.download, *drawn]
        outputs += [part for pair in self.confidence for part in pair]
        if len(self.models) > 1:
            outputs += [self.verdict, *([self.disagreement] if self.agree else [])]
        taken = self.photo.change(
            self._take, {self.photo, self.token, self.opacity}, outputs,
            concurrency_id="model", concurrency_limit=1, api_visibility="private",
        )  # fmt: skip
        boxes = [legend.boxes for legend in self.legends]
        gr.on(
            [self.opacity.change, *(one.input for one in boxes)], self._draw, {self.token, self.opacity, *boxes},
            [*drawn, self.status], show_progress="hidden", trigger_mode="always_last", concurrency_limit=4,
            api_visibility="private",
        )  # fmt: skip
        if self._with_head:
            asked = [self.which, self.ratio, self.patch, self.seed]
            event: dict[str, Any] = {
                "fn": self._fill_in,
                "inputs": {self.token, *asked},
                "outputs": [self.original, self.regions, self.masked, self.filled, self.filled_note],
                "concurrency_id": "model",
                "api_visibility": "private",
            }
            taken.then(**event)
            gr.on([one.change for one in asked], trigger_mode="always_last", **event)

    def _take(self, values: dict[Any, Any]) -> Updates:
        """Segment what was uploaded, or empty the page where it was taken away or is none."""
        self.shelf.drop(values[self.token])
        if values[self.photo] is None:
            return self._empty(self._hint())
        path, name = values[self.photo]
        token, folder = self.shelf.new_folder()
        try:
            look = look_at(Path(path), self.models, folder, max_side=self.max_side, name=name)
        except InputError as error:
            self.shelf.drop(token)
            return self._empty(markup.problem(str(error)))
        self.shelf.put(token, look)
        updates: Updates = {self.token: token, self.status: markup.note(self._describe(look))}
        for legend in self.legends:
            updates |= legend.show(look)
        for button, found in zip(self.download, look.found, strict=True):
            updates[button] = gr.DownloadButton(value=str(found.file), interactive=True)
        for (picture, words), found in zip(self.confidence, look.found, strict=True):
            updates[picture] = confidence_picture(found.confidence)
            updates[words] = markup.note(confidence_in_words(found))
        chosen = [set(range(len(model.classes))) for model in self.models]
        updates |= self._overlays(look, chosen, values[self.opacity] / 100)
        return updates | (self._compare(look) if len(self.models) > 1 else {})

    def _describe(self, look: Look) -> str:
        height, width = look.size
        text = f"{look.name}: {width} x {height} pixels"
        return text + (f", shrunk to {self.max_side} for the model" if max(look.size) > self.max_side else "")

    def _empty(self, status: str) -> Updates:
        updates: Updates = {self.token: None, self.status: status, self.overlay: None}
        for legend in self.legends:
            updates |= legend.clear()
        for button in self.download:
            updates[button] = gr.DownloadButton(value=None, interactive=False)
        for picture, words in self.confidence:
            updates |= {picture: None, words: ""}
        if len(self.models) > 1:
            updates |= {
                self.verdict: "",
                **dict.fromkeys(self.pair),
                **({self.disagreement: None} if self.agree else {}),
            }
        return updates

    def _overlays(self, look: Look, chosen: Sequence[set[int]], opacity: float) -> Updates:
        drawn = []
        for number, found in enumerate(look.found):
            # Where ids mean the same, the first model's colours are both's: one legend explains both pictures.
            palette = self.models[0 if self.agree else number].palette
            drawn.append(overlay_of(look.image, found.ids, palette, chosen[number], opacity))
        pair = dict(zip(self.pair, drawn, strict=True)) if len(self.models) > 1 else {}
        return {self.overlay: drawn[0], **pair}

    def _draw(self, values: dict[Any, Any]) -> Updates:
        """Lay the chosen classes over the photo again."""
        look = self.shelf.get(values[self.token])
        if look is None:
            return {} if values[self.token] is None else {self.status: markup.problem(_FORGOTTEN)}
        chosen: list[set[int]] = [set() for _ in self.models]
        for legend in self.legends:
            for number in legend.of:
                chosen[number] = {int(value) for value in values[legend.boxes]}
        return self._overlays(look, chosen, values[self.opacity] / 100)

    def _compare(self, look: Look) -> Updates:
        first, second = (model.label for model in self.models)
        if not self.agree:
            return {
                self.verdict: markup.note(
                    f"{first} and {second} know different classes, so their pixels are not compared; each has a legend "
                    "of its own."
                )
            }
        assert look.difference is not None
        words = f"{first} and {second} differ on {percent(look.difference)} of the pixels."
        return {self.verdict: markup.note(words), self.disagreement: disagreement_picture(look)}

    def _fill_in(self, values: dict[Any, Any]) -> Updates:
        """Mask the photo and fill it in."""
        pictures = (self.original, self.regions, self.masked, self.filled)
        look = self.shelf.get(values[self.token])
        if look is None:
            return {**dict.fromkeys(pictures), self.filled_note: ""}
        number = int(values[self.which])
        model = self.models[number]
        assert model.head is not None
        image = shrink_pixels(look.image, RECONSTRUCTION_SIDE)
        filled = fill_in(
            model.head, image, look.found[number].ids,
            ratio=values[self.ratio] / 100, patch_size=int(values[self.patch]), seed=int(values[self.seed]),
        )  # fmt: skip
        shown = (filled.image, colorize(filled.class_map, model.palette), filled.masked, filled.filled)
        return {**dict(zip(pictures, shown, strict=True)), self.filled_note: markup.note(*model.head.notes)}
