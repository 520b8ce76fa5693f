"""Contact sheets: the drawn clip, what the model was given and what it made, side by side.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .cases import Case

SHEET_FRAMES = (0, 5, 10, 16)
GAP_PX = 4


def _strip(frames: Tensor) -> Tensor:
    return torch.cat([frames[f] for f in SHEET_FRAMES], dim=1)


def contact_sheet(shown: Sequence[tuple[Case, Tensor]]) -> Tensor:
    """One row a clip: four frames each of the drawn clip, of the unit's frames and of the video.

    Args:
        shown: Cases with their videos [F, H, W, 3].

    Returns:
        [rows, columns, 3] float in [0, 1].
    """
    rows = []
    for case, video in shown:
        strips = [_strip(frames) for frames in (case.drawn.frames, case.unit.frames, video)]
        gap = torch.ones(strips[0].shape[0], GAP_PX, 3)
        rows.append(torch.cat([strips[0], gap, strips[1], gap, strips[2]], dim=1))
        rows.append(torch.ones(GAP_PX, rows[0].shape[1], 3))
    return torch.cat(rows[:-1]).clamp(0, 1)


def save_sheet(shown: Sequence[tuple[Case, Tensor]], path: Path) -> None:
    """Write `contact_sheet` as a JPEG; nothing for no clips."""
    from PIL import Image

    if shown:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((contact_sheet(shown) * 255).round().byte().numpy()).save(path, quality=88)
