"""Reference identity by colors: the share of a reference's colors that one place of the video shows.

No network: color histograms of 125 soft bins, so it tells a red coat from a blue one, and no two faces apart.
Letters: F frames, H W pixels, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vdot_core.vcu.scaling import resample

LEVELS = 5
SIDE = 48  # of the longer side
NUM_FRAMES = 8
WINDOWS = (0.25, 0.375, 0.5, 0.75, 1.0)  # of the shorter side
WHITE = 0.94
LEAST_SUBJECT = 0.01
VERSION = 1


def reference_identity(video: Tensor, references: Sequence[Tensor]) -> float | None:
    """Mean over references and frames of the best window's histogram intersection with the reference.

    Args:
        video: [F, H, W, 3] float in [0, 1].
        references: Pictures [H', W', 3] float in [0, 1] on white.

    Returns:
        In [0, 1]; None without references.
    """
    if not references:
        return None
    numbers = np.unique(np.linspace(0, len(video) - 1, NUM_FRAMES).round().astype(int))
    frames = [_small(video[number]) for number in numbers]
    return float(np.mean([[_best(frame, _signature(picture)) for frame in frames] for picture in references]))


def _small(picture: Tensor) -> Tensor:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return resample(picture[None], *size)[0].clamp(0, 1)


def _bins(pixels: Tensor) -> Tensor:
    """[..., K] weights of soft color bins, 1 in all, of [..., 3]."""
    levels = torch.arange(LEVELS)
    near = (1 - (pixels[..., None] * (LEVELS - 1) - levels).abs()).clamp_min(0)
    return torch.einsum("...r,...g,...b->...rgb", *near.unbind(-2)).flatten(-3)


def _signature(picture: Tensor) -> Tensor:
    """[K] histogram of a reference's subject: of what is not white, or of everything where all is."""
    pixels = _small(picture).flatten(0, 1)
    subject = pixels[pixels.amin(-1) < WHITE]
    if len(subject) < LEAST_SUBJECT * len(pixels):
        subject = pixels
    return _bins(subject).mean(0)


def _best(frame: Tensor, signature: Tensor) -> float:
    """Of all windows."""
    height, width = frame.shape[:2]
    total = torch.zeros(height + 1, width + 1, len(signature))
    total[1:, 1:] = _bins(frame).cumsum(0).cumsum(1)
    best = 0.0
    for part in WINDOWS:
        side = max(2, round(part * min(height, width)))
        step = max(1, side // 6)
        rows, columns = (torch.arange(0, length - side + 1, step) for length in (height, width))
        low, right = rows[:, None], columns[None]
        histograms = (
            total[low + side, right + side]
            - total[low, right + side]
            - total[low + side, right]
            + total[low, right]
        ) / side**2
        best = max(best, float(torch.minimum(histograms, signature).sum(-1).max()))
    return best
