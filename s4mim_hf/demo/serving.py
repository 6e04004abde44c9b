"""From a command line to a page that is served."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.utils.logging import disable_progress_bar

from s4mim_hf.data.splits import IMAGE_SUFFIXES
from s4mim_hf.demo.looking import Shelf
from s4mim_hf.demo.models import DemoModel, open_model
from s4mim_hf.errors import InputError

if TYPE_CHECKING:
    import gradio

# Visitors whose photo is kept, and who may wait.
_VISITORS = 32
MAX_EXAMPLES = 12
# Nothing of what is shown leaves this machine, and nothing is fetched for it.
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
_FONT = ["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Consolas", "monospace"]


def open_models(names: Sequence[str], device: str | None = None) -> tuple[DemoModel, ...]:
    """Load one or two models.

    Args:
        names: see `open_model`.
        device: torch's name of it; None: a GPU where there is one.

    Raises:
        InputError: a model cannot be loaded, or there is no such device.
    """
    # A bar for each file that transformers loads says nothing to who waits for a page.
    disable_progress_bar()
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # Read back: the device "meta" takes numbers and has none.
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {place} cannot be used ({reason}); use cpu, or leave it out") from None
    return tuple(open_model(name, place) for name in names)


def find_examples(folder: Path) -> list[Path]:
    """Return the first images of a folder, at most `MAX_EXAMPLES`, sorted by name.

    Raises:
        InputError: it is no folder, or holds none.
    """
    if not folder.is_dir():
        raise InputError(f"--examples {folder} is no folder; give one that holds images")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"--examples {folder} holds no image; put some there, or leave it out")
    return found[:MAX_EXAMPLES]


def serve(
    models: tuple[DemoModel, ...], *, max_side: int, examples: Sequence[Path] = (), port: int | None = None
) -> None:
    """Serve the page until interrupted, and print where.

    Args:
        models: one or two.
        max_side: a larger photo is shrunk to this before a model sees it.
        examples: photos to start from.
        port: None: GRADIO_SERVER_PORT, or the first free one from 7860 on. Others can reach the page only where
            GRADIO_SERVER_NAME says so, such as on a Space.

    Raises:
        InputError: Gradio is not installed, or the port is taken.
    """
    os.environ.update(_QUIET)
    try:
        import gradio as gr

        from s4mim_hf.demo.page import Page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError('the page needs Gradio, which is not installed; pip install "s4mim-hf[app]"') from None
    with tempfile.TemporaryDirectory(prefix="s4mim-app-") as folder:
        shelf = Shelf(Path(folder), _VISITORS)
        page = Page(models, shelf, max_side=max_side, examples=examples)
        _launch(page.blocks, port, theme=_theme(gr.themes.Default(font=_FONT, font_mono=_MONO)))


def _theme(theme: gradio.themes.Base) -> gradio.themes.Base:
    """Give small print the contrast that it needs to be read."""
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def _launch(blocks: gradio.Blocks, port: int | None, theme: gradio.themes.Base) -> None:
    from s4mim_hf.demo.markup import CSS

    try:
        _, url, _ = blocks.queue(max_size=_VISITORS).launch(
            server_port=port,
            theme=theme,
            css=CSS,
            footer_links=["settings"],
            run_history=False,
            share=False,
            ssr_mode=False,
            state_session_capacity=_VISITORS,
            max_file_size="100mb",
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(f"--port {port} cannot be used ({str(error).splitlines()[0]}); give another one") from None
    print(f"open {url} in a browser; Ctrl+C ends it", flush=True)
    blocks.block_thread()
