"""Training data that needs no download: drawn clips with exact annotations, and natural-looking textures."""
