"""An endless set of drawn clips: seed -> video, caption, depth, masks, lines and references, all exact.

One or two coloured shapes move over plain, gradient or textured backgrounds. The same seed gives the same
clip in every process; training, validation and evaluation seeds never meet, and some colour-shape pairs are
kept out of training altogether.

Letters: F frames, H height, W width, N objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .backgrounds import BACKGROUNDS, draw_background
from .captions import DIRECTIONS, phrasings
from .sdf import SHAPES, draw_sdf

COLOURS = {
    "red": (0.88, 0.10, 0.10),
    "green": (0.08, 0.62, 0.16),
    "blue": (0.10, 0.22, 0.90),
    "yellow": (0.97, 0.90, 0.10),
    "orange": (0.98, 0.52, 0.06),
    "purple": (0.52, 0.10, 0.68),
    "cyan": (0.10, 0.84, 0.88),
    "pink": (0.99, 0.55, 0.75),
    "black": (0.04, 0.04, 0.05),
    "white": (0.97, 0.97, 0.97),
    "gray": (0.50, 0.50, 0.50),
}
OBJECT_COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "pink", "black")
HELD_OUT = frozenset(
    {("purple", "star"), ("cyan", "heart"), ("orange", "cross"), ("green", "ring"), ("pink", "triangle")}
)
SIZES = {"small": 0.12, "medium": 0.17, "large": 0.24}
FRAME_RATE = 16
SPLITS = {
    "train": range(0, 2**40),
    "validation": range(2**40, 2**41),
    "evaluation": range(2**41, 2**42),
}


@dataclass(frozen=True)
class ShapeTrack:
    """One drawn object: what it is and where it is in every frame.

    Attributes:
        shape, colour, size_name: The words of the caption.
        path: 'still', 'linear', 'bounce' or 'circle'; direction names a linear path's heading.
        spin: Whether it turns.
        rgb: The colour drawn (the named one, slightly varied), each in [0, 1].
        radius: Pixels from the centre to the outline, about.
        nearness: 0 far .. 1 near, constant over the clip.
        centres: [F, 2] float, (x, y) in pixels; angles: [F] float, radians.
    """

    shape: str
    colour: str
    size_name: str
    path: str
    direction: str
    spin: bool
    rgb: tuple[float, float, float]
    radius: float
    nearness: float
    centres: Tensor
    angles: Tensor


@dataclass(frozen=True)
class Clip:
    """A drawn clip with its exact annotations.

    Attributes:
        seed, split: Where it comes from.
        frames: [F, H, W, 3] float in [0, 1].
        masks: [F, H, W] float, 1 where any object is seen; object_masks: [N, F, H, W], occlusion resolved.
        depth: [F, H, W] float, near = 1, each frame stretched to [0, 1].
        lines: [F, H, W] float, bright outlines on black.
        caption: One true caption; captions: every phrasing.
        references: Each object alone on white, cropped near its box, [R, R, 3] float.
        objects: `ShapeTrack`s, far to near; background: its words; pan: pixels a second (x, y) of drift.
    """

    seed: int
    split: str
    frames: Tensor
    masks: Tensor
    object_masks: Tensor
    depth: Tensor
    lines: Tensor
    caption: str
    captions: tuple[str, ...]
    references: tuple[Tensor, ...]
    objects: tuple[ShapeTrack, ...]
    background: str
    pan: tuple[float, float]


def split_of(seed: int) -> str:
    """The split a seed belongs to; ValueError outside every split."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise ValueError(f"seed {seed} is outside every split; the splits are {SPLITS}")


def _times(num_frames: int) -> Tensor:
    return torch.arange(num_frames) / FRAME_RATE


def _reflect(x: Tensor, low: float, high: float) -> Tensor:
    """Positions of a ball bouncing between two walls."""
    span = max(high - low, 1e-6)
    phase = ((x - low) / span) % 2
    return low + span * torch.where(phase > 1, 2 - phase, phase)


