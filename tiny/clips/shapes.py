"""An endless set of drawn clips: seed -> video and captions, with exact annotations of every kind.

One or two colored shapes, or a stick figure, move over plain, gradient or textured backgrounds. The same
seed gives the same clip in every process; training, validation and evaluation seeds never meet, and some
color-shape pairs are kept out of training altogether. `python -m tiny.clips.speed` measures the speed.

Letters: F frames, H height, W width, N objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from . import annotations
from .backgrounds import BACKGROUNDS, draw_background, two_shades
from .captions import DIRECTIONS, figure_phrasings, phrasings
from .figure import FigureTrack, keypoints, pick_figure
from .objects import (
    COLORS,
    FRAME_RATE,
    HELD_OUT,
    OBJECT_COLORS,
    SIZES,
    ShapeTrack,
    pick,
    pick_object,
    times,
)

__all__ = [
    "COLORS",
    "FRAME_RATE",
    "HELD_OUT",
    "OBJECT_COLORS",
    "SIZES",
    "SPLITS",
    "Clip",
    "FigureTrack",
    "ShapeTrack",
    "clip",
    "clips",
    "figure_clip",
    "split_of",
]

SPLITS = {
    "train": range(0, 2**40),
    "validation": range(2**40, 2**41),
    "evaluation": range(2**41, 2**42),
    "evaluator": range(2**42, 2**43),
}
WITH_HELD_OUT = ("evaluation", "evaluator")  # the evaluation network must know the held-out pairs
BACKGROUND_ODDS = np.cumsum([0.34, 0.26, 0.1, 0.1, 0.1, 0.1])
FIGURE_STREAM = 23  # a figure clip's random numbers are not those of the same seed's clip of shapes


@dataclass(frozen=True, eq=False)
class Clip:
    """A drawn clip; its annotations are computed when first asked for.

    Attributes:
        seed, split: Its origin.
        frames: [F, H, W, 3] float in [0, 1].
        caption: One true caption; captions: every phrasing.
        objects: `ShapeTrack`s or a `FigureTrack`, far to near; none in a clip that was not drawn.
        background: Its words; background_frames: [F, H, W, 3], the clip without any object.
        pan: Pixels a second (x, y) of drift.
    """

    seed: int
    split: str
    frames: Tensor
    caption: str
    captions: tuple[str, ...]
    objects: tuple[ShapeTrack | FigureTrack, ...]
    background: str
    background_frames: Tensor
    pan: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def _distances(self) -> Tensor:
        if not self.objects:
            raise ValueError(f"clip {self.seed} shows no drawn object, so it has no exact annotations")
        return annotations.distances(self.objects, *self.frames.shape[1:3])

    @cached_property
    def object_masks(self) -> Tensor:
        """[N, F, H, W] float of 0 and 1: where each object is seen, occlusion resolved."""
        return annotations.visible_masks(self._distances)

    @cached_property
    def masks(self) -> Tensor:
        """[F, H, W] float, 1 where any object is seen."""
        return self.object_masks.amax(0)

    @cached_property
    def depth(self) -> Tensor:
        """[F, H, W] float, near = 1, each frame stretched to [0, 1]."""
        return annotations.depth_map([track.nearness for track in self.objects], self.object_masks)

    @cached_property
    def lines(self) -> Tensor:
        """[F, H, W] float, bright outlines on black."""
        return annotations.outlines(self._distances)

    @cached_property
    def gray(self) -> Tensor:
        """[F, H, W] float, luma (BT.601)."""
        return self.frames @ torch.tensor([0.299, 0.587, 0.114])

    @cached_property
    def flow(self) -> Tensor:
        """[F-1, 2, H, W] float, (x, y) in pixels by which what is at a pixel moves to the next frame."""
        offsets = annotations.pan_offsets(self.background, self.pan, len(self.frames))
        return annotations.motion(self.objects, self.object_masks, offsets)

    @cached_property
    def boxes(self) -> Tensor:
        """[N, F, 4] integers (left, top, right, bottom) of the visible part; zeros if not visible."""
        return annotations.boxes(self.object_masks)

    @cached_property
    def tracks(self) -> Tensor:
        """[N, F, 2] float, the objects' centers (x, y) in pixels, outside the frame too."""
        return torch.stack([track.centers for track in self.objects])

    @cached_property
    def references(self) -> tuple[Tensor, ...]:
        """Each object alone and upright on white, [R, R, 3] float."""
        return tuple(track.reference(min(self.frames.shape[1:3])) for track in self.objects)

    @cached_property
    def joints(self) -> Tensor:
        """[F, 18, 2] float, COCO-18 key points (x, y) in pixels of the figure; ValueError without one."""
        if not self.objects or not isinstance(self.objects[-1], FigureTrack):
            raise ValueError(f"clip {self.seed} shows no stick figure; draw it with `figure_clip`")
        return self.objects[-1].joints

    @cached_property
    def keypoints(self) -> list[dict]:
        """The figure's joints as OpenPose key points, one dict for each frame."""
        return keypoints(self.joints, *self.frames.shape[1:3])

    def without(self, index: int) -> Tensor:
        """[F, H, W, 3] the clip as it would be without one of its objects.

        Args:
            index: Index into `objects`; -1 is the nearest.
        """
        remaining = list(self.objects)
        del remaining[index]
        return _paint(tuple(remaining), self.background_frames)


