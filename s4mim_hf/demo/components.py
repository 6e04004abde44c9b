"""The page's parts that Gradio does not have as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from s4mim_hf.demo import markup
from s4mim_hf.demo.looking import Look
from s4mim_hf.demo.models import DemoModel
from s4mim_hf.demo.views import legend_entries

Updates = dict[Any, Any]
"""New values by component."""


def path_and_name(payload: Any) -> tuple[str, str | None] | None:
    """Take an upload as the file that it is, with the name that it had: what it holds is for `read_picture` to judge.

    Gradio has checked before that the path is one of its uploads.
    """
    return None if payload is None or payload.path is None else (payload.path, payload.orig_name)


@dataclass
class Legend:
    """The classes of one picture, each to be switched on and off.

    Attributes:
        boxes: a box per class.
        style: gives each its class's colour.
        model: whose names and colours these are.
        of: the numbers of the models whose shares it shows, and whose pictures it governs.
    """

    boxes: gr.CheckboxGroup
    style: gr.HTML
    model: DemoModel
    of: tuple[int, ...]

    def show(self, look: Look) -> Updates:
        """List the classes of a photo, all of them switched on."""
        entries = legend_entries(self.model, [look.found[number] for number in self.of])
        choices = [(str(entry), str(entry.class_id)) for entry in entries]
        values = [value for _, value in choices]
        return {
            self.boxes: gr.CheckboxGroup(choices=choices, value=values, visible=True),
            self.style: markup.swatches(self.boxes.elem_id, entries),
        }

    def clear(self) -> Updates:
        """List none."""
        return {self.boxes: gr.CheckboxGroup(choices=[], value=[], visible=False), self.style: ""}


def picture_place(label: str, name: str, kind: str = "webp") -> gr.Image:
    """Return a place for a picture; "png" for one of few colours, whose borders must stay sharp."""
    return gr.Image(
        label=label, alt_text=label, interactive=False, format=kind, elem_id=name, buttons=["download", "fullscreen"]
    )