def _centres(
    rng, path: str, heading: float, radius: float, num_frames: int, height: int, width: int
) -> Tensor:
    """[F, 2] positions in pixels of one path inside the frame."""
    times, unit = _times(num_frames), min(height, width)
    duration = max(num_frames - 1, 1) / FRAME_RATE
    margin = [min(radius, side / 2) for side in (width, height)]
    middle = torch.tensor([rng.uniform(0.36, 0.64) * width, rng.uniform(0.36, 0.64) * height]).float()
    velocity = torch.tensor([math.cos(heading), math.sin(heading)]).float() * unit
    if path == "still":
        return middle.repeat(num_frames, 1)
    if path == "linear":
        travelled = min(rng.uniform(0.35, 0.7) * duration, 0.7)
        return middle + velocity * travelled * (times[:, None] / duration - 0.5)
    if path == "circle":
        orbit, turns, phase = (
            rng.uniform(0.15, 0.28) * unit,
            rng.uniform(0.6, 1.1),
            rng.uniform(0, 2 * math.pi),
        )
        around = phase + rng.choice([-1, 1]) * 2 * math.pi * turns * times
        return (
            torch.tensor([width / 2, height / 2])
            + orbit * torch.stack([around.cos(), around.sin()], -1).float()
        )
    straight = middle + velocity * rng.uniform(0.9, 1.6) * times[:, None]
    walls = [
        _reflect(straight[:, i], m, s - m)
        for i, (m, s) in enumerate(zip(margin, (width, height), strict=True))
    ]
    return torch.stack(walls, dim=-1)


def _pick_object(
    rng, split: str, taken: tuple[str, ...], nearness: float, num_frames: int, size: tuple[int, int]
):
    """Draw one object's look and path."""
    while True:
        colour, shape = str(rng.choice(OBJECT_COLOURS)), str(rng.choice(SHAPES))
        if colour not in taken and (split == "evaluation" or (colour, shape) not in HELD_OUT):
            break
    size_name = str(rng.choice(tuple(SIZES)))
    radius = SIZES[size_name] * rng.uniform(0.92, 1.08) * min(size)
    path = str(rng.choice(["linear", "bounce", "circle", "still"], p=[0.5, 0.2, 0.2, 0.1]))
    direction = int(rng.integers(8))
    heading = direction * math.pi / 4 + rng.uniform(-0.25, 0.25)
    spin = bool(rng.random() < 0.3) and shape not in ("circle", "ring")
    turn = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6) * 2 * math.pi if spin else 0.0
    angles = rng.uniform(-0.15, 0.15) + turn * _times(num_frames)
    rgb = tuple(float(np.clip(c + rng.uniform(-0.03, 0.03), 0, 1)) for c in COLOURS[colour])
    centres = _centres(rng, path, heading, radius, num_frames, *size)
    return ShapeTrack(
        shape,
        colour,
        size_name,
        path,
        DIRECTIONS[direction],
        spin,
        rgb,
        radius,
        nearness,
        centres,
        angles.float(),
    )


def _reference(track: ShapeTrack, size: int) -> Tensor:
    """[size, size, 3] the object upright on white, filling most of the canvas."""
    centre = torch.full((1, 2), size / 2)
    alpha = (0.5 - draw_sdf(track.shape, centre, torch.zeros(1), 0.42 * size, size, size)).clamp(0, 1)[0]
    return 1 - alpha[..., None] * (1 - torch.tensor(track.rgb))


