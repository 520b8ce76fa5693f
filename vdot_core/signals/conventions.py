"""Version of how control clips are drawn: a model reads best the controls that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping

from ..text import shown

# 1: gray is BT.601 luma, pens of boxes and poses are a pixel thinner. 2: VACE's gray, OpenCV's pens.
CONTROL_CONVENTIONS = 2
KEY = "control_conventions"


def control_conventions(metadata: Mapping[str, str]) -> int:
    """Version that a checkpoint was trained with, from its metadata.

    Args:
        metadata: strings of a safetensors header; 1 where they do not say, as in files before version 2.

    Returns:
        1 .. `CONTROL_CONVENTIONS`.

    Raises:
        ValueError: no version, or one that this release does not draw.
    """
    value = metadata.get(KEY, "1")
    if not (value.isdecimal() and len(value) < 4 and 1 <= int(value) <= CONTROL_CONVENTIONS):
        raise ValueError(
            f"the model was trained on controls of version '{shown(value, 20)}', this release draws versions "
            f"1 to {CONTROL_CONVENTIONS}; update VDOT"
        )
    return int(value)
