"""Writes a clip: 4n + 1 frames at the fixed rate, in the bucket nearest to its aspect."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..data.video_files import fit
from .clip_files import decoded, to_bytes, write_clip
from .config import PrepareConfig
from .stage import Row, out_path, rejection


def choose_bucket(width: int, height: int, buckets: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The bucket (width, height) that is nearest in aspect, of several the largest."""
    aspect = math.log(width / height)
    return min(
        map(tuple, buckets), key=lambda b: (round(abs(math.log(b[0] / b[1]) - aspect), 9), -b[0] * b[1], b)
    )


def trim(row: Row, config: PrepareConfig) -> Row:
    """Write a clip's file.

    Args:
        row: A clip's row: `path` of its source, its `start` and `num_frames`, and the source's size.
        config: Its `clips`.

    Returns:
        `file` under the output folder, `width`, `height`, `num_frames`; or the reasons to reject it.
    """
    clips = config.clips
    size = row["width"], row["height"]
    width, height = choose_bucket(*size, clips.buckets)
    scale = max(width / size[0], height / size[1])
    if scale > clips.max_upscale:
        return rejection(
            f"too small: {size[0]}x{size[1]} would be enlarged {scale:.2f} times to {width}x{height}, "
            f"clips.max_upscale is {clips.max_upscale:g}"
        )
    frames = decoded(row["path"], clips.frame_rate, row["start"], row["num_frames"])
    fitted = (to_bytes(fit(torch.from_numpy(frame)[None], width, height, "cover")[0]) for frame in frames)
    file = f"clips/{row['id']}.mp4"
    count = write_clip(out_path(config, file), fitted, clips.frame_rate, clips.crf)
    if count != row["num_frames"]:
        return rejection(f"unreadable: {count} of {row['num_frames']} frames could be decoded")
    return {"file": file, "width": width, "height": height, "num_frames": count}
