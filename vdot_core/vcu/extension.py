"""Builders that keep whole frames and generate those before, after or between them: extend and keyframes.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .canvas import as_clip, fit_frames, snap_length, target_size
from .unit import GREY, VCU, built


def extend(
    first: Tensor | None = None,
    last: Tensor | None = None,
    *,
    num_frames: int,
    width: int | None = None,
    height: int | None = None,
    strength: float = 1.0,
) -> VCU:
    """Continue a clip, lead up to one, or join two: a single image is a clip of one frame.

    Args:
        first: [F, H, W, 3] or [H, W, 3] float in [0, 1]: how the video begins.
        last: the same: how it ends. It is fitted to the size of `first`.
        num_frames: length of the whole video, given frames included; snapped down to 4n+1.
        width, height: canvas; None = the given clip's own size. Snapped to multiples of 16, the clips cover
            it.
        strength: scale of its context when encoded as one of several.
    Raises:
        ValueError: neither is given, they leave nothing to generate, or a shape, dtype or range is wrong.
    """
    given = [(name, clip) for name, clip in (("first", first), ("last", last)) if clip is not None]
    if not given:
        raise ValueError("nothing to extend: give `first`, `last` or both")
    total, notes = _length(num_frames)
    clips = {}
    for name, clip in given:
        clips[name], more = as_clip(clip, name)
        notes += more
    num_given = sum(len(clip) for clip in clips.values())
    if num_given >= total:
        raise ValueError(
            f"{num_given} frames are given for a video of {total}; nothing is left to generate. "
            "Ask for a longer video or give fewer frames"
        )
    indexed = []
    for name, clip in clips.items():
        start = 0 if name == "first" else total - len(clip)
        indexed += [(start + i, clip[i : i + 1], name) for i in range(len(clip))]
    return _place(indexed, total, width, height, strength, notes)


def keyframes(
    images: Tensor | Sequence[Tensor],
    indices: Sequence[int],
    *,
    num_frames: int,
    width: int | None = None,
    height: int | None = None,
    strength: float = 1.0,
) -> VCU:
    """Keep images at chosen moments and generate what lies between.

    Args:
        images: [K, H, W, 3] or a sequence of [H, W, 3] of any sizes, float in [0, 1]; fitted to the first
            one's size.
        indices: where each goes, 0 .. num_frames - 1; negative ones count from the end (-1 = last).
        num_frames: length of the video, snapped down to 4n+1.
        width, height: canvas; None = the first image's own size. Snapped to multiples of 16.
        strength: scale of its context when encoded as one of several.
    Raises:
        ValueError: counts differ, an index is out of range or used twice, or a shape, dtype or range is
            wrong.
    """
    total, notes = _length(num_frames)
    indices = [int(i) for i in (indices.tolist() if hasattr(indices, "tolist") else indices)]
    if len(images) == 0 or len(images) != len(indices):
        raise ValueError(
            f"{len(images)} keyframes for {len(indices)} indices; give one index for every image"
        )
    taken: dict[int, int] = {}
    indexed = []
    for order, (image, index) in enumerate(zip(images, indices, strict=True)):
        place = index + total if index < 0 else index
        if not 0 <= place < total:
            raise ValueError(
                f"keyframe {order + 1} is at index {index}, the video has frames 0..{total - 1} (-1 = last)"
            )
        if place in taken:
            raise ValueError(
                f"keyframes {taken[place] + 1} and {order + 1} are both at frame {place}; move one of them"
            )
        taken[place] = order
        clip, more = as_clip(image, f"keyframe {order + 1}")
        notes += more
        if len(clip) != 1:
            raise ValueError(f"keyframe {order + 1} holds {len(clip)} images, expected one")
        indexed.append((place, clip, f"keyframe {order + 1}"))
    if len(taken) == total:
        raise ValueError(f"keyframes fill all {total} frames; nothing is left to generate")
    return _place(indexed, total, width, height, strength, notes)


def _length(num_frames: int) -> tuple[int, list[str]]:
    total = snap_length(num_frames)
    return total, [] if total == num_frames else [f"length {num_frames} -> {total} frames (4n+1)"]


def _place(
    indexed: list[tuple[int, Tensor, str]],
    total: int,
    width: int | None,
    height: int | None,
    strength: float,
    notes: list[str],
) -> VCU:
    """Put one-frame clips at their indices on a grey canvas, all at the size of the first one."""
    first = indexed[0][1]
    width, height, more = target_size((first.shape[2], first.shape[1]), width, height)
    notes = notes + more
    frames = torch.full((total, height, width, 3), GREY, device=first.device)
    masks = torch.ones(total, height, width, device=first.device)
    for index, clip, name in indexed:
        fitted, more = fit_frames(clip, width, height, name)
        notes += [note for note in more if note not in notes]
        frames[index] = fitted[0]
        masks[index] = 0.0
    return built(frames, masks, kind="extension", strength=strength, notes=notes)
