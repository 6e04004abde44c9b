"""Predict class maps for images in any number: as pictures, as a data set, or as pseudo-labels to train on."""
