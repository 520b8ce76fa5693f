"""Annotators: control videos, masks, key points and boxes from plain clips, by small models and plain code.

Each has a name, says what it needs and what is missing, and runs on frames; a model is read at its first run.
Nothing is ever downloaded. `training/prepare.py` runs them on clips.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from ..text import described
from .annotator import Annotation, Annotator, Box

__all__ = ["NAMES", "Annotation", "Annotator", "Box", "make_annotator"]

# Name -> module and class, imported when used.
_CLASSES = {
    "scribble": (".plain", "Scribble"),
    "flow": (".plain", "Flow"),
    "depth": (".depth", "Depth"),
    "pose": (".pose", "Pose"),
    "matte": (".matte", "Matte"),
    "face": (".face", "Face"),
}
NAMES = tuple(_CLASSES)


def make_annotator(name: str, *, model: str | Path | None = None) -> Annotator:
    """Make an annotator; its model is read at its first run.

    Args:
        name: One of `NAMES`.
        model: Folder of its model, where it has no fixed one (depth) or another can take its place (pose: a
            ViTPose, matte: a SAM 2 or 3 of transformers; flow: a file of RAFT's weights).

    Raises:
        ValueError: There is no such annotator.
    """
    if name not in _CLASSES:
        raise ValueError(f"annotator is {described(name)}; expected one of {', '.join(NAMES)}")
    module, class_name = _CLASSES[name]
    return getattr(importlib.import_module(module, __name__), class_name)(model)
