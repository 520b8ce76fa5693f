"""Boxes in every frame, from a few moments, from keyed frames, or from a drawn path.

Shape letters: F pixel frames, K moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..text import counted
from .checks import MAX_FRAMES, as_list, as_tensor, flag, real, whole
from .unit import moments

Boxes = Tensor | Sequence[Sequence[float]] | Mapping[int, Sequence[float]]
MAX_THINGS = 100
MAX_COORDINATE = 1e6
BOX = "(left, top, right, bottom)"


def box_tracks(boxes: Boxes | Sequence[Boxes], num_frames: int, *, first: int = 0) -> list[list[list[int]]]:
    """The box of every thing in every frame, rounded to pixels: [N][F][4].

    Args:
        boxes, num_frames: as in `layout`.
        first: the first frame that shows boxes, 1 after a given image: boxes are spread from it on, and a box
            of an earlier frame is moved to it, unless it has its own.
    Raises:
        ValueError: no box, a box without area, or a shape or number is wrong.
    """
    tracks = []
    for number, thing in enumerate(_things(boxes), 1):
        name = f"box {number}"
        if isinstance(thing, Mapping):
            if not thing:
                raise ValueError(f"{name} has no frame; give at least one frame number and box")
            at = _shown(moments(thing, num_frames, name), first)
            rows = [_numbers(box, name, 4, BOX) for box in thing.values()]
            if any(row.ndim != 1 for row in rows):
                raise ValueError(f"{name} gives several boxes for one frame; give one {BOX}")
            track = np.stack([row for _, row in sorted(zip(at, rows, strict=True), key=lambda item: item[0])])
            at = sorted(at)
        else:
            track = np.atleast_2d(_numbers(thing, name, 4, BOX))
            if track.ndim != 2 or not len(track):
                raise ValueError(
                    f"{name} has shape {list(track.shape)}, expected [K, 4] {BOX}; give a box per moment"
                )
            at = _evenly(len(track), num_frames, first)
        refuse_fractions(name, track.flat)
        if not ((track[:, 2] > track[:, 0]) & (track[:, 3] > track[:, 1])).all():
            raise ValueError(f"{name} has no area; expected left < right and top < bottom")
        tracks.append(_between(at, track, num_frames).round().astype(int).tolist())
    return tracks


def path_boxes(
    points: Tensor | Sequence[Sequence[float]] | Mapping[int, Sequence[float]],
    *,
    size: tuple[float, float],
    num_frames: int,
    constant_speed: bool = False,
    first: int = 0,
    name: str = "points",
) -> Tensor:
    """A box that is carried along a drawn path by its center, for `layout` and `move`.

    Args:
        points: [K, 2] (x, y) in pixels of the canvas, at K moments spread evenly over the video; or a mapping
            frame number -> (x, y). Linear between them.
        size: the box's width and height in pixels.
        num_frames: length of the video.
        constant_speed: spread the points by the length of the path instead of evenly in time.
        first: the first frame that shows boxes: 0 for `layout`, 1 for `move`; see `box_tracks`.
        name: what to call the points in messages.
    Returns:
        [F, 4] (left, top, right, bottom) float, one box for every frame.
    Raises:
        ValueError: no point, a size without area, or a shape or number is wrong.
    """
    num_frames = whole("num_frames", num_frames, 1, MAX_FRAMES)
    sides = [real("size", side, 1.0, MAX_COORDINATE) for side in as_list(size, "size")]
    if len(sides) != 2:
        raise ValueError(f"size has {counted(len(sides), 'number')}, expected two; give (width, height)")
    constant_speed = flag("constant_speed", constant_speed)
    first = whole("first", first, 0, MAX_FRAMES)
    if isinstance(points, Mapping):
        if not points:
            raise ValueError(f"{name} is empty; give at least one frame number and (x, y)")
        if constant_speed:
            raise ValueError(f"constant_speed is set and {name} have frame numbers; give one or the other")
        at = _shown(moments(points, num_frames, name), first)
        keyed = sorted(zip(at, (_numbers(p, name, 2, "(x, y)") for p in points.values()), strict=True))
        at, track = [frame for frame, _ in keyed], np.stack([point for _, point in keyed])
    else:
        track = np.atleast_2d(_numbers(points, name, 2, "(x, y)"))
        at = _evenly(len(track), num_frames, first)
        if constant_speed:
            traveled = np.concatenate([[0.0], np.hypot(*np.diff(track, axis=0).T).cumsum()])
            at = at[0] + traveled / max(traveled[-1], 1e-9) * (num_frames - 1 - at[0])
    refuse_fractions(name, track.flat)
    centers = torch.from_numpy(_between(at, track, num_frames)).float()
    half = torch.tensor(sides) / 2
    return torch.cat([centers - half, centers + half], dim=1)


def refuse_fractions(name: str, values: Iterable[float]) -> None:
    """Refuse coordinates that are parts of the picture's sides, which would be a pixel in its corner.

    Args:
        name: what they belong to.
        values: all of its coordinates, in pixels.
    Raises:
        ValueError: all are within 0 and 1, and not all are whole.
    """
    values = list(values)
    if all(0 <= value <= 1 for value in values) and not all(value in (0, 1) for value in values):
        raise ValueError(
            f"{name}: coordinates from {min(values):.3g} to {max(values):.3g} are parts of the picture's "
            "sides, expected pixels; multiply them by its width and height"
        )


def _evenly(count: int, num_frames: int, first: int) -> np.ndarray:
    """Moments [count] from `first` to the last frame; num_frames moments are the frames themselves."""
    return np.linspace(0 if count == num_frames else min(first, num_frames - 1), num_frames - 1, count)


def _shown(at: list[int], first: int) -> list[int]:
    """Frame numbers with those before the first shown frame moved to it, unless it has its own."""
    return at if first in at else [max(frame, first) for frame in at]


def _things(boxes: Boxes | Sequence[Boxes]) -> list[Boxes]:
    """One entry for each thing."""
    if isinstance(boxes, Mapping):
        return [boxes]
    if hasattr(boxes, "shape"):
        if len(boxes.shape) < 3:
            return [boxes]
    things = as_list(boxes, "boxes")
    if not things:
        raise ValueError(f"no box was given; give at least one {BOX}")
    if all(isinstance(part, (int, float)) for part in things) or all(_is_box(part) for part in things):
        return [things]
    if len(things) > MAX_THINGS:
        raise ValueError(
            f"there are boxes of {counted(len(things), 'thing')}, expected at most {MAX_THINGS}; give fewer"
        )
    return things


def _is_box(part: object) -> bool:
    """True for a single box; a list of boxes is one object's track."""
    if hasattr(part, "ndim"):
        return part.ndim == 1
    return isinstance(part, (list, tuple)) and all(isinstance(number, (int, float)) for number in part)


def _numbers(values: object, name: str, size: int, what: str) -> np.ndarray:
    """[size] or [K, size] finite float64 of no absurd size."""
    if isinstance(values, (list, tuple)) and values and all(hasattr(row, "tolist") for row in values):
        values = [row.tolist() for row in values]
    array = as_tensor(values, name, what).detach().cpu()
    if array.is_complex() or array.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {array.dtype}, expected numbers {what}; convert it")
    array = array.double().numpy()
    if array.ndim not in (1, 2) or array.shape[-1] != size or not array.size:
        raise ValueError(
            f"{name} has shape {list(array.shape)}, expected [K, {size}] {what}; give one row per moment"
        )
    if not (np.abs(array) <= MAX_COORDINATE).all():
        raise ValueError(
            f"{name} holds NaN or numbers beyond {MAX_COORDINATE:g}, expected pixels {what}; give finite ones"
        )
    return array


def _between(at: Sequence[float], track: np.ndarray, num_frames: int) -> np.ndarray:
    """[F, size]: linear between the moments, still before the first and after the last."""
    frames = np.arange(num_frames)
    return np.stack([np.interp(frames, at, column) for column in track.T], axis=1)
