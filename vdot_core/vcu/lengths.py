"""Companions of a clip (masks, regions, boxes, controls) that are a few frames shorter or longer than it.

Trackers, estimators and loaders drop or repeat a frame at the end of a clip. Such a difference is fitted and
reported: the last frame is held, or frames are dropped at the end. A larger one is a mistake, and refused.

Shape letters: F pixel frames, T latent frames.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from ..scratch import joined
from ..text import counted
from .scaling import lengthen
from .unit import VAE_STRIDE, VCU, num_latent_frames

MAX_STRAY_FRAMES = VAE_STRIDE[0] - 1
MAX_STRAY_SHARE = 0.25
# Units have 4n+1 frames: of a clip one frame shorter, a builder takes one latent frame less.
MAX_STRAY_UNIT_FRAMES = VAE_STRIDE[0]
KEEPING = ("repaint", "extension")

Frames = TypeVar("Frames", Tensor, list)


def fit_length(frames: Frames, num_frames: int, name: str, owner: str) -> tuple[Frames, list[str]]:
    """Bring a companion to the length of its clip, where they differ by a few frames.

    Args:
        frames: [F, ...], or a list with an entry for each frame; a single one is left as it is.
        num_frames: length of the clip.
        name, owner: what the companion and the clip are called in messages.
    Returns:
        The frames, and notes. Frames whose length is too far off come back as they are.
    """
    count = len(frames)
    if count in (0, 1, num_frames) or not _is_stray(count, num_frames, MAX_STRAY_FRAMES):
        return frames, []
    note = f"{name} has {counted(count, 'frame')}, {owner} has {num_frames}: {_change(count, num_frames)}"
    if count > num_frames:
        return frames[:num_frames], [note]
    missing = num_frames - count
    if isinstance(frames, Tensor):
        return joined([frames, frames[-1:].expand(missing, *frames.shape[1:])]), [note]
    return frames + frames[-1:] * missing, [note]


def fit_units(named: list[tuple[str, VCU]]) -> tuple[list[tuple[str, VCU]], list[str]]:
    """Bring controls to the length of the clip that they accompany, where they differ by one latent frame.

    Units that keep pixels decide the length; without any, the longest control does.

    Args:
        named: (what to call it, unit); 'generate' units may have any length.
    Returns:
        The same list with fitted controls, and notes. Units too far off come back as they are.
    """
    content = [unit for _, unit in named if unit.kind != "generate"]
    keeping = [unit.num_frames for unit in content if unit.kind in KEEPING]
    target = max(keeping or [unit.num_frames for unit in content], default=0)
    fitted, notes = [], []
    for name, unit in named:
        count = unit.num_frames
        if unit.kind == "control" and count != target and _is_stray(count, target, MAX_STRAY_UNIT_FRAMES):
            notes.append(f"{name}: fitted to {counted(target, 'frame')}, {_change(count, target)}")
            unit = _with_length(unit, target)
        fitted.append((name, unit))
    return fitted, notes


def _is_stray(count: int, length: int, most: int) -> bool:
    """True if two lengths can be those of one clip, counted differently."""
    return abs(count - length) <= min(most, length * MAX_STRAY_SHARE)


def _change(count: int, length: int) -> str:
    difference = abs(count - length)
    if count < length:
        return f"its last frame is held for {difference} more"
    return "its last frame is dropped" if difference == 1 else f"its last {difference} frames are dropped"


def _with_length(unit: VCU, num_frames: int) -> VCU:
    """A control of another length: cut, or with its last frame and strength held."""
    strength = unit.strength
    if isinstance(strength, tuple):
        total = num_latent_frames(num_frames)
        strength = strength[:total] + strength[-1:] * (total - len(strength))
    region = None if unit.region is None else lengthen(unit.region, num_frames, "hold")
    frames, masks = lengthen(unit.frames, num_frames, "hold"), lengthen(unit.masks, num_frames, "hold")
    return unit.replace(frames=frames, masks=masks, region=region, strength=strength)