def _render(objects: tuple[ShapeTrack, ...], background: Tensor):
    """Paint far to near: frames, object masks, nearness and outlines."""
    num_frames, height, width = background.shape[:3]
    frames, masks = background, []
    rows = torch.linspace(0.0, 0.3, height)[None, :, None]
    near, lines = rows.repeat(num_frames, 1, width), torch.zeros(num_frames, height, width)
    for track in objects:
        distance = draw_sdf(track.shape, track.centres, track.angles, track.radius, height, width)
        alpha = (0.5 - distance).clamp(0, 1)
        frames = torch.lerp(frames, torch.tensor(track.rgb).expand_as(frames), alpha[..., None])
        solid = (distance < 0).float()
        near = torch.where(solid > 0, torch.full_like(near, track.nearness), near)
        lines = torch.maximum(lines * (1 - solid), (1.5 - distance.abs()).clamp(0, 1))
        masks = [m * (1 - solid) for m in masks] + [solid]
    return frames, torch.stack(masks), near, lines


def clip(seed: int, *, height: int = 64, width: int = 64, num_frames: int = 17) -> Clip:
    """Draw the clip of a seed.

    Args:
        seed: Integer inside one of `SPLITS`' ranges (0, 1, 2, .. are training clips).
        height, width: Frame size in pixels, at least 16.
        num_frames: Number of frames at 16 a second, at least 1.

    Returns:
        The clip; equal arguments give equal clips, in every process.

    Raises:
        ValueError: The seed is in no split, or a size is too small.
    """
    if height < 16 or width < 16 or num_frames < 1:
        got = f"{num_frames} frames of {width}x{height}"
        raise ValueError(f"{got} are too small a clip; give at least 1 frame and 16 pixels a side")
    split, rng = split_of(seed), np.random.default_rng(seed)
    count = 1 if rng.random() < 0.6 else 2
    objects: tuple[ShapeTrack, ...] = ()
    for nearness in (1.0,) if count == 1 else (0.65, 1.0):
        taken = tuple(track.colour for track in objects)
        objects += (_pick_object(rng, split, taken, nearness, num_frames, (height, width)),)
    taken = tuple(track.colour for track in objects)
    names = [str(n) for n in rng.permutation([c for c in COLOURS if c not in taken])[:2]]
    kind = str(rng.choice(BACKGROUNDS, p=[0.3, 0.2, 0.15, 0.12, 0.12, 0.11]))
    drift = (0.0, 0.0)
    heading = int(rng.integers(8))
    drifting = kind not in ("plain", "gradient") and rng.random() < 0.3
    if drifting:
        speed = rng.uniform(0.2, 0.5) * min(height, width)
        drift = (speed * math.cos(heading * math.pi / 4), speed * math.sin(heading * math.pi / 4))
    pan = _times(num_frames)[:, None] * torch.tensor(drift)
    colours = tuple(torch.tensor(COLOURS[n]) for n in names)
    background = draw_background(rng, kind, colours, pan, (height, width))
    words = (
        f"plain {names[0]} background" if kind == "plain" else f"{kind} {names[0]} and {names[1]} background"
    )
    frames, object_masks, near, lines = _render(objects, background)
    low, high = near.amin((1, 2), keepdim=True), near.amax((1, 2), keepdim=True)
    captions = phrasings(objects, words, DIRECTIONS[heading] if drifting else None)
    return Clip(
        seed=seed,
        split=split,
        frames=frames.clamp(0, 1),
        masks=object_masks.amax(0),
        object_masks=object_masks,
        depth=(near - low) / (high - low),
        lines=lines,
        caption=captions[int(rng.integers(len(captions)))],
        captions=captions,
        references=tuple(_reference(track, min(height, width)) for track in objects),
        objects=objects,
        background=words,
        pan=drift,
    )


def clips(
    split: str, *, start: int = 0, height: int = 64, width: int = 64, num_frames: int = 17
) -> Iterator[Clip]:
    """The split's clips from the start-th on, without end.

    Args:
        split: 'train', 'validation' or 'evaluation'.
        start: How many to skip.
        height, width, num_frames: As in `clip`.

    Yields:
        Clips in the order of their seeds.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {tuple(SPLITS)}")
    for seed in SPLITS[split][start:]:
        yield clip(seed, height=height, width=width, num_frames=num_frames)
