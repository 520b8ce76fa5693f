"""Measures of a video made in chunks; clips are [F, H, W, 3] float in [0, 1]."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import torch
from torch import Tensor


def color_shift(made: Tensor, truth: Tensor | None, generated: Tensor, parts: list[slice]) -> list[float]:
    """Mean absolute change of the mean color since the first part, in 8-bit levels, for each part.

    Args:
        made, truth: with a truth, it is the change of their difference: what the scene itself does is no
            drift.
        generated: [F, H, W] bool, the pixels that count.
        parts: the chunks' frames.
    """
    difference = made if truth is None else made - truth
    means = [difference[part][generated[part]].mean(0) for part in parts]
    return [255 * (mean - means[0]).abs().mean().item() for mean in means]


def sharpness(clip: Tensor) -> float:
    """Variance of the Laplacian of the luma, mean over frames (OpenCV)."""
    return float(np.mean([cv2.Laplacian(gray, cv2.CV_64F).var() for gray in _grays(clip)]))


def motion(clip: Tensor) -> float:
    """Mean length of Farneback's optical flow between neighbors, in pixels (OpenCV)."""
    grays = _grays(clip)
    pairs = itertools.pairwise(grays)
    flows = (cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 11, 3, 5, 1.1, 0) for a, b in pairs)
    return float(np.mean([np.linalg.norm(flow, axis=-1).mean() for flow in flows]))


def frame_differences(clip: Tensor) -> Tensor:
    """[F - 1] mean absolute difference of neighbors."""
    return (clip[1:] - clip[:-1]).abs().mean((1, 2, 3))


def seam_ratio(clip: Tensor, starts: list[int]) -> float:
    """Frame difference at the seams, mean over them, against the clip's usual (mean of the other frames)."""
    differences = frame_differences(clip)
    at = torch.tensor([start - 1 for start in starts if start])
    others = torch.ones(len(differences), dtype=torch.bool)
    others[at] = False
    return float(differences[at].mean() / differences[others].mean())


def difference(made: Tensor, truth: Tensor, generated: Tensor, part: slice) -> float:
    """Mean absolute difference of two clips in a part, over the pixels [F, H, W] that count."""
    return float((made[part] - truth[part])[generated[part]].abs().mean())


def _grays(clip: Tensor) -> list[np.ndarray]:
    return [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (clip.clamp(0, 1) * 255).byte().numpy()]
