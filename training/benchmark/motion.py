"""Motion and flicker, by OpenCV's DIS flow.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import importlib.util
import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vdot_core.signals import dis_flow, luma

VERSION = 1


def missing() -> str | None:
    """Why flow cannot be measured here; None where it can."""
    if importlib.util.find_spec("cv2"):
        return None
    return "motion and flicker need OpenCV: `pip install opencv-python-headless`"


def motion_and_flicker(video: Tensor, rate: float) -> tuple[float, float] | None:
    """Speed, and the change that no motion explains.

    Args:
        video: [F, H, W, 3] float in [0, 1].
        rate: Frames per second.

    Returns:
        Mean length of the flow, in percent of the diagonal a second; mean difference of the luma of a frame
        and the next one moved back along the flow, in 8-bit steps. None of a single frame.
    """
    if len(video) < 2:
        return None
    flow = dis_flow(video, preset="fast")
    height, width = video.shape[1:3]
    speed = float(flow.norm(dim=1).mean()) / math.hypot(height, width) * 100 * rate
    gray = luma(video)[:, None]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    change = []
    for before, after, vectors in zip(gray[:-1], gray[1:], flow, strict=True):
        x, y = (columns + vectors[0]) / (width - 1) * 2 - 1, (rows + vectors[1]) / (height - 1) * 2 - 1
        moved = grid_sample(
            after[None],
            torch.stack([x, y], -1)[None],
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        change.append(float((moved[0] - before).abs().mean()))
    return speed, 255 * sum(change) / len(change)
