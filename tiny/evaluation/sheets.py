"""Contact sheets and animations: the drawn clip, the model's inputs and its output, side by side.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.engine.samples import FRAME_MS
from vdot_core.pictures import open_picture

from .cases import Case
from .network import FRAME_SIZE

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET_FRAMES = (0, 5, 10, 16)
GAP_PX = 4
COLUMN_PX = FRAME_SIZE + GAP_PX  # of an animation


def _strip(frames: Tensor) -> Tensor:
    return torch.cat([frames[f] for f in SHEET_FRAMES], dim=1)


def _beside(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures [H, .., 3] of one height in a line, a white gap between."""
    gap = torch.ones(pictures[0].shape[0], GAP_PX, 3)
    return torch.cat([part for picture in pictures for part in (gap, picture)][1:], dim=1)


def contact_sheet(pairs: Sequence[tuple[Case, Tensor]]) -> Tensor:
    """One row a clip: four frames of the drawn clip, the unit's inputs, and four of the video.

    The inputs are all references, and four of the unit's frames.

    Args:
        pairs: Cases with their videos [F, H, W, 3].

    Returns:
        [rows, columns, 3] float in [0, 1].
    """
    rows = []
    for case, video in pairs:
        inputs = [*case.unit.references, _strip(case.unit.frames)]
        rows.append(_beside([_strip(case.scene.frames), *inputs, _strip(video)]))
        rows.append(torch.ones(GAP_PX, rows[0].shape[1], 3))
    return torch.cat(rows[:-1]).clamp(0, 1)


def save_animation(pairs: Sequence[tuple[Case, Tensor]], path: Path) -> None:
    """Write an animated WebP, one row a clip: drawn, references, frames given, made; nothing for no clips."""
    from PIL import Image

    if not pairs:
        return
    rows = []
    for case, video in pairs:
        references = [picture.expand_as(video) for picture in case.unit.references]
        columns = [
            torch.nn.functional.pad(v, (0, 0, 0, GAP_PX, 0, GAP_PX), value=1.0)
            for v in (case.scene.frames, *references, case.unit.frames, video)
        ]
        rows.append(torch.cat(columns, dim=2))
    frames = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte().numpy()
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=FRAME_MS, loop=0, quality=80)


def _frames(path: Path) -> list[Image]:
    """The frames of an animated picture, in RGB."""
    from PIL import ImageSequence

    with open_picture(path) as animation:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]


def join_animations(paths: Sequence[Path], path: Path) -> None:
    """One animation of several of `save_animation`'s of the same clips: drawn, given, then what each made."""
    from PIL import Image

    files = [_frames(path) for path in paths]
    width, height = files[0][0].size
    shared, joined = width - COLUMN_PX, []
    for frames in zip(*files, strict=True):
        canvas = Image.new("RGB", (shared + COLUMN_PX * len(files), height), "white")
        canvas.paste(frames[0].crop((0, 0, shared, height)), (0, 0))
        for number, frame in enumerate(frames):
            canvas.paste(frame.crop((shared, 0, width, height)), (shared + number * COLUMN_PX, 0))
        joined.append(canvas)
    joined[0].save(path, save_all=True, append_images=joined[1:], duration=FRAME_MS, loop=0, quality=80)


def save_sheet(pairs: Sequence[tuple[Case, Tensor]], path: Path) -> None:
    """Write `contact_sheet` as a JPEG; nothing for no clips."""
    from PIL import Image

    if pairs:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((contact_sheet(pairs) * 255).round().byte().numpy()).save(path, quality=88)
