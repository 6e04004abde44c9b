"""Figures for a README: an ablation's numbers, and the reconstructions of two runs side by side."""

from s4mim_hf.experiments.figures.ablation import ablation_figure, draw_ablation
from s4mim_hf.experiments.figures.reconstructions import draw_reconstructions

__all__ = ["ablation_figure", "draw_ablation", "draw_reconstructions"]
