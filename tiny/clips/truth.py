"""The ground truth of a drawn clip for scoring generated videos: its words and its exact maps.

Letters: F frames, H W pixels, N objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vdot_core import vcu

from .shapes import Clip, FigureTrack

MIN_VISIBLE_PIXELS = 12  # fewer are not counted as showing an object


@dataclass(frozen=True, eq=False)
class ObjectFacts:
    """One object in words and numbers.

    Attributes:
        color, shape, size_name, path, direction, spin: The words of the caption; direction is '' where the
            object goes nowhere.
        nearness: 0 far .. 1 near.
        positions: [F, 2] float, center (x, y) as parts of width and height.
        size: Half its height, about, as a part of the shorter side.
        visible: [F] bool, True where enough of it is seen.
    """

    color: str
    shape: str
    size_name: str
    path: str
    direction: str
    spin: bool
    nearness: float
    positions: Tensor
    size: float
    visible: Tensor


@dataclass(frozen=True)
class SceneFacts:
    """A clip in words and numbers.

    Attributes:
        objects: Far to near.
        background_kind, background_color: 'plain', 'red'.
        drift: The background's motion, parts of the shorter side a second (x, y).
    """

    objects: tuple[ObjectFacts, ...]
    background_kind: str
    background_color: str
    drift: tuple[float, float]


def facts(clip: Clip) -> SceneFacts:
    """The objects and background of a drawn clip."""
    height, width = clip.frames.shape[1:3]
    side = min(height, width)
    objects = []
    for track, masks in zip(clip.objects, clip.object_masks, strict=True):
        goes = track.path in ("linear", "walk", "run")
        objects.append(
            ObjectFacts(
                track.color,
                track.shape,
                track.size_name,
                track.path,
                track.direction if goes else "",
                track.spin,
                track.nearness,
                track.centers / torch.tensor([width, height]),
                track.radius / side,
                masks.sum((1, 2)) >= MIN_VISIBLE_PIXELS,
            )
        )
    kind, color = clip.background.split()[:2]
    return SceneFacts(tuple(objects), kind, color, (clip.pan[0] / side, clip.pan[1] / side))


def _pose(clip: Clip, unit: vcu.VCU) -> Tensor | None:
    figure = isinstance(clip.objects[-1], FigureTrack)
    return clip.joints if figure else None


def _references(clip: Clip, unit: vcu.VCU) -> list[tuple[str, str]]:
    """(color, shape) of what the references show, in no order."""
    names = [(track.color, track.shape) for track in clip.objects]
    return names[-len(unit.references) :]


TRUTHS: dict[str, Callable[[Clip, vcu.VCU], Any]] = {
    "masks": lambda clip, unit: clip.object_masks,
    "boxes": lambda clip, unit: clip.boxes,
    "depth": lambda clip, unit: clip.depth,
    "lines": lambda clip, unit: clip.lines,
    "gray": lambda clip, unit: clip.gray,
    "flow": lambda clip, unit: clip.flow,
    "pose": _pose,
    "kept": lambda clip, unit: unit.masks < 0.5,
    "references": _references,
}


def truths(tells: Sequence[str], clip: Clip, unit: vcu.VCU) -> dict[str, Any]:
    """The true values of a unit's signals.

    Args:
        tells: As `tiny.tasks.Task.tells`.
        clip: The clip that the unit was made from.
        unit: The unit.

    Returns:
        By name: 'masks' [N, F, H, W], 'boxes' [N, F, 4], 'depth', 'lines', 'gray' [F, H, W], 'flow'
        [F-1, 2, H, W], 'pose' [F, 18, 2] (None where no figure is drawn), 'kept' [F, H, W] bool where the
        video must equal `clip.frames`, 'references' a list of (color, shape).

    Raises:
        ValueError: A name is unknown.
    """
    unknown = [name for name in tells if name not in TRUTHS]
    if unknown:
        raise ValueError(f"unknown truths {unknown}; expected some of {tuple(TRUTHS)}")
    return {name: TRUTHS[name](clip, unit) for name in dict.fromkeys(tells)}
