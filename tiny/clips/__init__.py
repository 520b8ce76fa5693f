"""Training data that needs no download: drawn clips with exact annotations, and natural-looking textures."""

# Raise it with every change of what is drawn, annotated or captioned: caches and results made from clips keep
# it, and are refused under another.
CLIPS_VERSION = 2
