"""Cuts a clip's subject out on white, from a frame of its shot that is not in the clip.

A reference from the clip itself would let the network copy pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vdot_core.vcu import snap_size
from vdot_core.vcu.grow import drop_specks, mask_box
from vdot_core.vcu.scaling import resample

from .annotate import annotator
from .clip_files import decoded, write_picture
from .config import PrepareConfig
from .stage import Row, out_path

MAX_SIDE = 1024
MARGIN = 0.05  # of the subject's box, on each side
NUM_MOMENTS = 3
SMALLEST_GAP_S = 0.1
FIRM = 0.5  # where a soft mask is the subject


def missing(config: PrepareConfig) -> str | None:
    """Why no subject can be cut out."""
    if "matte" not in config.annotators:
        return "references need the annotator matte; add it to annotators"
    return annotator("matte", config).missing()


def moments(row: Row, config: PrepareConfig) -> list[float]:
    """Seconds in the clip's shot and outside of the clip, the most distant ones first."""
    clips = config.clips
    start, end = row["start"], row["start"] + (row["trim"]["num_frames"] - 1) / clips.frame_rate
    before = start - SMALLEST_GAP_S, row["shot_start"] + (clips.edge_s if row["shot_start"] else 0)
    after = end + SMALLEST_GAP_S, row["shot_end"] - clips.edge_s - 1 / clips.frame_rate
    times = []
    for near, far in (before, after):
        reach = min(abs(far - near), clips.reserve / clips.frame_rate)
        sign = 1 if near > end else -1
        if (far - near) * sign >= 0:
            times += [near + sign * reach * part for part in (1.0, 0.5)]
    middle = (start + end) / 2
    return sorted({round(time, 4) for time in times}, key=lambda time: (-abs(time - middle), time))[
        :NUM_MOMENTS
    ]


def cut_reference(row: Row, config: PrepareConfig) -> Row:
    """Cut out one reference.

    Args:
        row: A clip's row after `trim` and `annotate_matte`.
        config: All settings.

    Returns:
        `file`, a PNG under the output folder; `time` in the source; `area`, the subject's part of that frame.
        Where there is none, `none` says why.
    """
    times = moments(row, config)
    if not times:
        return {"none": "its shot has no frame outside of the clip"}
    low, high = config.tasks.subject_area
    areas = []
    for time in times:
        frame = next(decoded(row["path"], config.clips.frame_rate, time, 1), None)
        if frame is None:
            continue
        picture = _scaled(torch.from_numpy(frame).float() / 255)
        mask = annotator("matte", config).run(picture[None]).masks[0]
        areas.append(float((mask > FIRM).float().mean()))
        if low <= areas[-1] <= high:
            file = f"references/{row['id']}.png"
            write_picture(out_path(config, file), on_white(picture, mask))
            return {"file": file, "time": time, "area": round(areas[-1], 5)}
    shares = ", ".join(f"{area:.1%}" for area in areas) or "no frame"
    return {"none": f"no subject of {low:.0%} to {high:.0%} outside of the clip ({shares} of the frame)"}


def _scaled(picture: Tensor) -> Tensor:
    """A large [H, W, 3] within `MAX_SIDE`."""
    height, width = picture.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return picture
    return resample(picture[None], *snap_size(round(width * scale), round(height * scale)))[0].clamp(0, 1)


def on_white(picture: Tensor, mask: Tensor) -> Tensor:
    """A subject on white, cropped with a margin to its box, which stray pixels do not widen.

    Args:
        picture: [H, W, 3] float in [0, 1].
        mask: [H, W] float in [0, 1], 1 = subject.
    """
    left, top, right, bottom = mask_box(drop_specks((mask > FIRM).numpy())[0])
    down, across = round((bottom - top) * MARGIN), round((right - left) * MARGIN)
    window = (
        slice(max(0, top - down), bottom + down),
        slice(max(0, left - across), right + across),
    )
    soft = mask[window][..., None]
    return picture[window] * soft + (1 - soft)
