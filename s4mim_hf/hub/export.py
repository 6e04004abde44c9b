"""Writes the folder that `AutoModel.from_pretrained` loads: segmenter, processor, code and card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from s4mim_hf.data.prepared import PreparedData
from s4mim_hf.data.streaming import ShardPool
from s4mim_hf.evaluation.evaluator import EvaluationResult
from s4mim_hf.hub.card import render_card, save_card
from s4mim_hf.hub.card_facts import write_facts
from s4mim_hf.modeling.image_processing_s4mim import S4MIMImageProcessor
from s4mim_hf.modeling.modeling_s4mim import S4MIMForSemanticSegmentation


class ModelExporter:
    """Replaces one model folder by a newer one, never leaving half of it.

    Args:
        folder: where the model goes.
        processor: saved with it.
        run_config: the run's settings, for the card.
        data: what the run learns from, for the card.
        pool: its unlabelled images where they are streamed, for the card.
    """

    def __init__(
        self,
        folder: Path,
        processor: S4MIMImageProcessor,
        run_config: dict[str, Any],
        data: PreparedData,
        pool: ShardPool | None = None,
    ) -> None:
        self.folder = folder
        self._processor = processor
        self._run_config = run_config
        self._data = data
        self._pool = pool

    def export(self, segmenter: S4MIMForSemanticSegmentation, *, step: int, result: EvaluationResult | None) -> None:
        """Write the segmenter without any reconstruction head; `result` (None: not measured) goes into the card.

        A measured model is there because it was the best on that split so far, and the card says so.
        """
        partial = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        segmenter.save_pretrained(partial)
        self._processor.save_pretrained(partial)
        facts = self._facts(step, result)
        write_facts(facts, partial)
        save_card(render_card(**facts, id2label=self._data.id2label), partial)
        shutil.rmtree(self._replaced, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(self._replaced)
        partial.rename(self.folder)
        shutil.rmtree(self._replaced, ignore_errors=True)

    @property
    def _replaced(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.replaced")

    def repair(self) -> None:
        """Put the last model back where `export` was killed after it had moved it away."""
        if self._replaced.is_dir() and not self.folder.exists():
            self._replaced.rename(self.folder)

    def _facts(self, step: int, result: EvaluationResult | None) -> dict[str, Any]:
        results = None
        if result is not None:
            results = {
                "protocol": result.protocol,
                "data": result.data,
                "step": step,
                "selection": "the best evaluation of the run on this same split; results.json has the last step",
                "scores": result.scores.to_dict(),
            }
        return {
            "run_config": self._run_config,
            "results": results,
            "data_name": self._data.name,
            "labeled_count": len(self._data.labeled),
            "unlabeled_count": 0 if self._data.unlabeled is None else len(self._data.unlabeled),
            "unlabeled_pool": None if self._pool is None else str(self._pool),
            "method_name": self._run_config["method"]["name"],
        }
