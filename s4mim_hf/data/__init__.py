"""From folders of images to batches: preparation, splits, views, loaders, the embedded synthetic data."""
