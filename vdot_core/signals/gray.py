"""The gray control: a weighted sum of red, green and blue, three times.

VACE's annotator (ali-vilab/VACE, vace/annotators/gray.py) calls OpenCV's BGR2GRAY on frames that its reader
has already turned to RGB, so that red and blue exchange their weights. VACE and VDOT were trained on that:
`weights="vace"`, the default of the control. `"bt601"` is the luma itself, on which the bundled tiny model
was trained.
"""

from typing import Literal

import torch
from torch import Tensor

from ..text import shown
from .frames import check_frames, map_chunks

LUMA_WEIGHTS = {  # of red, green, blue
    "bt601": (0.299, 0.587, 0.114),
    "vace": (0.114, 0.587, 0.299),
}


def luma(frames: Tensor, weights: Literal["bt601", "vace"] = "bt601") -> Tensor:
    """Weighted sum of red, green and blue.

    Args:
        frames: [..., 3] float.
        weights: "bt601" (ITU-R BT.601, OpenCV's RGB2GRAY) or "vace" (red and blue swapped, as VACE's
            annotator).

    Returns:
        [...] float, in the frames' range.

    Raises:
        ValueError: unknown weights.
    """
    if not isinstance(weights, str) or weights not in LUMA_WEIGHTS:
        raise ValueError(f"weights is '{shown(weights, 60)}'; choose one of {', '.join(LUMA_WEIGHTS)}")
    return frames @ torch.tensor(LUMA_WEIGHTS[weights], dtype=frames.dtype, device=frames.device)


def to_gray(
    frames: Tensor,
    *,
    weights: Literal["bt601", "vace"] = "vace",
    device: torch.device | str | None = None,
) -> Tensor:
    """The gray control video.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        weights: "vace" for released VACE and VDOT weights, "bt601" for the bundled tiny model; see `luma`.
        device: where to compute; the clip's own when None.

    Returns:
        [F, H, W, 3] float32 in [0, 1], three equal channels, on the clip's device.

    Raises:
        ValueError: not a clip in [0, 1], or unknown weights.
    """
    check_frames(frames)
    return map_chunks(lambda chunk: luma(chunk, weights), frames, size=8, device=device)
