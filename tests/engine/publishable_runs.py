"""What a run that has trained must give to whoever publishes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard

from s4mim_hf.hub.publication import prepare_publication


def check_what_can_be_published(folder: Path, results: dict[str, Any]) -> None:
    """The card tells what the run measured: 4 steps on 4 labelled and 4 unlabelled images."""
    publication = prepare_publication(folder, "ann/scenes")
    assert {"panels/step_2.png", "panels/step_4.png", "curves.png", "card.json"} <= {
        file.path for file in publication.files
    }
    assert {f"mean IoU ({results['protocol']})"} < {result.metric_name for result in publication.card.data.eval_results}
    text = str(publication.card)
    assert "4 labelled and 4 unlabelled images" in text
    assert f"| mean IoU | {100 * results['best_teacher']['mean_iou']:.2f} |" in text
    assert f"](panels/step_{results['best_teacher']['step']}.png)" in text
    assert f"Device: {results['device']}." in text
    assert f"torch {torch.__version__}" in text
    # The card that the run wrote itself says the same of the model.
    own = ModelCard.load(folder / "model" / "README.md")
    assert own.data.eval_results == publication.card.data.eval_results
