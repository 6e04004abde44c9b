"""The ablation and the comparison on one's own data: rows, draws, runs side by side, resumption, tables."""
