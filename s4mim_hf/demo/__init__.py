"""A page to try a model on a photograph: what it shows, apart from Gradio; the page itself; and the Space it can be."""
