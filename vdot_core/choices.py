"""Values that the library checks and widgets offer. Imports nothing, because nodes read them at start-up."""

MASK_SHAPES = ("original", "hull", "box")
"""Forms that a mask is brought to, as in training."""
MASK_MEANINGS = ("subject", "transparent")
"""Meanings of white in a reference's mask."""
NORMALIZATIONS = ("frame", "clip", "stable", "none")
"""Ranges that depth is stretched to."""
BOXES = ("all", "largest", "first")
"""Choices among a frame's boxes, for its mask."""
MAX_LINE_WIDTH = 64
"""Of a layout's boxes, in pixels."""
ALL_STEPS = (0.0, 1.0)
"""The part of the sampling steps in which a unit acts, if nothing else is said."""
SOLVERS = ("unipc", "renoise", "euler")
"""Solvers of the sampler."""
