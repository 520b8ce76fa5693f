"""Clips as the VAE encodes them, rendered a frame at a time.

Shape letters: B batch, F pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .unit import GRAY, VCU, dense, gray_frames


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames for the VAE, grayed where a mask says so.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        masks: [F, H, W]; None = no pixel is grayed.
        gray_generated: gray the pixels whose mask is over one half; False = the others.
        source: the tensor with which remembered latents are forgotten; None = never.
    """

    frames: Tensor
    masks: Tensor | None = None
    gray_generated: bool = False
    source: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return tuple(self.frames.shape)

    def frame(self, index: int) -> Tensor:
        """One frame [H, W, 3]."""
        frame = self.frames[index]
        if self.masks is None:
            return frame
        shown = self._shown(index).to(frame.dtype)[..., None]
        return torch.addcmul((1 - shown) * GRAY, frame, shown)  # three times as fast as torch.where

    def _shown(self, index: int) -> Tensor:
        """Pixels [H, W] of a frame that are not grayed."""
        generated = self.masks[index] > 0.5
        return ~generated if self.gray_generated else generated

    def is_gray(self) -> bool:
        """True if every pixel is gray."""
        if self.masks is None:
            # Frame by frame: most clips show at the first one that they are not gray.
            return all(bool((frame == GRAY).all()) for frame in dense(self.frames))
        frames = enumerate(self.frames)
        return all(bool((frame[self._shown(index)] == GRAY).all()) for index, frame in frames)

    def equals(self, other: Clip) -> bool:
        """True if both show the same pixels."""
        if self.shape != other.shape:
            return False
        if self.frames is other.frames and self.masks is None and other.masks is None:
            return True
        return all(torch.equal(self.frame(index), other.frame(index)) for index in range(len(self.frames)))


def halves(unit: VCU) -> tuple[Clip, Clip]:
    """The inactive (kept) and the reactive (generated) half of a unit's frames."""
    if bool((dense(unit.masks) > 0.5).all()):
        gray = gray_frames(unit.num_frames, unit.height, unit.width, unit.frames.device)
        return Clip(gray), Clip(unit.frames, source=unit.frames)
    inactive, reactive = (Clip(unit.frames, unit.masks, hides, unit.frames) for hides in (True, False))
    return inactive, reactive


def stacked(clips: Sequence[Clip]) -> Tensor:
    """A batch [B, F, H, W, 3] of clips of one shape; a clip alone that shows its frames is not copied."""
    first = clips[0]
    if len(clips) == 1 and first.masks is None:
        return first.frames[None]
    video = first.frames.new_empty(len(clips), *first.shape)
    for place, clip in zip(video, clips, strict=True):
        for index in range(len(place)):
            place[index] = clip.frame(index)
    return video