def split_of(seed: int) -> str:
    """The split a seed belongs to; ValueError outside every split."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise ValueError(f"seed {seed} is outside every split; the splits are {SPLITS}")


def _check_size(height: int, width: int, num_frames: int) -> None:
    if height < 16 or width < 16 or num_frames < 1:
        got = f"{num_frames} frames of {width}x{height}"
        raise ValueError(f"{got} are too small a clip; give at least 1 frame and 16 pixels a side")


def _backdrop(
    rng, used_colors: tuple[str, ...], num_frames: int, size: tuple[int, int], kinds: Sequence[str] = ()
):
    """A background in a color that is not taken: its frames, its words, its drift and where to."""
    name = pick(rng, [c for c in COLORS if c not in used_colors])
    kind = pick(rng, kinds) if kinds else pick(rng, BACKGROUNDS, BACKGROUND_ODDS)
    drift = (0.0, 0.0)
    heading = int(rng.integers(8))
    drifting = kind not in ("plain", "gradient") and rng.random() < 0.3
    if drifting:
        speed = rng.uniform(0.15, 0.35) * min(size)
        drift = (speed * math.cos(heading * math.pi / 4), speed * math.sin(heading * math.pi / 4))
    pan = times(num_frames)[:, None] * torch.tensor(drift)
    frames = draw_background(rng, kind, two_shades(rng, COLORS[name]), pan, size)
    return frames, f"{kind} {name} background", drift, DIRECTIONS[heading] if drifting else None


def _paint(objects: tuple, background: Tensor) -> Tensor:
    """[F, H, W, 3] the objects over the background, far to near."""
    frames = background.clone(memory_format=torch.contiguous_format)
    for track in objects:
        track.paint(frames)
    return frames.clamp_(0, 1)


def clip(
    seed: int,
    *,
    height: int = 64,
    width: int = 64,
    num_frames: int = 17,
    num_objects: int | None = None,
    backgrounds: Sequence[str] = (),
) -> Clip:
    """Draw the clip of shapes of a seed.

    Args:
        seed: Integer inside one of `SPLITS`' ranges (0, 1, 2, .. are training clips).
        height, width: Frame size in pixels, at least 16.
        num_frames: Number of frames at 16 a second, at least 1.
        num_objects: 1 or 2; None leaves it to the seed.
        backgrounds: Kinds of `BACKGROUNDS` to choose among; empty: all.

    Returns:
        The clip; equal arguments give equal clips, in every process.

    Raises:
        ValueError: The seed is in no split, a size is too small, or there are too many objects.
    """
    _check_size(height, width, num_frames)
    if num_objects not in (None, 1, 2):
        raise ValueError(f"num_objects is {num_objects}; a clip shows 1 or 2 (None: as its seed says)")
    if unknown := sorted(set(backgrounds) - set(BACKGROUNDS)):
        raise ValueError(f"backgrounds has {unknown}; the kinds are {BACKGROUNDS}")
    split, rng, size = split_of(seed), np.random.default_rng(seed), (height, width)
    count = 1 if rng.random() < 0.6 else 2
    objects: tuple[ShapeTrack, ...] = ()
    for nearness in (1.0,) if (num_objects or count) == 1 else (0.65, 1.0):
        objects += (
            pick_object(
                rng,
                held_out=split in WITH_HELD_OUT,
                used_colors=tuple(track.color for track in objects),
                nearness=nearness,
                num_frames=num_frames,
                size=size,
            ),
        )
    used_colors = tuple(track.color for track in objects)
    background, words, drift, going = _backdrop(rng, used_colors, num_frames, size, backgrounds)
    captions = phrasings(objects, words, going)
    caption = captions[int(rng.integers(len(captions)))]
    frames = _paint(objects, background)
    return Clip(seed, split, frames, caption, captions, objects, words, background, drift)


def figure_clip(seed: int, *, height: int = 64, width: int = 64, num_frames: int = 17) -> Clip:
    """Draw the stick figure's clip of a seed; arguments and splits as for `clip`."""
    _check_size(height, width, num_frames)
    split, rng = split_of(seed), np.random.default_rng([seed, FIGURE_STREAM])
    figure = pick_figure(rng, num_frames, (height, width))
    background, words, drift, going = _backdrop(rng, (figure.color,), num_frames, (height, width))
    captions = figure_phrasings(figure, words, going)
    caption = captions[int(rng.integers(len(captions)))]
    frames = _paint((figure,), background)
    return Clip(seed, split, frames, caption, captions, (figure,), words, background, drift)


def clips(
    split: str, *, start: int = 0, height: int = 64, width: int = 64, num_frames: int = 17
) -> Iterator[Clip]:
    """The split's clips of shapes from the start-th on, without end.

    Args:
        split: 'train', 'validation' or 'evaluation'.
        start: Number of clips to skip.
        height, width, num_frames: As in `clip`.

    Yields:
        Clips in the order of their seeds.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {tuple(SPLITS)}")
    for seed in SPLITS[split][start:]:
        yield clip(seed, height=height, width=width, num_frames=num_frames)
