"""Builders that keep given frames and generate those before, after or between them: extend and keyframes.

Shape letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..memory import RGB
from ..scratch import empty
from ..text import counted
from .canvas import as_clip, rounded_length, rounding_named, target_size
from .checks import MAX_FRAMES, as_list, check_volume, whole
from .scaling import fill_cover, fit_notes
from .unit import GRAY, VCU, built


def extend(
    first: Tensor | None = None,
    last: Tensor | None = None,
    *,
    num_frames: int,
    width: int | None = None,
    height: int | None = None,
    strength: float | Sequence[float] = 1.0,
) -> VCU:
    """Continue a clip, lead up to one, or join two: a single image is a clip of one frame.

    Args:
        first: [F, H, W, 3] or [H, W, 3] float in [0, 1]: how the video begins.
        last: the same: how it ends. It is fitted to the size of `first`.
        num_frames: length of the video, given frames included; snapped down to 4n+1.
        width, height: canvas; None = the given clip's own size. Snapped to multiples of 16, the clips cover
            it.
        strength: scale of its context; see `VCU`.
    Raises:
        ValueError: neither is given, they leave nothing to generate, or a shape, dtype or range is wrong.
    """
    inputs = [(name, clip) for name, clip in (("first", first), ("last", last)) if clip is not None]
    if not inputs:
        raise ValueError("nothing to extend: give `first`, `last` or both")
    total, notes = rounded_length(num_frames)
    clips = {}
    for name, clip in inputs:
        clips[name], more = as_clip(clip, name)
        notes += more
    num_given = sum(len(clip) for clip in clips.values())
    if num_given >= total:
        with rounding_named(notes):
            raise ValueError(
                f"{counted(num_given, 'frame')} given for a video of {total}; nothing is left to generate. "
                "Ask for a longer video or give fewer frames"
            )
    placed = [(0 if name == "first" else total - len(clip), clip, name) for name, clip in clips.items()]
    return _place(placed, total, width, height, strength, notes)


def keyframes(
    images: Tensor | Sequence[Tensor],
    indices: Sequence[int],
    *,
    num_frames: int,
    width: int | None = None,
    height: int | None = None,
    strength: float | Sequence[float] = 1.0,
    names: Sequence[str] | None = None,
) -> VCU:
    """Keep images or clips at chosen moments and generate the frames between.

    Args:
        images: [K, H, W, 3], or a sequence of images [H, W, 3] and clips [F, H, W, 3] of any sizes, float in
            [0, 1]; fitted to the first one's size.
        indices: the frame at which each begins, 0 .. num_frames - 1; negative ones count from the end and
            say where it ends (-1 = the video's last frame).
        num_frames: length of the video, snapped down to 4n+1.
        width, height: canvas; None = the first image's own size. Snapped to multiples of 16.
        strength: scale of its context; see `VCU`.
        names: what to call each image in messages; None = 'keyframe 1', ..
    Raises:
        ValueError: counts differ, one reaches out of the video, two give the same frame (both are named), or
            a shape, dtype or range is wrong.
    """
    total, notes = rounded_length(num_frames)
    images = as_list(images, "images")
    numbers = enumerate(as_list(indices, "indices"), 1)
    indices = [whole(f"index {k}", index, -MAX_FRAMES, MAX_FRAMES) for k, index in numbers]
    if not images or len(images) != len(indices):
        raise ValueError(
            f"{counted(len(images), 'keyframe')} for {counted(len(indices), 'position')}; "
            "give one position for every image"
        )
    names = [f"keyframe {number}" for number in range(1, len(images) + 1)] if names is None else names
    clips = []
    for image, name in zip(images, names, strict=True):
        clip, more = as_clip(image, name)
        notes += more
        clips.append(clip)
    with rounding_named(notes):
        starts = _starts(names, indices, [len(clip) for clip in clips], total)
    return _place(list(zip(starts, clips, names, strict=True)), total, width, height, strength, notes)


def _starts(names: Sequence[str], indices: list[int], lengths: list[int], total: int) -> list[int]:
    """The first frame of each keyframe's clip; ValueError where two overlap, or nothing is left."""
    owner: dict[int, str] = {}
    starts = []
    for name, index, length in zip(names, indices, lengths, strict=True):
        start = _start(name, index, length, total)
        for frame in range(start, start + length):
            if frame in owner:
                raise ValueError(f"{owner[frame]} and {name} are both at frame {frame}; move one of them")
            owner[frame] = name
        starts.append(start)
    if len(owner) == total:
        raise ValueError(
            f"keyframes fill all {counted(total, 'frame')}; nothing is left to generate. Give fewer of them"
        )
    return starts


def _start(name: str, index: int, length: int, total: int) -> int:
    """The first frame of a keyframe's clip; ValueError where it reaches out of the video."""
    start = index if index >= 0 else index + total - (length - 1)
    if 0 <= start <= total - length:
        return start
    if length == 1:
        raise ValueError(
            f"{name} is at position {index}, the video has frames 0..{total - 1} (-1 = last); "
            "give a position inside"
        )
    raise ValueError(
        f"{name} ({counted(length, 'frame')} at position {index}) covers frames {start}.."
        f"{start + length - 1}, the video has 0..{total - 1}; move it or give fewer frames"
    )


def _place(
    placed: list[tuple[int, Tensor, str]],
    total: int,
    width: int | None,
    height: int | None,
    strength: float | Sequence[float],
    notes: list[str],
) -> VCU:
    """Put clips at their first frames on a gray canvas, all at the size of the first one."""
    first = placed[0][1]
    width, height, more = target_size((first.shape[2], first.shape[1]), width, height)
    check_volume(total, width, height, RGB)
    notes = notes + more
    frames = empty((total, height, width, 3), first.device).fill_(GRAY)
    masks = torch.ones(total, 1, 1, device=first.device)
    for start, clip, name in placed:
        notes += fit_notes(clip, width, height, name)
        fill_cover(frames[start : start + len(clip)], clip)
        masks[start : start + len(clip)] = 0.0
    masks = masks.expand(total, height, width)
    return built(frames, masks, kind="extension", strength=strength, notes=notes)
