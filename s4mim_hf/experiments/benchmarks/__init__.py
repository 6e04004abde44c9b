"""Speed and memory, each as ratios of what was measured side by side in one run."""
