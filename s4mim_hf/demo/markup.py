"""The page's own HTML and CSS; nothing in it is loaded from anywhere else.

Colours of text and ground are Gradio's variables, so that light and dark both stay readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from s4mim_hf.demo.models import DemoModel
from s4mim_hf.demo.views import LegendEntry, confidence_colors

CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
#title h1 { margin: 0 0 2px; font-size: 1.45rem; }
#title p, .note, .scale p { margin: 0; color: var(--body-text-color); opacity: 0.78; }
.note { font-size: 0.92rem; overflow-wrap: anywhere; }
#layout { display: grid; grid-template-columns: minmax(270px, 330px) minmax(0, 1fr); gap: 16px;
  grid-template-areas: "upload views" "classes views"; grid-template-rows: auto 1fr; align-items: start; }
#upload-side { grid-area: upload; } #classes-side { grid-area: classes; } #views { grid-area: views; }
#upload-side, #classes-side, #views { min-width: 0 !important; }
#views .image-frame { width: 100%; }
#views .image-frame img { width: 100%; height: auto; max-height: min(72vh, 660px); object-fit: contain; }
.legend [data-testid=checkbox-group] { flex-flow: column nowrap; gap: 0; max-height: 420px; overflow-y: auto; }
.legend [data-testid=checkbox-group] label { border: none; background: none; box-shadow: none; padding: 4px 2px;
  width: 100%; white-space: normal; }
.legend [data-testid=checkbox-group] label::before { content: ""; flex: none; width: 18px; height: 18px;
  border-radius: 3px; margin-right: 8px; border: 1px solid var(--body-text-color-subdued); background: var(--swatch); }
.unseen { display: none; }
.problem { border-left: 4px solid #d92d20; border-radius: 4px; padding: 8px 12px; color: var(--body-text-color);
  background: var(--background-fill-secondary); }
.scale { max-width: 420px; }
.scale div { height: 14px; border-radius: 3px; }
.scale p { display: flex; justify-content: space-between; font-size: 0.85rem; }
@media (max-width: 760px) {
  #layout { grid-template-columns: minmax(0, 1fr); grid-template-areas: "upload" "views" "classes";
    grid-template-rows: none; }
  #views .tab-container button { padding: 0 7px; font-size: 0.85rem; }
}
"""


def title(models: Sequence[DemoModel]) -> str:
    """Name the models and what they know."""
    parts = [f"<b>{escape(model.label)}</b> ({_count(len(model.classes), 'class', 'classes')})" for model in models]
    return f"<h1>Segment a photo</h1><p>{' and '.join(parts)}</p>"


def note(*sentences: str) -> str:
    """Return a remark in small print; nothing where there is none."""
    return f'<div class="note">{escape(" ".join(sentences))}</div>' if any(sentences) else ""


def problem(sentence: str) -> str:
    """Return a sentence about what went wrong, so that it stands out."""
    return f'<div class="problem" role="alert">{escape(sentence)}.</div>'


def swatches(legend_id: str, entries: Sequence[LegendEntry]) -> str:
    """Return the style that gives the boxes of a legend their classes' colours, in their order."""
    rules = [
        f"#{legend_id} .wrap label:nth-of-type({number}) {{ --swatch: rgb{entry.color}; }}"
        for number, entry in enumerate(entries, start=1)
    ]
    return f"<style>{' '.join(rules)}</style>"


def confidence_scale() -> str:
    """Return the colour scale of the confidence view."""
    stops = ", ".join(f"rgb{tuple(confidence_colors()[step].tolist())}" for step in range(0, 256, 15))
    marks = "".join(f"<span>{mark} %</span>" for mark in (0, 25, 50, 75, 100))
    return (
        f'<div class="scale"><div style="background: linear-gradient(90deg, {stops})"></div><p>{marks}</p></div>'
        '<div class="note">The probability that the model gives to the class it chose.</div>'
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
