"""The life of a model outside its run: export, loading, cards."""
