"""The training loop and what stands around it: configuration, building, hooks, checkpoints."""
