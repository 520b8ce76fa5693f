"""Measures of a video made in chunks; clips are [F, H, W, 3] float in [0, 1]."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from vdot_core.sampling.long import Span
from vdot_core.vcu import VAE_STRIDE


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


def beside_cuts(clip: Tensor) -> Tensor:
    """[F - 1] bool, the transitions that a cut of the clip reaches through the VAE.

    A cut is a frame difference of more than ten levels and twice those around it. The VAE codes a first frame
    alone and then groups of four: it smears a cut over its group, and so to both ends of that.
    """
    differences = frame_differences(clip)
    out = torch.zeros(len(differences), dtype=torch.bool)
    for index, value in enumerate(differences):
        around = differences[max(0, index - 3) : index + 4].sort(descending=True).values
        if value > 10 / 255 and value == around[0] and value > 2 * around[1]:
            group = index // VAE_STRIDE[0] * VAE_STRIDE[0]  # begins with frame group + 1
            out[group : group + VAE_STRIDE[0] + 1] = True
    return out


def seam_ratio(clip: Tensor, spans: Sequence[Span], ignored: Tensor | None = None) -> float:
    """Frame difference where a chunk takes over from the one before, against the clip's usual.

    With a fade, the picture becomes the next chunk's at each transition of the overlap; without one, all at
    once at the first. So each transition is averaged over the seams, and the largest average counts.

    Args:
        clip: made in these chunks.
        spans: the chunks.
        ignored: [F - 1] bool, transitions that count neither as a seam nor as usual; None: all count.
    """
    differences = frame_differences(clip)
    counting = torch.ones_like(differences, dtype=torch.bool) if ignored is None else ~ignored
    usual, at_seams = counting.clone(), []
    for span in spans[1:]:
        usual[span.start : span.first_new] = False
    for offset in range(spans[-1].overlap):
        at = torch.tensor([span.start + offset for span in spans[1:]])
        at_seams.append(differences[at[counting[at]]].mean())
    return float(torch.stack(at_seams).max() / differences[usual].mean())


def difference(made: Tensor, truth: Tensor, generated: Tensor, part: slice) -> float:
    """Mean absolute difference of two clips in a part, over the pixels [F, H, W] that count."""
    return float((made[part] - truth[part])[generated[part]].abs().mean())


def _grays(clip: Tensor) -> list[np.ndarray]:
    return [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (clip.clamp(0, 1) * 255).byte().numpy()]
