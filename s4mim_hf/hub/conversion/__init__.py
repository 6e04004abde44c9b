"""Checkpoints of published methods as models of ours."""
