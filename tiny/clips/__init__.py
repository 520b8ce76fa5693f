"""Training data that needs no download: drawn clips with exact annotations, and natural-looking textures."""

# Raise it with every change of drawings, annotations or captions: caches and results store it, and are
# refused under another version.
CLIPS_VERSION = 2
