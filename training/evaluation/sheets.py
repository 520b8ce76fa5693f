"""Contact sheets and animations: the drawn clip, what the model was given and what it made, side by side.

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
FRAME_MS = 62  # 16 frames a second


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


def save_animation(shown: Sequence[tuple[Case, Tensor]], path: Path) -> None:
    """Write an animated WebP, one row a clip: drawn, given, made; nothing for no clips."""
    from PIL import Image

    if not shown:
        return
    rows = []
    for case, video in shown:
        columns = [
            torch.nn.functional.pad(v, (0, 0, 0, GAP_PX, 0, GAP_PX), value=1.0)
            for v in (case.drawn.frames, case.unit.frames, video)
        ]
        rows.append(torch.cat(columns, dim=2))
    frames = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte().numpy()
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=FRAME_MS, loop=0, quality=80)


def join_animations(paths: Sequence[Path], path: Path) -> None:
    """One animation of several of `save_animation`'s of the same clips: drawn, given, then what each made."""
    from PIL import Image, ImageSequence

    files = [[f.convert("RGB") for f in ImageSequence.Iterator(Image.open(one))] for one in paths]
    width, height = files[0][0].size
    third, joined = width // 3, []
    for frames in zip(*files, strict=True):
        canvas = Image.new("RGB", (2 * third + third * len(files), height), "white")
        canvas.paste(frames[0].crop((0, 0, 2 * third, height)), (0, 0))
        for number, frame in enumerate(frames):
            canvas.paste(frame.crop((2 * third, 0, width, height)), ((2 + number) * third, 0))
        joined.append(canvas)
    joined[0].save(path, save_all=True, append_images=joined[1:], duration=FRAME_MS, loop=0, quality=80)


def save_sheet(shown: Sequence[tuple[Case, Tensor]], path: Path) -> None:
    """Write `contact_sheet` as a JPEG; nothing for no clips."""
    from PIL import Image

    if shown:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((contact_sheet(shown) * 255).round().byte().numpy()).save(path, quality=88)
